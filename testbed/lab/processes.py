"""Processes known by id and start time, so that a reused id is never taken for one of ours."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command's name: state first, start time at 19."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def all_pids() -> Iterator[int]:
    """Yield the id of every process."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            yield int(entry)


def namespace(pid: int, kind: str) -> str | None:
    """Return a process's namespace (`net:[4026531840]`), or None where the process is gone or dead."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def ancestors() -> set[int]:
    """Return the ids of this process and of those it descends from."""
    found, pid = set(), os.getpid()
    while pid > 0 and (fields := _stat(pid)):
        found.add(pid)
        pid = int(fields[1])
    return found


@dataclass(frozen=True)
class Process:
    """One process."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the process that has this id now."""
        fields = _stat(pid)
        return cls(pid, fields[19]) if fields else None

    @classmethod
    def read(cls, path: Path) -> Process | None:
        """Return the process recorded in a file, if it still runs."""
        try:
            pid, started = path.read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        process = cls(int(pid), started)
        return process if process.alive() else None

    def write(self, path: Path) -> None:
        """Record the process in a file."""
        path.write_text(f"{self.pid} {self.started}\n")

    def alive(self) -> bool:
        """Say whether it still runs; a zombie does not."""
        fields = _stat(self.pid)
        return bool(fields) and fields[19] == self.started and fields[0] != "Z"

    def command(self) -> str:
        """Return its command line."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_text().replace("\0", " ").strip()
        except (FileNotFoundError, ProcessLookupError):
            return ""

    def memory(self) -> int:
        """Return its resident memory in bytes."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (FileNotFoundError, ProcessLookupError):
            return 0

    def age(self) -> float:
        """Return the seconds since it started."""
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - int(self.started) / os.sysconf("SC_CLK_TCK")

    def _signal(self, number: signal.Signals) -> None:
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def end(self, grace: float) -> bool:
        """Ask it to stop, end it after `grace` seconds; say whether it is gone."""
        if grace > 0:
            self._signal(signal.SIGTERM)
        if not self._gone_within(grace):
            self._signal(signal.SIGKILL)
        return self._gone_within(10)
