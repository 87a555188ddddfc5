"""One command at a time: a lock on a file, held by the process."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .progress import say


@contextmanager
def alone(path: Path, other: str) -> Iterator[None]:
    """Hold the lock file's lock; wait for `other`, the words for its holder, where somebody has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for {other} to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
