"""Demand of the last hours in equal slices of time, which says what may be removed and what may come again."""

from __future__ import annotations

from dataclasses import dataclass, replace

# Seconds of the slices, and of all of them; a longer window has longer slices.
SLICE = 10.0
SPAN = 3600.0
_SLICES = int(SPAN / SLICE)
# What is needed only for a moment may be late.
MINUTE = 60.0
# Of the last hour, so much stays below what may come again.
AGAIN = 0.95


@dataclass(frozen=True)
class Slice:
    """One slice of time: how often demand was looked at, its sum and its highest."""

    number: int
    looks: int
    total: float
    peak: float

    @property
    def mean(self) -> float:
        """Its mean demand, in engines."""
        return self.total / self.looks


@dataclass(frozen=True)
class Summary:
    """What the finished slices say, in engines."""

    busiest: float = 0.0  # of the window's minutes, the mean of the busiest
    peak: float = 0.0  # of the window, its highest look
    again: float = 0.0  # of the hour, what almost all of it stayed below


@dataclass(frozen=True)
class History:
    """Slices, the oldest first; a slice in which nothing was looked at is not there."""

    window: float
    width: float
    slices: tuple[Slice, ...] = ()
    summary: Summary = Summary()

    @classmethod
    def over(cls, window: float) -> History:
        """One that is long enough for a window of so many seconds."""
        return cls(window, max(SLICE, window / _SLICES))

    def seen(self, demand: float, now: float, before: float | None) -> History:
        """Take one look in, which also stands for the slices since the look `before` it; the oldest are forgotten."""
        number = int(now // self.width)
        if self.slices and self.slices[-1].number == number:
            last = self.slices[-1]
            same = Slice(number, last.looks + 1, last.total + demand, max(last.peak, demand))
            return replace(self, slices=(*self.slices[:-1], same))
        first = number if before is None else int(before // self.width) + 1
        new = (Slice(n, 1, demand, demand) for n in range(min(first, number), number + 1))
        oldest = number - _SLICES
        kept = tuple(s for s in self.slices if s.number > oldest)
        begin = int((now - self.window) // self.width)
        window = [s for s in kept if s.number >= begin]
        summary = Summary(
            busiest=_busiest([s.mean for s in window], max(1, int(MINUTE / self.width))),
            peak=max((s.peak for s in window), default=0.0),
            again=quantile([s.mean for s in kept], AGAIN),
        )
        return replace(self, slices=(*kept, *new), summary=summary)


def _busiest(means: list[float], many: int) -> float:
    """The highest mean of so many in a row; of all where there are fewer."""
    if not means:
        return 0.0
    many = min(many, len(means))
    found = total = sum(means[:many])
    for leaves, comes in zip(means, means[many:], strict=False):
        total += comes - leaves
        found = max(found, total)
    return found / many


def quantile(values: list[float], share: float) -> float:
    """The value that such a share of all does not exceed; 0 of none."""
    if not values:
        return 0.0
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]
