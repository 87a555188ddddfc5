"""The launcher and the expansion of weights, which a stand-in for torch's part makes as it is told."""

import json
import os
import shutil
import signal
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine import checkpoints
from tests.engine.launching import Container, wait_for

from falcon_engine import expanded, tensors

# What stands for falcon_weights.expand, where there is no torch: a whole expansion, or the failure in `fails`.
STANDIN = """
import json, os, pathlib, signal, sys
from falcon_engine import expanded, tensors
here = pathlib.Path(os.environ["STANDIN_DIR"])
source, out = map(pathlib.Path, sys.argv[1:3])
(here / "expanded.json").write_text(json.dumps(sys.argv[1:]))
if (here / "hangs").exists():
    def stop(*_):
        (here / "stopped").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, stop)
    (here / "hanging").touch()
    signal.alarm(60)
    signal.pause()
if (here / "fails").exists():
    sentence, code = json.loads((here / "fails").read_text())
    print(f"falcon: {sentence}", file=sys.stderr)
    sys.exit(code)
out.mkdir(parents=True)
for name in ("config.json", "model.safetensors"):
    (out / name).write_bytes((source / name).read_bytes())
config = json.loads((source / "config.json").read_text())
del config["quantization_config"]
(out / "config.json").write_text(json.dumps(config))
(out / tensors.REPORT).write_text(json.dumps({"loss": {"q_proj": {"relativeFrobenius": 0.0017}}}))
manifest = {"schema": expanded.SCHEMA, "format": sys.argv[4], "fingerprint": tensors.fingerprint(out),
            "source": {"fingerprint": tensors.fingerprint(source), "stamps": tensors.stamps(source), "sha256": {}}}
expanded.write(out / tensors.MANIFEST, manifest)
"""


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    container = Container(tmp_path)
    # PYTHONPATH has the launcher's archive first: only there a stand-in comes before the real one.
    kept = [(i, d) for i, d in archive_members(container.launcher) if i.filename != "falcon_weights/expand.py"]
    with zipfile.ZipFile(container.launcher, "w") as archive:
        for info, data in kept:
            archive.writestr(info, data)
        archive.writestr("falcon_weights/expand.py", STANDIN)
    # A small model, for which there is room.
    shutil.rmtree(container.model)
    checkpoints.write(container.model, checkpoints.tensors(), checkpoints.exported(), max_position_embeddings=65536)
    with tempfile.TemporaryDirectory(dir=roomy(tmp_path)) as cache:
        container.environment["FALCON_CACHE_DIR"] = cache
        yield container


def roomy(*directories: Path) -> Path:
    """A directory on a volume that is not nearly full: on one that is, `Auto` expands nothing."""
    found = [d for d in (*directories, Path("/dev/shm")) if shutil.disk_usage(d).free > shutil.disk_usage(d).total / 5]
    if not found:
        pytest.skip("no volume here has a fifth of it free")
    return found[0]


def archive_members(file: Path) -> list[tuple[zipfile.ZipInfo, bytes]]:
    with zipfile.ZipFile(file) as archive:
        return [(info, archive.read(info)) for info in archive.infolist()]


def place(container: Container, form: str = "bf16") -> Path:
    return expanded.place(Path(container.environment["FALCON_CACHE_DIR"]), tensors.fingerprint(container.model), form)


def start_and_stop(container: Container, **changes: Any) -> dict[str, Any]:
    with container.running(**changes) as launcher:
        container.wait_until_started()
        found = container.report()
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0
    return found


def test_a_format_that_is_asked_for_is_expanded_once_and_served(container: Container) -> None:
    out = place(container)
    first = start_and_stop(container, compute_format="BF16")
    assert container.engine_argv()[:2] == ["serve", str(out)]
    assert json.loads((container.directory / "expanded.json").read_text()) == [
        str(container.model), str(out), "--format", "bf16", "--device", "cpu"]  # fmt: skip
    computed = first["computeFormat"]
    assert computed["format"] == "BF16"
    assert computed["why"] == "engine.computeFormat says BF16. The largest relative error against NVFP4 is 0.0017."
    assert computed["seconds"] > 0
    assert first["checkpoint"] == {"path": str(out), "nvfp4": False}
    (container.directory / "expanded.json").unlink()
    again = start_and_stop(container, compute_format="BF16")
    assert not (container.directory / "expanded.json").exists()
    assert again["computeFormat"] == {**computed, "seconds": 0.0}
    assert "from an earlier start" in container.log


def test_auto_leaves_a_cpu_alone_and_another_checkpoint_too(container: Container) -> None:
    found = start_and_stop(container)
    assert container.engine_argv()[:2] == ["serve", str(container.model)]
    computed = found["computeFormat"]
    assert (computed["format"], computed["seconds"]) == ("NVFP4", None)
    shutil.rmtree(container.model)
    checkpoints.write(container.model, checkpoints.tensors(()))
    found = start_and_stop(container, compute_format="BF16")
    assert found["computeFormat"] is None
    assert "computeFormat BF16 has no effect: the checkpoint is not NVFP4" in container.log
    assert not (container.directory / "expanded.json").exists()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1, "CheckpointUnusable"), (3, "DiskFull"), (4, "PermissionDenied"), (-9, "CheckpointUnusable")],
)
def test_a_format_that_is_asked_for_and_fails_is_refused(container: Container, code: int, reason: str) -> None:
    (container.directory / "fails").write_text(json.dumps(["There is no room.", code & 0xFF]))
    assert container.run(compute_format="BF16") == 2
    found = container.diagnosis()
    assert (found.reason, found.exit_code) == (reason, 2)
    assert "There is no room." in found.message
    assert "spec.engine.computeFormat" in found.hint


def test_a_stop_while_weights_are_expanded_ends_both(container: Container) -> None:
    (container.directory / "hangs").touch()
    with container.running(compute_format="BF16") as launcher:
        wait_for(lambda: (container.directory / "hanging").exists(), "the expansion begins")
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(30) == 0
    assert (container.directory / "stopped").exists()
    assert "stopped as asked, before the engine was started" in container.log
    assert not container.termination.exists()
    assert not (container.directory / "argv.json").exists()


GPU = "NVIDIA H200, 143771, 9.0, 580.159.04"


def with_gpu(container: Container, line: str) -> None:
    tools = container.directory / "bin"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(f"#!/bin/sh\necho '{line}'\n")
    (tools / "nvidia-smi").chmod(0o755)
    container.environment["PATH"] = f"{tools}{os.pathsep}{container.environment['PATH']}"


def test_auto_expands_on_a_gpu_where_another_format_is_faster(container: Container) -> None:
    with_gpu(container, GPU)
    found = start_and_stop(container, device="cuda", compute_format="Auto")
    computed = found["computeFormat"]
    form = computed["format"]
    assert form in ("FP8", "BF16")
    assert f"{form} was " in computed["why"]
    assert json.loads((container.directory / "expanded.json").read_text())[2:] == ["--format", form.lower()]
    assert container.engine_argv()[:2] == ["serve", str(place(container, form.lower()))]


def test_auto_falls_back_with_a_warning(container: Container) -> None:
    with_gpu(container, GPU)
    (container.directory / "fails").write_text(json.dumps(["The disk broke.", 1]))
    found = start_and_stop(container, device="cuda", compute_format="Auto")
    assert container.engine_argv()[:2] == ["serve", str(container.model)]
    computed = found["computeFormat"]
    assert computed["format"] == "NVFP4"
    assert "The disk broke." in computed["why"]
    assert "warning: The expansion of the weights to" in container.log


def test_a_gpu_with_fp4_keeps_it(container: Container) -> None:
    with_gpu(container, "NVIDIA B200, 183359, 10.0, 580.95.05")
    found = start_and_stop(container, device="cuda", compute_format="Auto")
    computed = found["computeFormat"]
    assert computed["format"] == "NVFP4"
    assert not (container.directory / "expanded.json").exists()
