"""What the testbed tells its user: each step with the time it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_START = time.monotonic()
_steps: list[tuple[str, float]] = []


class TestbedError(Exception):
    """Something the user has to know or to change; its text is all that is printed."""

    __test__ = False  # its name looks like a test class to pytest


def say(text: str) -> None:
    """Print a line with the time since the command began."""
    print(f"[{time.monotonic() - _START:6.1f} s] {text}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str, *, announce: bool = False) -> Iterator[None]:
    """Say what was done and how long it took; `announce` says it before as well, for what takes minutes."""
    begin = time.monotonic()
    if announce:
        say(f"{text} ...")
    yield
    seconds = time.monotonic() - begin
    _steps.append((text, seconds))
    say(f"{text}: {seconds:.1f} s")


def steps() -> list[tuple[str, float]]:
    """Return the steps so far with their seconds."""
    return list(_steps)


def wait_until(
    what: str, check: Callable[[], bool], seconds: float, on_timeout: Callable[[], str] = lambda: ""
) -> None:
    """Poll `check` until it holds; after `seconds` raise with `on_timeout`'s explanation."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise TestbedError(f"{what} took longer than {seconds:.0f} s. {on_timeout()}".strip())
        time.sleep(0.1)
