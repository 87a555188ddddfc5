"""Bad input is one sentence with the file, the value and the way out; nothing half-written is left."""

# mypy: disable-error-code="import-not-found"

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.torch.quantizing import SMALL, checkpoint, hollow, run, shapes, weights

from falcon_quantize import checks, cli
from falcon_quantize.work import Work

Change = Callable[[Path], Any]


def write_config(source: Path, **changes: Any) -> None:
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def remove(source: Path, pattern: str) -> None:
    for path in source.glob(pattern):
        path.unlink()


def twice(source: Path) -> None:
    remove(source, "model.safetensors.index.json")
    shutil.copy(source / "model-1.safetensors", source / "model-9.safetensors")


def cut(path: Path, by: int = 100) -> None:
    os.truncate(path, path.stat().st_size - by)


def with_tensor(name: str, tensor: torch.Tensor) -> Change:
    def change(source: Path) -> None:
        shutil.rmtree(source)
        checkpoint(source, weights() | {name: tensor})

    return change


Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
NAN = weights()[Q_PROJ].clone().fill_(float("nan"))
BAD: dict[str, tuple[Change, str]] = {
    "no config": (lambda s: (s / "config.json").unlink(), "is no checkpoint: it has no config.json"),
    "config is no JSON": (lambda s: (s / "config.json").write_text("{"), "config.json is not JSON"),
    "config is a list": (lambda s: (s / "config.json").write_text("[]"), "is not a JSON object"),
    "other architecture": (
        lambda s: write_config(s, architectures=["LlamaForCausalLM"]),
        "names the architectures ['LlamaForCausalLM']",
    ),
    "quantized by its config": (
        lambda s: write_config(s, quantization_config={"quant_method": "modelopt"}),
        "is quantized already: it has config.json with a quantization_config",
    ),
    "quantized by the file beside": (
        lambda s: (s / "hf_quant_config.json").write_text("{}"),
        "is quantized already: it has hf_quant_config.json",
    ),
    "quantized by a tensor": (
        with_tensor(Q_PROJ, torch.zeros(64, 32, dtype=torch.uint8)),
        f"is quantized already: {Q_PROJ} is U8",
    ),
    "unknown dtype": (with_tensor(Q_PROJ, torch.zeros(64, 64, dtype=torch.float64)), f"holds {Q_PROJ} as F64"),
    "columns": (
        with_tensor(Q_PROJ, torch.zeros(64, 72, dtype=torch.bfloat16)),
        f"{Q_PROJ} has 72 columns, which NVFP4 cannot hold",
    ),
    "not a matrix": (with_tensor(Q_PROJ, torch.zeros(64, dtype=torch.bfloat16)), "not a matrix"),
    "NaN": (with_tensor(Q_PROJ, NAN), "cannot be quantized: it holds NaN or infinite numbers"),
    "layers are missing": (
        lambda s: write_config(s, num_hidden_layers=3),
        "has no model.layers.2.self_attn.q_proj.weight",
    ),
    "no layers": (lambda s: write_config(s, num_hidden_layers=0), "has num_hidden_layers 0"),
    "cut": (lambda s: cut(s / "model-1.safetensors"), "model-1.safetensors is cut or damaged: it has"),
    "cut in the header": (
        lambda s: os.truncate(s / "model-1.safetensors", 40),
        "model-1.safetensors (40 bytes) does not begin with a safetensors header",
    ),
    "empty file": (lambda s: os.truncate(s / "model-1.safetensors", 0), "does not begin with a safetensors header"),
    "header is no JSON": (
        lambda s: (s / "model-1.safetensors").write_bytes(b"\x08" + bytes(7) + b"nonsense"),
        "has an unreadable safetensors header",
    ),
    "missing file": (
        lambda s: (s / "model-2.safetensors").unlink(),
        "lacks 1 of the 3 files that model.safetensors.index.json names, model-2.safetensors first",
    ),
    "index is no JSON": (lambda s: (s / "model.safetensors.index.json").write_text("x"), "has no usable weight_map"),
    "no weights": (
        lambda s: remove(s, "model*"),
        "is no checkpoint: it has no *.safetensors file",
    ),
    "tensor twice": (
        twice,
        "twice, in model-1.safetensors and model-9.safetensors",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_source(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, sentence = BAD[case]
    source = checkpoint(tmp_path / "source")
    change(source)
    refused(source, tmp_path / "out", sentence, capsys)
    assert list(tmp_path.iterdir()) == [source]


def refused(source: Path, out: Path, sentence: str, capsys: pytest.CaptureFixture[str], *options: str) -> None:
    assert run(source, out, *options) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("falcon-quantize: ")]
    assert len(said) == 1
    assert sentence in said[0]
    assert said[0].endswith((".", ".)"))
    assert not out.with_name(f"{out.name}.partial").exists()


def test_a_source_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(tmp_path / "absent", tmp_path / "out", "absent is not a directory", capsys)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read and write anything")
@pytest.mark.parametrize(
    ("place", "sentence"), [("source/model-1.safetensors", "may not be read"), ("", "may not write to")]
)
def test_no_permission(place: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = checkpoint(tmp_path / "source")
    (tmp_path / place).chmod(0o500 if not place else 0)
    try:
        refused(source, tmp_path / "out", sentence, capsys)
    finally:
        (tmp_path / place).chmod(0o700)
    assert list(tmp_path.iterdir()) == [source]


def test_an_out_that_exists_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("kept")
    refused(checkpoint(tmp_path / "source"), tmp_path / "out", "out exists already", capsys)
    assert (tmp_path / "out/mine").read_text() == "kept"


def test_an_out_in_no_directory_or_in_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = checkpoint(tmp_path / "source")
    refused(source, tmp_path / "absent/out", "absent is not a directory", capsys)
    refused(source, source / "out", "is inside the source", capsys)


def test_no_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free = shutil.disk_usage(tmp_path).free
    source = huge(tmp_path / "source", rows=free // 1024)
    refused(source, tmp_path / "out", "GiB free and the result needs", capsys)
    assert list(tmp_path.iterdir()) == [source]


def test_no_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    available, _ = checks.available_memory()
    rows = available // 8192
    if rows * 1024 > shutil.disk_usage(tmp_path).free:
        pytest.skip("this disk has less room than the machine has memory: it would be refused for that")
    source = huge(tmp_path / "source", rows)
    refused(source, tmp_path / "out", "GiB of memory, this needs up to", capsys)
    assert list(tmp_path.iterdir()) == [source]


def huge(directory: Path, rows: int) -> Path:
    """A checkpoint one weight of which has so many rows of 4096 BF16 numbers, and takes no room."""
    checkpoint(directory)
    for path in directory.glob("model*"):
        path.unlink()
    hollow(directory / "model.safetensors", shapes(SMALL) | {"model.layers.0.mamba.in_proj.weight": (rows, 4096)})
    return directory


def test_no_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    refused(checkpoint(tmp_path / "source"), tmp_path / "out", "torch finds no GPU here", capsys, "--device", "cuda")


def test_options_that_do_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = checkpoint(tmp_path / "source")
    assert cli.main([str(source)]) == 2
    assert "--out is missing" in capsys.readouterr().err
    refused(
        source,
        tmp_path / "out",
        "is for --kv-scales calibrated",
        capsys,
        "--calibration-text",
        str(source / "config.json"),
    )
    absent = ("--kv-scales", "calibrated", "--calibration-text", str(tmp_path / "absent"))
    refused(source, tmp_path / "out", "absent cannot be read", capsys, *absent)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: cut(s / "model-0.safetensors"),
        lambda s: cut(s / "model-2.safetensors", 2),
        lambda s: os.utime(s / "model-1.safetensors"),
        lambda s: (s / "model-1.safetensors").unlink(),
        lambda s: (s / "tokenizer_config.json").write_text("{}"),
        lambda s: write_config(s, rope_theta=1e11),
    ],
    ids=["cut", "cut a little", "written to", "gone", "tokenizer", "config"],
)
@pytest.mark.parametrize("after", [1, 3])
def test_a_source_that_changes_under_the_run(
    change: Change, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = checkpoint(tmp_path / "source")
    add, files = Work.add, 0

    def add_and_change(work: Work, *arguments: Any) -> Any:
        nonlocal files
        files += 1
        if files == after:
            change(source)
        return add(work, *arguments)

    monkeypatch.setattr(Work, "add", add_and_change)
    refused(source, tmp_path / "out", "has changed since this run began", capsys, "--shard-size", "20000")
    assert list(tmp_path.iterdir()) == [source]
