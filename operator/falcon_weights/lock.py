"""One expansion of a kind at a time, also where several pods share the volume; what a dead one left is cleared away."""

import errno
import fcntl
import os
import shutil
import socket
import time
from pathlib import Path
from types import TracebackType

from falcon_weights import progress

_PARTIAL = ".partial"
_POLL_SECONDS, _SAID_SECONDS = 0.5, 30.0
# Some network file systems have no locks at all.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class Lock:
    """Held from `with` on; the kernel lets go of it when its process dies, so a crash leaves none behind.

    Where the file system has no locks, two may work at once: each in a directory of its own, and who ends last finds
    the other's there.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._file = out.with_name(f"{out.name}.lock")
        self._descriptor = -1
        self._held = False
        self.partial = out.with_name(f"{out.name}.{socket.gethostname()}-{os.getpid()}{_PARTIAL}")

    def __enter__(self) -> "Lock":
        self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        said = time.monotonic() - _SAID_SECONDS
        while not self._held:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._held = True
            except BlockingIOError:
                if time.monotonic() - said >= _SAID_SECONDS:
                    said = time.monotonic()
                    progress.say(f"another process is making {self._out}: waiting for it")
                time.sleep(_POLL_SECONDS)
            except OSError as e:
                if e.errno not in _NO_LOCKS:
                    raise
                break
        return self

    def clear(self) -> None:
        """Remove what those before left half done; with the lock nobody is at it any more."""
        if not self._held:
            return
        for left in self._out.parent.glob(f"{self._out.name}.*{_PARTIAL}"):
            progress.say(f"removing {left}, which was not finished")
            shutil.rmtree(left, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
