"""What the testbed tells its user: each step with the time it took."""

from __future__ import annotations

import os
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


def patience(seconds: float) -> float:
    """Return how long to wait for what takes `seconds` at most on a common machine.

    FALCON_TESTBED_PATIENCE is the factor: an emulated CPU is ten to twenty times as slow. By default it is 4, since a
    component that ends is told at once and only one that hangs is told later.
    """
    text = os.environ.get("FALCON_TESTBED_PATIENCE") or "4"
    try:
        factor = float(text)
    except ValueError:
        factor = 0
    if not 1 <= factor < float("inf"):
        raise TestbedError(f"FALCON_TESTBED_PATIENCE is {text!r}; it has to be a number of 1 or more.")
    return seconds * factor


def wait_until(
    what: str, check: Callable[[], bool], seconds: float, on_timeout: Callable[[], str] = lambda: ""
) -> None:
    """Poll `check` until it holds; after `patience(seconds)` raise with `on_timeout`'s explanation."""
    seconds = patience(seconds)
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise TestbedError(f"{what} took longer than {seconds:.0f} s. {on_timeout()}".strip())
        time.sleep(0.1)
