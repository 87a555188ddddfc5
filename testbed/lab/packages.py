"""The Debian packages that the testbed and its image builders need."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .progress import TestbedError, step

# package: a file or command that shows it is there (None: ask dpkg)
PACKAGES: dict[str, str | None] = {
    "binutils": "ld",
    "buildah": "buildah",
    "busybox-static": None,
    "ca-certificates": "/etc/ssl/certs/ca-certificates.crt",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "containernetworking-plugins": None,
    "gcc": "gcc",
    "git": "git",
    "haproxy": "/usr/sbin/haproxy",
    "iproute2": "ip",
    "iptables": "iptables",
    "libc6-dev": "/usr/include/stdio.h",
    "make": "make",
    "mmdebstrap": "mmdebstrap",
    "nftables": "nft",
    "openssl": "openssl",
    "procps": "ps",
    "runc": "runc",
    "strace": "strace",
    "util-linux": "nsenter",
}


def _is_there(package: str, proof: str | None) -> bool:
    if proof is None:
        query = subprocess.run(
            ["dpkg-query", "-W", "-f=${db:Status-Status}", package], capture_output=True, text=True, check=False
        )
        return query.stdout == "installed"
    return Path(proof).exists() if proof.startswith("/") else shutil.which(proof) is not None


def missing(extra: dict[str, str | None] | None = None) -> list[str]:
    """Return the packages that are not installed."""
    return [package for package, proof in (PACKAGES | (extra or {})).items() if not _is_there(package, proof)]


def install(extra: dict[str, str | None] | None = None) -> None:
    """Install what is missing with apt-get; do nothing when nothing is."""
    wanted = missing(extra)
    if not wanted:
        return
    if shutil.which("apt-get") is None:
        raise TestbedError(f"apt-get is not here and these Debian packages are missing: {' '.join(wanted)}.")
    if os.geteuid() != 0:
        raise TestbedError(f"Only root can install the missing Debian packages: {' '.join(wanted)}.")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with step(f"apt-get install {' '.join(wanted)}", announce=True):
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", *wanted]):
            done = subprocess.run(
                ["apt-get", "-q", *arguments], env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise TestbedError(f"apt-get {arguments[0]} failed:\n{(done.stdout + done.stderr)[-3000:]}")
