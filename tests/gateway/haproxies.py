"""The versions of HAProxy that the gateway is tried with: this machine's, and a newer one out of Debian's packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from testbed.images import debian
from testbed.lab.layout import layout
from testbed.lab.lock import alone
from testbed.lab.progress import TestbedError

NEWER = "trixie"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Unavailable(Exception):
    """Why a version cannot be had on this machine."""


@dataclass(frozen=True)
class HAProxy:
    """One version: the folder to put first in PATH, and major and minor."""

    folder: Path
    version: tuple[int, int]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}:/usr/sbin"}

    def check(self, config: Path) -> str:
        """Return what `haproxy -c` has against a configuration, warnings included; "" for nothing."""
        done = subprocess.run(
            [self.folder / "haproxy", "-c", "-f", config], capture_output=True, text=True, check=False, timeout=60
        )
        complaints = [line for line in (done.stdout + done.stderr).splitlines() if re.match(r"\[(ALERT|WARN)", line)]
        return "\n".join(complaints or ([] if done.returncode == 0 else [done.stderr]))


def installed() -> HAProxy:
    """Return the one on this machine."""
    found = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        raise Unavailable("haproxy is not installed; testbed/packages installs it.")
    return known(Path(found).parent)


def newer() -> HAProxy:
    """Return the one of a newer Debian, unpacked in the testbed's cache with the libraries that it needs."""
    folder = layout().cache / f"haproxy-{NEWER}"
    with alone(folder.with_suffix(".lock"), "another download of HAProxy"):
        if not (folder / "bin/haproxy").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _unpack(folder)
    return known(folder / "bin")


def known(folder: Path) -> HAProxy:
    said = subprocess.run([folder / "haproxy", "-v"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"version (\d+)\.(\d+)", said)
    if match is None:
        raise Unavailable(f"{folder}/haproxy does not tell its version.")
    return HAProxy(folder, (int(match[1]), int(match[2])))


def _mirror() -> str:
    """Return where this machine has its own Debian from; other releases are there, too."""
    try:
        words = " ".join(file.read_text() for file in debian.sources()).split()
    except TestbedError as problem:
        raise Unavailable(f"Where Debian {NEWER} is to be had is not known: {problem}") from None
    for word in words:
        if re.match(r"https?://", word) and word.rstrip("/").endswith("/debian"):
            return word
    raise Unavailable("No package source of this machine is Debian's main archive.")


def _unpack(folder: Path) -> None:
    if shutil.which("apt-get") is None or not _KEYRING.exists():
        raise Unavailable(f"HAProxy of Debian {NEWER} needs apt-get and {_KEYRING}.")
    state, packages = folder / "state", folder / "packages"
    for part in (state / "lists/partial", packages / "partial", folder / "root", folder / "bin"):
        part.mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_mirror()} {NEWER} main\n")
    options = {
        "Dir::State": state,
        "Dir::State::status": folder / "status",
        "Dir::Cache::archives": packages,
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "APT::Sandbox::User": "",
        "APT::Install-Recommends": "0",
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    for arguments in (["update"], ["install", "-y", "--download-only", "haproxy"]):
        done = subprocess.run([*apt, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"apt-get {arguments[0]} of Debian {NEWER} failed: {done.stderr[-500:]}")
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
    shutil.rmtree(packages)
    shutil.rmtree(state)
    _write_wrapper(folder)


def _write_wrapper(folder: Path) -> None:
    """Start it with its own C library; as argv[0] it gets the wrapper, which is what it starts again on a reload."""
    loader = next((folder / "root").rglob("ld-linux-*.so.*"))
    libraries = next((folder / "root/usr/lib").glob("*-linux-gnu*"))
    wrapper = folder / "bin/haproxy"
    wrapper.write_text(
        f'#!/bin/sh\nexec "{loader}" --argv0 "{wrapper}" --library-path "{libraries}" '
        f'"{folder}/root/usr/sbin/haproxy" "$@"\n'
    )
    wrapper.chmod(0o755)
