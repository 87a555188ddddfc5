"""The tuner's own parts: shapes, refusals, and a file that is whole or not there. Its timings need a GPU."""

import json
from pathlib import Path

import pytest

from falcon_tune import files
from falcon_tune.__main__ import main
from falcon_tune.files import Launch, Shape, TuneError

CONFIG = {"mamba_n_heads": 24, "mamba_d_head": 128, "mamba_d_state": 256}


def test_the_shape_is_the_checkpoints() -> None:
    assert files.shape_of(CONFIG, "config.json") == Shape()
    assert files.shape_of(CONFIG, "config.json", 2).heads == 12
    cut = files.shape_of({**CONFIG, "mamba_n_groups": 2, "mamba_chunk_size": 128}, "config.json")
    assert (cut.groups, cut.chunk) == (2, 128)


@pytest.mark.parametrize(
    ("config", "parallel", "said"),
    [
        ([], 1, "x is not a JSON object"),
        ({**CONFIG, "mamba_d_state": None}, 1, "mamba_d_state is None"),
        ({**CONFIG, "mamba_n_heads": True}, 1, "mamba_n_heads is True"),
        (CONFIG, 5, "24 heads cannot be shared by 5 GPUs"),
    ],
)
def test_another_models_config_is_refused(config: object, parallel: int, said: str) -> None:
    with pytest.raises(TuneError, match=said):
        files.shape_of(config, "x", parallel)


def test_the_file_has_an_entry_for_each_number_of_sequences(tmp_path: Path) -> None:
    text = files.text({32: Launch(16, 4), 1: Launch(4, 2)}, 24, "3.6.0")
    written = files.write(tmp_path / "deep" / "er", "name.json", text)
    assert json.loads(written.read_text()) == {
        "triton_version": "3.6.0",
        "24": {"BLOCK_SIZE_M": 4, "num_warps": 2},
        "768": {"BLOCK_SIZE_M": 16, "num_warps": 4},
    }
    assert [path.name for path in written.parent.iterdir()] == ["name.json"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TuneError, match=r"cannot be written \(Not a directory\): name another folder with --out"):
        files.write(tmp_path / "file" / "folder", "name.json", "{}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "/not/there"], "/not/there/config.json cannot be read"),
        (["--batches", "0"], "must be above 0"),
        (["--seconds", "-1"], "must be above 0"),
        ([], "run this where the engine runs"),
    ],
)
def test_a_refusal_is_one_line_and_writes_nothing(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "out"), *options]) == 1
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
