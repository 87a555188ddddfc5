"""The testbed's own images, and the import of any OCI archive into the node."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .layout import Layout, layout
from .node import Node
from .oci import write_archive
from .progress import TestbedError, step

# applets of busybox in the image for tests and for `kubectl debug`
_APPLETS = ("cat", "echo", "env", "grep", "id", "ip", "ls", "nc", "nslookup", "ping", "ps", "sh", "sleep", "wget")
TOOLS_IMAGE = "localhost/falcon-testbed/tools:1"
_BUSYBOX = Path("/bin/busybox")


@dataclass(frozen=True)
class SystemImage:
    """An image of one of the testbed's binaries."""

    name: str
    binary: str
    user: str = "65532:65532"

    def reference(self, layout: Layout) -> str:
        """Return the image's name, tagged with the binary's content: a new build is a new image."""
        return f"localhost/falcon-testbed/{self.name}:{self._digest(layout)}"

    def _digest(self, layout: Layout) -> str:
        return (layout.bin / self.binary).resolve().parent.name[:12]

    def archive(self, layout: Layout) -> Path:
        """Return the image's archive, writing it if it is not there."""
        path = layout.cache / "system-images" / f"{self.name}-{self._digest(layout)}.tar"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            files = {self.binary: layout.bin / self.binary}
            write_archive(path, self.reference(layout), files, entrypoint=[f"/{self.binary}"], user=self.user)
        return path


PAUSE = SystemImage("pause", "labtool", user="65535:65535")
COREDNS = SystemImage("coredns", "coredns", user="")
GPU_PLUGIN = SystemImage("gpu-plugin", "gpuplugin", user="")
METRICS_SERVER = SystemImage("metrics-server", "metrics-server")


def tools_archive(layout: Layout) -> Path:
    """Return the archive of the image with labtool and busybox; its tag moves, as people type it."""
    labtool = (layout.bin / "labtool").resolve()
    path = layout.cache / "system-images" / f"tools-{labtool.parent.name[:12]}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        files = {"bin/labtool": labtool, "bin/busybox": _BUSYBOX}
        links = {f"bin/{applet}": "busybox" for applet in _APPLETS}
        write_archive(path, TOOLS_IMAGE, files, command=["/bin/labtool", "serve"], links=links)
    return path


def mark_used(path: Path) -> None:
    """Note in the archive's access time that it is in use; its modification time is what it is known by."""
    with suppress(OSError):  # an archive may lie where nothing can be written
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def newest(archives: Iterable[Path]) -> list[Path]:
    """Return the newest archive of each image, in the order in which they were built.

    Archives are called NAME-HASH.tar; older ones stay a while for a testbed of another checkout. An image whose
    archive leaves out the layers of another was built after it.
    """
    by_time = sorted(archives, key=lambda path: path.stat().st_mtime)
    last = {path.stem.rpartition("-")[0] or path.stem: path for path in by_time}
    return [path for path in by_time if path in last.values()]


def identity(archive: Path) -> str:
    """Return what tells this very archive from others: its path, size and time, hashed."""
    facts = archive.stat()
    return hashlib.sha256(f"{archive.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}".encode()).hexdigest()[:32]


def _marker(layout: Layout, archive: Path) -> Path:
    """Return the file that says this very archive was imported into this store."""
    return layout.containerd / "imported" / identity(archive)


def import_archive(path: Path, place: Layout | None = None) -> bool:
    """Import an OCI archive, known by its path, time and size, into the running node; say whether it had to be."""
    where = place or layout()
    if not path.is_file():
        raise TestbedError(f"There is no image archive {path}.")
    mark_used(path)
    marker = _marker(where, path)
    if marker.exists():
        return False
    with step(f"importing {path.name} ({path.stat().st_size / 1e6:.0f} MB)"), path.open("rb") as archive:
        # through a pipe: the archive may lie where the node sees its own folders
        Node(where).inside("ctr", "-n", "k8s.io", "images", "import", "-", stdin=archive)
    marker.parent.mkdir(exist_ok=True)
    marker.touch()
    return True
