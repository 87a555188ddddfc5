"""The folder beside the result in which it is made: whole files with a journal of them, moved into place at the end."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from falcon_quantize.refusal import Refusal


class Work:
    """`OUT.partial`: `model/` becomes OUT, `journal.jsonl` says what of it is whole, `lock` is held by the process.

    The first line of the journal is the key: what the result is made of. Another key starts over.
    """

    def __init__(self, out: Path, key: Mapping[str, Any]) -> None:
        self._out = out
        self._key = dict(key)
        self.folder = partial(out)
        self.model = self.folder / "model"
        self._journal = self.folder / "journal.jsonl"
        self._done: dict[str, dict[str, Any]] = {}
        self._lock: int | None = None
        self.started_over = False

    def __enter__(self) -> Work:
        self.folder.mkdir(exist_ok=True)
        self._take_lock()
        lines = self._lines()
        if lines[:1] == [{"key": self._key}]:
            for line in lines[1:]:
                self._done[line["file"]] = line
        else:
            self.started_over = bool(lines)
            self._journal.write_text("")
            shutil.rmtree(self.model, ignore_errors=True)
            self._append({"key": self._key})
        self.model.mkdir(exist_ok=True)
        sync(self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What a retry would refuse again is thrown away; what a retry could go on from stays.
        if isinstance(error, Refusal):
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def done(self, name: str) -> dict[str, Any] | None:
        """What the journal says of a file that is whole; None where it has to be made."""
        entry = self._done.get(name)
        try:
            whole = entry is not None and (self.model / name).stat().st_size == entry["bytes"]
        except OSError:
            whole = False
        return entry if whole else None

    def add(self, name: str, write: Callable[[Path], None], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Have a file written under another name, put it in place once it is on the disk, and note it."""
        self.write(name, write)
        entry = {"file": name, "bytes": (self.model / name).stat().st_size, **facts}
        self._append(entry)
        self._done[name] = entry
        return entry

    def write(self, name: str, write: Callable[[Path], None]) -> None:
        """Have a file written as `add` does, without a note."""
        path = self.model / name
        fresh = path.with_name(f".{name}.new")
        try:
            write(fresh)
            fresh.chmod(0o644)
            sync(fresh)
            fresh.rename(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        sync(self.model)

    def note(self, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Remember something that is no file, such as what a calibration found."""
        entry = {"file": name, **facts}
        self._append(entry)
        self._done[name] = entry
        return entry

    def noted(self, name: str) -> dict[str, Any] | None:
        """What was noted under a name."""
        return self._done.get(name)

    def finish(self) -> None:
        """Move the model into place, in one step, and remove what was needed to make it."""
        for path in self.model.glob(".*.new"):
            path.unlink()
        self.model.chmod(0o755)
        sync(self.model)
        self.model.rename(self._out)
        sync(self._out.parent)
        shutil.rmtree(self.folder)

    def _take_lock(self) -> None:
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = None
            raise Busy(f"Another falcon-quantize is making {self._out}. Wait for it, or name another --out.") from None

    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = self._journal.read_text()
        except FileNotFoundError:
            return []
        whole, _, torn = text.rpartition("\n")
        if torn:  # the line that was being written when the process was killed
            os.truncate(self._journal, len(f"{whole}\n".encode()) if whole else 0)
        return [json.loads(line) for line in whole.splitlines()]

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._journal.open("a") as file:
            file.write(f"{json.dumps(line)}\n")
            file.flush()
            os.fsync(file.fileno())


class Busy(Exception):
    """Another process makes the same result; later is another matter."""


def partial(out: Path) -> Path:
    """The folder in which `out` is made."""
    return out.with_name(f"{out.name}.partial")


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
