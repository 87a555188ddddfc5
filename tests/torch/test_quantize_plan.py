"""What a result will take, from headers alone: for the real shape it is the published size."""

# mypy: disable-error-code="import-not-found"

import json
from pathlib import Path

import pytest
from tests.torch.quantizing import CONFIG, REAL, checkpoint, contents, hollow, run, shapes

from falcon_quantize import checks, cli, plan
from falcon_quantize.plan import Settings
from falcon_quantize.source import open_source

GIB = 1 << 30


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Falcon-H1R-7B's headers over numbers that are a hole."""
    directory = tmp_path_factory.mktemp("real") / "source"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": REAL["layers"]}))
    named = list(shapes(REAL).items())
    for number in range(4):
        hollow(directory / f"model-{number}.safetensors", dict(named[number::4]))
    return directory


@pytest.mark.parametrize(("settings", "gib"), [(Settings(), 5.05), (Settings(keep_mamba=True), 6.81)])
def test_the_real_model_has_the_published_size(real: Path, settings: Settings, gib: float) -> None:
    planned = plan.make(open_source(real), settings)
    assert planned.source_bytes / GIB == pytest.approx(14.13, rel=0.01)
    assert planned.weights_bytes / GIB == pytest.approx(gib, rel=0.01)
    assert planned.disk_bytes < 1.01 * planned.weights_bytes
    assert planned.memory_bytes < 8 * GIB  # 24 GiB were promised


def test_the_plan_is_told_without_touching_a_weight(real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([str(real), "--plan"]) == 0
    told = capsys.readouterr().out
    assert "14.13 GiB of weights become 5.04 GiB in" in told
    assert list(real.parent.iterdir()) == [real]


def test_the_plan_is_what_the_run_makes(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    settings = Settings(shard_bytes=20_000)
    planned = plan.make(open_source(source), settings)
    assert run(source, tmp_path / "out", "--shard-size", "20000") == 0
    made = dict(contents(tmp_path / "out"))
    index = json.loads(made["model.safetensors.index.json"])
    assert index["metadata"]["total_size"] == planned.weights_bytes
    assert set(index["weight_map"].values()) == set(planned.shards)
    assert sum(map(len, made.values())) < planned.disk_bytes
    report = json.loads(made["quantization-report.json"])
    assert report["bytes"] | {"source": planned.source_bytes, "result": planned.weights_bytes} == report["bytes"]


def test_a_group_that_shares_a_scale_is_in_one_file(real: Path) -> None:
    for items in plan.make(open_source(real), Settings(shard_bytes=1)).shards.values():
        assert len(items) == 1
        if items[0].quantized:
            assert items[0].tensors[0].name.rpartition(".")[0].endswith(("q_proj", "o_proj", "_proj"))


def test_the_memory_of_the_machine_is_known() -> None:
    available, whose = checks.available_memory()
    assert 1 << 28 < available < 1 << 50
    assert whose in ("the machine", "the container")
