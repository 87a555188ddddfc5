"""Demand of the last hour, or of a longer window, in equal slices of time: what may be removed, what may come again."""

from __future__ import annotations

from dataclasses import dataclass

# Seconds of the slices, and of all of them; a longer window has longer slices.
SLICE = 10.0
SPAN = 3600.0
_SLICES = int(SPAN / SLICE)
# What is needed only for a moment may be late.
MINUTE = 60.0


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
    again: float = 0.0  # of the hour, what came more than once


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
            return History(self.window, self.width, (*self.slices[:-1], same), self.summary)
        first = number if before is None else int(before // self.width) + 1
        new = (Slice(n, 1, demand, demand) for n in range(min(first, number), number + 1))
        oldest = number - _SLICES
        kept = tuple(s for s in self.slices if s.number > oldest)
        begin = int((now - self.window) // self.width)
        window = [s for s in kept if s.number >= begin]
        summary = Summary(
            busiest=_busiest([s.mean for s in window], max(1, int(MINUTE / self.width))),
            peak=max((s.peak for s in window), default=0.0),
            again=_again(kept, max(1, int(max(self.window, MINUTE) / self.width))),
        )
        return History(self.window, self.width, (*kept, *new), summary)


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


def _again(slices: tuple[Slice, ...], many: int) -> float:
    """The highest demand that came at least twice, with a time between in which there was less than half of it.

    Times are of `many` slices, as long as the window: what comes again sooner is kept by the window.
    """
    times: dict[int, float] = {}
    for s in slices:
        times[s.number // many] = max(times.get(s.number // many, 0.0), s.mean)
    peaks = list(times.values())
    found = 0.0
    for first, peak in enumerate(peaks):
        valley = peak
        for later in peaks[first + 1 :]:
            level = min(peak, later)
            if valley <= level / 2:
                found = max(found, level)
            valley = min(valley, later)
    return found
