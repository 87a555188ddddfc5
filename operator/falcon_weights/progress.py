"""Lines on standard error that say how far the work is, and how long it will still take."""

import sys
import threading
import time

_EVERY_SECONDS = 5.0


def say(sentence: str) -> None:
    """One line."""
    print(f"falcon: {sentence}", file=sys.stderr, flush=True)


class Progress:
    """Counts bytes, from any thread, towards `total`; says nothing of work that is over within `_EVERY_SECONDS`."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._began = self._said = time.monotonic()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """`count` bytes more are done."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._said < _EVERY_SECONDS:
                return
            self._said = now
            rate = self._done / (now - self._began)
            left = max(0, self._total - self._done) / rate
            say(
                f"{self._what}: {self._done / 2**30:.1f} of {self._total / 2**30:.1f} GiB, "
                f"{rate / 2**20:.0f} MiB/s, about {left:.0f} s left"
            )

    def end(self) -> None:
        """All is done."""
        say(f"{self._what} took {time.monotonic() - self._began:.1f} s")
