"""The repair: links that appear whole or not at all, the same each time, and the launcher's use of them."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.engine import checkpoints
from tests.engine.checkpoints import beside, exported, tensors
from tests.engine.launching import Container

from falcon_engine import checkpoint, profiles, repair, safetensors
from falcon_engine.checkpoint import Checkpoint
from falcon_engine.finding import Finding
from falcon_engine.findings import Loader, check
from falcon_engine.intent import Source
from falcon_engine.repair import MARKER, RepairError, prepare
from falcon_engine.safetensors import Files
from falcon_engine.signatures import Diagnosis, Refusal

PROFILE = profiles.load("0.33")
STOCK = Loader.of("stock", PROFILE)
CARD = {"quant_method": "nvfp4", "format": "nvfp4", "quant_algo": "NVFP4", "ignore": ["lm_head"]}


def seen(directory: Path) -> tuple[Files, tuple[Finding, ...]]:
    files = safetensors.read(directory)
    return files, check(files, PROFILE, STOCK)


def mend(source: Path, out: Path) -> bool:
    files, found = seen(source)
    return repair.overlay(files, repair.plan(files, found, PROFILE, STOCK), found, out)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A checkpoint as the model card tells of it."""
    return checkpoints.write(tmp_path / "card", tensors(), CARD, beside(kv_cache_quant_algo="INT8"), shards=3)


def contents(directory: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(directory.iterdir())}


def test_the_overlay_is_links_and_new_metadata(card: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = contents(card)
    assert mend(card, out)
    links = {f.name for f in out.iterdir() if f.is_symlink()}
    assert {f.name for f in out.iterdir()} - links == {"config.json", "hf_quant_config.json", MARKER}
    assert links == {f.name for f in card.iterdir()} - {"config.json", "hf_quant_config.json"}
    assert all(os.readlink(out / name) == str(card / name) for name in links)
    assert contents(card) == before
    new, old = json.loads((out / "config.json").read_text()), json.loads((card / "config.json").read_text())
    assert {k: v for k, v in new.items() if k != "quantization_config"} == {
        k: v for k, v in old.items() if k != "quantization_config"
    }
    assert new["quantization_config"]["quant_algo"] == "W4A16_NVFP4"
    assert new["quantization_config"]["kv_cache_scheme"] == checkpoints.FP8_KV
    quantized = json.loads((out / "hf_quant_config.json").read_text())["quantization"]
    assert (quantized["quant_algo"], quantized["kv_cache_quant_algo"]) == ("W4A16_NVFP4", "FP8")
    marker = json.loads((out / MARKER).read_text())
    assert marker["source"] == str(card)
    assert any("nvfp4" in sentence for sentence in marker["repaired"])
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_it_is_the_same_each_time(card: Path, tmp_path: Path) -> None:
    once, again, twice = tmp_path / "once", tmp_path / "again", tmp_path / "twice"
    assert mend(card, once)
    first = contents(once)
    assert not mend(card, once)
    assert mend(card, again)
    assert contents(again) == first
    assert seen(once)[1] == ()
    assert mend(once, twice)
    without = {name: data for name, data in first.items() if name != MARKER}
    assert {name: data for name, data in contents(twice).items() if name != MARKER} == without
    assert os.readlink(twice / "tokenizer.json") == str(card / "tokenizer.json")
    assert os.readlink(twice / "config.json") == str(once / "config.json")


def test_an_overlay_of_another_source_is_replaced(card: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mend(card, out)
    other = checkpoints.write(tmp_path / "other", tensors(("mlp",)), CARD)
    assert mend(other, out)
    assert os.readlink(out / "model.safetensors") == str(other / "model.safetensors")
    assert {f.name for f in out.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json", MARKER}


def test_a_source_of_links(card: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in card.iterdir():
        (snapshot / file.name).symlink_to(os.path.relpath(file, snapshot))
    mend(snapshot, tmp_path / "out")
    assert os.readlink(tmp_path / "out" / "tokenizer.json") == str(card / "tokenizer.json")


@pytest.mark.parametrize("where", ["", "below", "below/../deeper"])
def test_never_in_place(card: Path, where: str) -> None:
    before = contents(card)
    with pytest.raises(RepairError, match="is in the checkpoint itself, which stays as it is"):
        mend(card, card / where)
    assert contents(card) == before


def test_what_is_there_stays(card: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(RepairError, match="is there already and was not made by a repair"):
        mend(card, out)
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(RepairError, match="is there already and was not made by a repair"):
        mend(card, tmp_path / "link")
    with pytest.raises(RepairError, match="There is no directory"):
        mend(card, tmp_path / "no" / "out")
    assert [f.name for f in out.iterdir()] == ["mine"]
    (out / "mine").unlink()
    assert mend(card, out)


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "DiskFull"), (errno.EROFS, "ReadOnlyFilesystem"), (errno.EIO, None)]
)
def test_what_cannot_be_written_leaves_nothing(
    card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str | None
) -> None:
    out = tmp_path / "out"
    mend(card, out)
    before = contents(out)
    other = checkpoints.write(tmp_path / "other", tensors(("mlp",)), CARD)

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RepairError, match=f"cannot be written .*{os.strerror(number)}") as refused:
        mend(other, out)
    assert refused.value.reason == (reason or "CheckpointUnusable")
    assert contents(out) == before
    assert sorted(os.listdir(tmp_path)) == ["card", "other", "out"]


@pytest.mark.parametrize("name", ["config.json", "model-00002-of-00003.safetensors", "hf_quant_config.json"])
def test_a_source_that_changes_meanwhile(card: Path, tmp_path: Path, name: str) -> None:
    files, found = seen(card)
    with (card / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(RepairError, match=f"{name} changed while it was read"):
        repair.overlay(files, repair.plan(files, found, PROFILE, STOCK), found, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["card"]


def test_an_index_that_names_the_wrong_file(card: Path, tmp_path: Path) -> None:
    file = card / safetensors.INDEX
    index = json.loads(file.read_text())
    names = sorted(set(index["weight_map"].values()))
    moved = next(name for name, shard in index["weight_map"].items() if shard == names[0])
    index["weight_map"][moved] = names[1]
    file.write_text(json.dumps(index))
    found = seen(card)[1]
    assert [f.sentence for f in found if f.code == "index"] == [
        f"It says that {moved} is in {names[1]}, where it is not."
    ]
    mend(card, tmp_path / "out")
    assert json.loads((tmp_path / "out" / safetensors.INDEX).read_text())["weight_map"][moved] == names[0]
    assert seen(tmp_path / "out")[1] == ()


# What the launcher makes of it.


def prepared(directory: Path, mode: str, tmp_path: Path, loader: Loader = STOCK) -> tuple[Checkpoint, list[str]]:
    said: list[str] = []
    found = Checkpoint(str(directory), nvfp4=True)
    scratch = tmp_path / "home" / ".falcon"
    return prepare(found, mode, PROFILE, loader=loader, scratch=scratch, log=said.append), said


def refusal(directory: Path, mode: str, tmp_path: Path) -> Diagnosis:
    with pytest.raises(Refusal) as refused:
        prepared(directory, mode, tmp_path)
    return refused.value.diagnosis


def test_repair_gives_the_engine_an_overlay(card: Path, tmp_path: Path) -> None:
    given, said = prepared(card, "Repair", tmp_path)
    assert given.path == str(tmp_path / "home" / ".falcon" / "checkpoint")
    assert (given.source, given.nvfp4) == (str(card), True)
    assert "config-method" in given.repaired
    assert sum(line.startswith("repairing: config.json: It has quant_method nvfp4") for line in said) == 1
    assert prepared(card, "Repair", tmp_path)[0] == given


def test_check_refuses_and_names_the_way_out(card: Path, tmp_path: Path) -> None:
    diagnosis = refusal(card, "Check", tmp_path)
    assert (diagnosis.reason, diagnosis.exit_code) == ("QuantizationRefused", 2)
    assert diagnosis.message.startswith(f"vLLM 0.33.0 would not load {card}: config.json: It has quant_method nvfp4")
    assert "spec.model.checkpoint to Repair" in diagnosis.hint
    assert not (tmp_path / "home").exists()


def test_as_is_says_it_and_changes_nothing(card: Path, tmp_path: Path) -> None:
    given, said = prepared(card, "AsIs", tmp_path)
    assert given == Checkpoint(str(card), nvfp4=True)
    assert any(line.startswith("warning: config.json: It has quant_method nvfp4") for line in said)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("mode", ["Repair", "Check", "AsIs"])
def test_what_is_right_stays_where_it_is(mode: str, tmp_path: Path) -> None:
    right = checkpoints.write(tmp_path / "m", tensors(), exported(), beside())
    assert prepared(right, mode, tmp_path) == (Checkpoint(str(right), nvfp4=True), [])


@pytest.mark.parametrize("mode", ["Repair", "Check", "AsIs"])
def test_a_patched_image_has_the_checkpoint_that_it_was_made_for(mode: str, card: Path, tmp_path: Path) -> None:
    patched = Loader.of("patched", PROFILE)
    assert prepared(card, mode, tmp_path, patched) == (Checkpoint(str(card), nvfp4=True), [])


def test_another_model_is_the_engines_affair(tmp_path: Path) -> None:
    other = checkpoints.write(tmp_path / "m", tensors(), CARD, architectures=["LlamaForCausalLM"])
    assert prepared(other, "Check", tmp_path) == (Checkpoint(str(other), nvfp4=True), [])


def test_what_cannot_be_repaired_is_refused_in_both_modes(tmp_path: Path) -> None:
    content = {**tensors(), "lm_head.weight": ("U8", (checkpoints.VOCABULARY, checkpoints.HIDDEN // 2))}
    source = checkpoints.write(tmp_path / "m", content, CARD)
    for mode in ("Repair", "Check"):
        diagnosis = refusal(source, mode, tmp_path)
        assert (diagnosis.reason, diagnosis.exit_code) == ("WeightsMismatch", 2)
        assert "lm_head.weight is quantized (FP4)" in diagnosis.message
        assert "falcon-quantize" in diagnosis.hint


def test_a_scratch_that_cannot_be_written(card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("a file")
    diagnosis = refusal(card, "Repair", tmp_path)
    assert diagnosis.exit_code == 1
    assert "cannot be repaired" in diagnosis.message
    assert "writable HOME" in diagnosis.hint


def test_weights_that_are_not_announced_need_no_flag(tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "m", tensors((), kv=False), exported())
    given, _ = prepared(source, "Repair", tmp_path)
    assert not given.nvfp4
    assert "quantization_config" not in json.loads(Path(given.path, "config.json").read_text())


def container_with_card(tmp_path: Path) -> tuple[Container, Path]:
    container = Container(tmp_path)
    container.environment["HOME"] = str(tmp_path / "home")
    card = checkpoints.write(tmp_path / "card", tensors(), CARD)
    return container, card


def test_the_launcher_repairs_and_reports_it(tmp_path: Path) -> None:
    container, card = container_with_card(tmp_path)
    with container.running(source=Source("baked", str(card))):
        container.wait_until_started()
        report = container.report()["checkpoint"]
        again = container.engine_argv()[1]
    overlay = str(tmp_path / "home" / ".falcon" / "checkpoint")
    assert again == overlay
    assert report == {"path": overlay, "nvfp4": True, "source": str(card), "repaired": report["repaired"]}
    assert "config-method" in report["repaired"]
    assert "falcon: repairing: config.json: It has quant_method nvfp4" in container.log


@pytest.mark.parametrize(("mode", "status"), [("Check", 2), ("AsIs", None)])
def test_the_launcher_in_the_other_modes(tmp_path: Path, mode: str, status: int | None) -> None:
    container, card = container_with_card(tmp_path)
    changes: dict[str, Any] = {"source": Source("baked", str(card)), "checkpoint": mode}
    if status is not None:
        assert container.run(**changes) == status
        assert container.diagnosis().reason == "QuantizationRefused"
        return
    with container.running(**changes):
        container.wait_until_started()
        assert container.engine_argv()[1] == str(card)
    assert "falcon: warning: config.json: It has quant_method nvfp4" in container.log


@pytest.mark.parametrize("whole", [True, False])
def test_a_model_of_the_hub_is_repaired_once_it_is_in_the_cache(tmp_path: Path, whole: bool) -> None:
    container, _ = container_with_card(tmp_path)
    snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / REVISION
    card = checkpoints.write(snapshot, tensors(), CARD, shards=2)
    if not whole:
        (card / "model-00002-of-00002.safetensors").unlink()
    container.environment["HF_HOME"] = str(tmp_path)
    with container.running(source=Source("huggingFace", None, "owner/name", REVISION)):
        container.wait_until_started()
        served, report = container.engine_argv()[1], container.report()["checkpoint"]
    overlay = str(tmp_path / "home" / ".falcon" / "checkpoint")
    assert served == report["path"] == (overlay if whole else "owner/name")
    assert ("it is not whole in the cache yet" in container.log) is not whole


REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("whole", [True, False])
def test_a_snapshot_in_the_cache_is_looked_at(tmp_path: Path, whole: bool) -> None:
    hub = tmp_path / "hub" / "models--owner--name"
    card = checkpoints.write(hub / "snapshots" / REVISION, tensors(), CARD, shards=2)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(REVISION)
    if not whole:
        (card / "model-00002-of-00002.safetensors").unlink()
    for revision in (REVISION, "main"):
        found = checkpoint.cached("owner/name", revision, {"HF_HOME": str(tmp_path)})
        assert (found and found.path) == (str(card) if whole else None)
    assert checkpoint.cached("owner/other", "main", {"HF_HUB_CACHE": str(tmp_path / "hub")}) is None
