"""A repository is downloaded by the Hub's own client from a server that speaks as the Hub does, and quantized."""

# mypy: disable-error-code="import-not-found, import-untyped"

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.torch.hubserver import COMMIT, REPOSITORY, Hub
from tests.torch.quantizing import checkpoint, contents, run


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    server = Hub(checkpoint(tmp_path / "source"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def quantize(tmp_path: Path, hub: Hub | None, *options: str) -> subprocess.CompletedProcess[str]:
    """The command as the Job gives it; without a hub, nobody answers at its address."""
    endpoint = f"http://127.0.0.1:{hub.server_port}" if hub is not None else "http://127.0.0.1:9"
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",  # as the image sets it
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [
        "hub",
        REPOSITORY,
        "--revision",
        COMMIT,
        "--out",
        str(tmp_path / "kept/made"),
        "--device",
        "cpu",
        *options,
    ]
    return subprocess.run(
        [sys.executable, "-m", "falcon_quantize", *command], env=environment, capture_output=True, text=True
    )


def test_a_repository_becomes_what_its_files_become_and_is_not_made_twice(tmp_path: Path, hub: Hub) -> None:
    (hub.directory / "pytorch_model.bin").write_bytes(b"not wanted")
    done = quantize(tmp_path, hub)
    assert done.returncode == 0, done.stderr
    assert not any(path.endswith(".bin") for path in hub.asked)
    (hub.directory / "pytorch_model.bin").unlink()
    assert run(hub.directory, tmp_path / "expected") == 0

    def weights(directory: Path) -> dict[str, bytes]:
        return {name: data for name, data in contents(directory) if name != "quantization-report.json"}

    assert weights(tmp_path / "kept/made") == weights(tmp_path / "expected")
    hub.refuse(500)
    asked = len(hub.asked)
    again = quantize(tmp_path, hub)
    assert (again.returncode, len(hub.asked)) == (0, asked), "whole, so nobody is asked"
    assert "whole already" in again.stdout


@pytest.mark.parametrize(
    ("status", "code", "ends", "says"),
    [
        (401, "RepoNotFound", 2, "or it is private: correct the name, or give a token"),
        (404, "RevisionNotFound", 2, "correct the revision"),
        (403, "GatedRepo", 2, "accept its terms there"),
        (403, "", 2, "refuses tiny/falcon at revision"),
        (503, "", 1, "try again later"),
    ],
)
def test_a_hub_that_refuses(tmp_path: Path, hub: Hub, status: int, code: str, ends: int, says: str) -> None:
    hub.refuse(status, code)
    done = quantize(tmp_path, hub)
    assert (done.returncode, "Traceback" in done.stderr) == (ends, False), done.stderr
    assert says in done.stderr.splitlines()[-1]
    assert not (tmp_path / "kept/made").exists()


def test_a_hub_that_is_away_is_tried_again(tmp_path: Path) -> None:
    done = quantize(tmp_path, None)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "Try again later" in done.stderr.splitlines()[-1]


def test_a_volume_that_is_too_small_is_said_before_the_download(tmp_path: Path, hub: Hub) -> None:
    hub.claimed["model-0.safetensors"] = 1 << 60
    done = quantize(tmp_path, hub)
    assert done.returncode == 2
    assert "enlarge the volume" in done.stderr.splitlines()[-1]
    assert not any("/resolve/" in path for path in hub.asked)


def test_a_repository_without_safetensors(tmp_path: Path, hub: Hub) -> None:
    for file in hub.directory.glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    done = quantize(tmp_path, hub)
    assert done.returncode == 2
    assert "has no safetensors files" in done.stderr.splitlines()[-1]


def test_what_is_no_falcon_is_refused_after_the_download(tmp_path: Path, hub: Hub) -> None:
    (hub.directory / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    done = quantize(tmp_path, hub)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
