"""The node's control groups: a place of its own below the caller's (v1) or below the root (v2)."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from .progress import TestbedError

ROOT = Path("/sys/fs/cgroup")
# memory comes first: it is refused (EBUSY) as long as the group holds processes. The kernel would let cpuset through,
# and that makes the group a threaded one, which takes memory no more (EOPNOTSUPP).
WANTED = ("memory", "cpuset", "cpu", "io", "hugetlb", "pids")
REQUIRED = {"cpuset", "cpu", "memory", "pids"}
LEAF = "node"


def v1_folders(proc_self_cgroup: str, name: str, root: Path = ROOT) -> list[Path]:
    """Return the node's folder in each mounted v1 hierarchy, from the text of /proc/self/cgroup."""
    folders = []
    for line in proc_self_cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        mount = root / controllers.removeprefix("name=")
        if controllers and mount.is_dir():
            folders.append(mount / path.strip("/") / name)
    return folders


def to_enable(available: str, enabled: str) -> list[str]:
    """Return the controllers to switch on for children, from cgroup.controllers and cgroup.subtree_control."""
    return [wanted for wanted in WANTED if wanted in available.split() and wanted not in enabled.split()]


def _move_all(source: Path, target: Path) -> None:
    """Move every process of one v2 group; those that fork meanwhile need another round."""
    for _ in range(50):
        pids = (source / "cgroup.procs").read_text().split()
        moved = 0
        for pid in pids:
            try:
                (target / "cgroup.procs").write_text(pid)
                moved += 1
            except OSError:  # gone, or a kernel thread, which stays in the root
                continue
        if not moved:
            return


def _enable(folder: Path) -> list[str]:
    """Switch controllers on for the group's children; return those that were off."""
    wanted = to_enable((folder / "cgroup.controllers").read_text(), (folder / "cgroup.subtree_control").read_text())
    switched = []
    for controller in wanted:
        try:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
            switched.append(controller)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise
            if controller in REQUIRED:
                raise TestbedError(f"The controller {controller} cannot be enabled in {folder}: {error}.") from error
    return switched


def _remove_tree(folder: Path) -> bool:
    """Remove a group and those below it; say whether it is gone. Processes that just ended hold it a moment."""
    for _ in range(40):
        if not folder.is_dir():
            return True
        for path, _, _ in os.walk(folder, topdown=False):
            try:
                os.rmdir(path)
            except OSError:
                continue
        time.sleep(0.05)
    return not folder.is_dir()


class Cgroups:
    """Makes, joins and removes the node's groups; `record` remembers them between commands."""

    def __init__(self, name: str, record: Path, root: Path = ROOT) -> None:
        self._name = name
        self._record = record
        self._moved = record.with_name("cgroups-moved")
        self._root = root
        self._v2 = (root / "cgroup.controllers").exists()

    @property
    def folders(self) -> list[Path]:
        """The node's groups, one in each hierarchy."""
        try:
            return [Path(line) for line in self._record.read_text().splitlines()]
        except FileNotFoundError:
            return []

    def create(self) -> None:
        """Make the groups anew."""
        self.remove()
        if self._v2:
            self._open_root()
            folders = [self._root / self._name]
        else:
            folders = v1_folders(Path("/proc/self/cgroup").read_text(), self._name, self._root)
        self._record.write_text("".join(f"{folder}\n" for folder in folders))
        for folder in folders:
            folder.mkdir(exist_ok=True)
            if (folder / "cgroup.clone_children").exists() and (folder / "cpuset.cpus").exists():
                for file in ("cpuset.cpus", "cpuset.mems"):  # a new v1 cpuset is empty and takes no process
                    (folder / file).write_text((folder.parent / file).read_text())
                (folder / "cgroup.clone_children").write_text("1")

    def _open_root(self) -> None:
        """Give the root's children their controllers.

        The real root may hold processes while it does; the root of a container's cgroup namespace may not, so
        its processes move one level down until `remove`.
        """
        unavailable = REQUIRED - set((self._root / "cgroup.controllers").read_text().split())
        if unavailable:
            raise TestbedError(f"{self._root} does not offer the controllers {', '.join(sorted(unavailable))}.")
        try:
            switched = _enable(self._root)
        except OSError:
            aside = self._root / f"{self._name}-aside"
            aside.mkdir(exist_ok=True)
            _move_all(self._root, aside)
            switched = _enable(self._root)
            self._moved.write_text(f"{aside}\n{' '.join(switched)}\n")

    def join_as_root(self) -> None:
        """Move this process into the groups themselves: a cgroup namespace made now has them as its root."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text("0")

    def join(self) -> None:
        """Move this process to where the node's own processes belong."""
        for folder in self.folders:
            ((folder / LEAF if self._v2 else folder) / "cgroup.procs").write_text("0")

    def settle(self) -> None:
        """On v2, empty the group that is the namespace's root: only then may its children have controllers."""
        if not self._v2:
            return
        for folder in self.folders:
            (folder / LEAF).mkdir(exist_ok=True)
            _move_all(folder, folder / LEAF)
            _enable(folder)

    def processes(self) -> set[int]:
        """Return the ids of all processes in the groups."""
        found: set[int] = set()
        for folder in self.folders:
            for path, _, _ in os.walk(folder):
                try:
                    found.update(int(pid) for pid in (Path(path) / "cgroup.procs").read_text().split())
                except OSError:
                    continue
        return found

    def remove(self) -> list[Path]:
        """Remove the groups; return those that would not go."""
        left = [folder for folder in self.folders if not _remove_tree(folder)]
        if self._moved.exists():
            aside, controllers = self._moved.read_text().splitlines()
            for controller in controllers.split():
                (self._root / "cgroup.subtree_control").write_text(f"-{controller}")
            _move_all(Path(aside), self._root)
            left += [] if _remove_tree(Path(aside)) else [Path(aside)]
            self._moved.unlink()
        if not left:
            self._record.unlink(missing_ok=True)
        return left
