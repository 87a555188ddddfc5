"""The Debian that local images stand on: the release of this machine, from its own package sources."""

from __future__ import annotations

import subprocess
from pathlib import Path

from testbed.lab.progress import TestbedError

# python3-venv and binutils are for building images, the libraries for vLLM.
PACKAGES = ("binutils", "ca-certificates", "libgomp1", "libnuma1", "python3", "python3-venv")
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_APT = Path("/etc/apt")


def release() -> str:
    """Return this machine's Debian release by its name."""
    facts = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    name = facts.get("VERSION_CODENAME", "").strip('"')
    if facts.get("ID", "").strip('"') != "debian" or not name:
        raise TestbedError("Local images are built on Debian only: /etc/os-release names another system.")
    return name


def sources() -> list[Path]:
    """Return the files of apt's sources that hold the release itself, not other vendors' packages."""
    found = [
        file
        for file in [_APT / "sources.list", *sorted((_APT / "sources.list.d").glob("*"))]
        if file.suffix in (".list", ".sources") and file.is_file() and release() in _words(file)
    ]
    if not found:
        raise TestbedError(f"No file below {_APT} has package sources of Debian {release()}.")
    return found


def _words(file: Path) -> list[str]:
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    return " ".join(lines).split()


def identity() -> str:
    """Return what distinguishes one Debian base from another."""
    return "\0".join([release(), *PACKAGES, *(file.read_text() for file in sources())])


def make_rootfs(folder: Path) -> None:
    """Write rootfs.tar into the folder, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    rootfs, fresh = folder / "rootfs.tar", folder / "new.tar"
    if rootfs.exists():
        return
    options = ["--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", '--aptopt=Acquire::Languages "none"']
    options += [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
    options += ["--dpkgopt=force-unsafe-io"]  # a power cut may cost the unfinished tree, not more
    command = ["mmdebstrap", *options, release(), str(fresh), *map(str, sources())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TestbedError(f"mmdebstrap failed:\n{(done.stdout + done.stderr)[-3000:]}")
    fresh.rename(rootfs)
