"""How far a run is: a bar on a terminal, a line for each file elsewhere."""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


class Progress:
    """Counts bytes of the source; what an earlier run did says nothing of how fast this one is."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._counted = 0
        self._start = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def skip(self, amount: int) -> None:
        """Count what was there already."""
        self._done += amount
        if self._bar is not None:
            self._bar.initial += amount
            self._bar.update(amount)

    def add(self, amount: int) -> None:
        """Count what was worked on."""
        self._done += amount
        self._counted += amount
        if self._bar is not None:
            self._bar.update(amount)

    def file(self, name: str) -> None:
        """Say that a file of the result is whole."""
        if self._bar is None:
            passed = time.monotonic() - self._start
            left = passed / self._counted * (self._total - self._done) if self._counted else 0.0
            say(f"{self._done / self._total:4.0%}  {name}  {passed:.0f} s, about {left:.0f} s left")


def say(text: str) -> None:
    """Print a line of what goes on."""
    print(text, file=sys.stderr, flush=True)
