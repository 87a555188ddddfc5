"""A repository is downloaded by the Hub's own client from a server that speaks as the Hub does, and quantized."""

# mypy: disable-error-code="import-not-found, import-untyped"

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.torch.quantizing import checkpoint, contents, run

REPOSITORY, COMMIT = "tiny/falcon", "a" * 40


class Hub(ThreadingHTTPServer):
    """One repository at one commit."""

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.directory, self.status, self.headers, self.asked = directory, 200, {}, []  # type: ignore[var-annotated]
        self.claimed: dict[str, int] = {}  # sizes that are said to be others than they are
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.directory.iterdir())}

    def refuse(self, status: int, code: str = "") -> None:
        self.status, self.headers = status, {"X-Error-Code": code} if code else {}


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        if self.server.status != 200:
            self._answer(self.server.status, b"{}", self.server.headers)
        elif path == f"/api/models/{REPOSITORY}/revision/{COMMIT}":
            siblings = [
                {"rfilename": name, "size": self.server.claimed.get(name, len(data)), "blobId": _sum(data)}
                for name, data in self.server.files.items()
            ]
            body = {"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "siblings": siblings, "tags": []}
            self._answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        elif path.startswith(f"/api/models/{REPOSITORY}/tree/{COMMIT}"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": _sum(data)}
                for name, data in self.server.files.items()
            ]
            self._answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        elif (name := path.removeprefix(f"/{REPOSITORY}/resolve/{COMMIT}/")) in self.server.files:
            data = self.server.files[name]
            self._answer(200, data, {"ETag": f'"{_sum(data)}"', "X-Repo-Commit": COMMIT})
        else:
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _sum(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    server = Hub(checkpoint(tmp_path / "source"))
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
