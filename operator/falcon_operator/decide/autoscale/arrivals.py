"""How many requests come in a second: over a while, or since they became clearly more than that."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from math import sqrt

# The longest first. A shorter one counts only where chance does not explain what it has beyond the usual.
WINDOWS = (120.0, 60.0, 30.0, 15.0, 8.0, 4.0, 2.0, 1.0)
# In deviations: what is more than usual, what may be, and what may be luck of the more: twice as much where it is only
# just certain, since then luck had its part in it.
_CERTAIN, _DOUBTFUL, _LUCK = 5.0, 2.0, 1.0
# Seconds after which it is known what is usual.
_LEARNT = 30.0
# Seconds of a bin, in which requests are counted to see how unevenly they come; of so many bins that is the mean.
_BIN = 2.0
_BINS = 120
_MOST_DISPERSION = 50.0
# A crowd is over within about so many bins. Load that came to stay is the mean by then: were it taken for crowds, the
# next step would not be believed for minutes.
_CROWD = 6


@dataclass(frozen=True)
class Unevenness:
    """By how much more the counts of bins vary than if each request came for itself: about the mean of `about` bins."""

    about: int
    near: float = 0.0  # that mean
    mean: float = 0.0
    variance: float = 0.0
    bins: int = 0
    begun: float | None = None  # of the bin that is not full yet
    count: float = 0.0

    @property
    def dispersion(self) -> float:
        """Variance over mean; 1 where requests have nothing to do with each other."""
        return min(max(self.variance / self.mean, 1.0), _MOST_DISPERSION) if self.mean > 0 else 1.0

    def seen(self, new: float, now: float) -> Unevenness:
        """Count requests that came until now."""
        if self.begun is None or not 0 <= now - self.begun <= 2 * _BIN:
            return replace(self, begun=now, count=0.0)
        count = self.count + new
        if now - self.begun < _BIN:
            return replace(self, count=count)
        count *= _BIN / (now - self.begun)
        bins = self.bins + 1
        off = (count - self.near) ** 2 if self.bins else 0.0
        # One step of the load is not many crowds.
        off = min(off, 9 * self.dispersion * max(self.mean, 1.0)) if bins > 10 else off
        share, nearer = 1 / min(bins, _BINS), 1 / min(bins, self.about)
        return Unevenness(
            self.about,
            self.near + nearer * (count - self.near),
            self.mean + share * (count - self.mean),
            self.variance + share * (off - self.variance),
            bins,
            now,
        )


@dataclass(frozen=True)
class Arrivals:
    """A running total of requests, as it was at each look of the last minutes, the oldest first."""

    times: tuple[float, ...] = ()
    totals: tuple[float, ...] = ()
    last: dict[str, float] = field(default_factory=dict)  # each source's counter as last seen
    crowds: Unevenness = Unevenness(_CROWD)  # what may look like more load, and is none
    swings: Unevenness = Unevenness(_BINS)  # and load that rises and falls within minutes: engines need room for both

    @property
    def total(self) -> float:
        """All requests since this operator began to look."""
        return self.totals[-1] if self.totals else 0.0

    def seen(self, counters: dict[str, float], now: float) -> Arrivals:
        """Take the counters of all sources that could be read; one that went back belongs to a process that began anew.

        A source that is seen for the first time adds nothing: when it counted is not known.
        """
        new = 0.0
        for source, count in counters.items():
            before = self.last.get(source)
            if before is not None:
                new += count - before if count >= before else count
        # One look before the longest window stays, to know the total at its begin.
        first = max(bisect_right(self.times, now - WINDOWS[0]) - 1, 0)
        return Arrivals(
            (*self.times[first:], now),
            (*self.totals[first:], self.total + new),
            self.last | counters,
            self.crowds.seen(new, now),
            self.swings.seen(new, now),
        )

    def keep(self, sources: set[str]) -> Arrivals:
        """Forget what is gone for good."""
        if sources >= self.last.keys():
            return self
        return replace(self, last={source: count for source, count in self.last.items() if source in sources})

    def rate(self, now: float) -> float:
        """Requests a second: the mean of the longest window, or since they became clearly more than that."""
        usual, counts, signs = self._beyond(now)
        most = max(signs, default=0.0)
        if not self._learnt(now):
            # Of a few seconds much may be luck.
            seconds = max(self._seconds(now), WINDOWS[-1])
            return max(usual - _LUCK * sqrt(usual * seconds * self.crowds.dispersion) / seconds, 0.0)
        if most < _CERTAIN:
            return usual
        # Something has changed: since about then, or in the second half of it; what is left of it without good luck
        # counts. Of still shorter windows the luckiest would.
        first, spread = signs.index(most), self.crowds.dispersion
        luck = _LUCK * (1 + _CERTAIN / most)
        since = counts[first : first + 2]
        return max(usual, *((count - luck * sqrt(count * spread)) / window for window, count in since))

    def doubtful(self, now: float) -> bool:
        """Whether there may be more than usual, so that another look would tell."""
        _, _, signs = self._beyond(now)
        return self._learnt(now) and _DOUBTFUL <= max(signs, default=0.0) < _CERTAIN

    def _seconds(self, now: float) -> float:
        """Since the oldest look that is known."""
        return now - self.times[0] if self.times else 0.0

    def _learnt(self, now: float) -> bool:
        return self._seconds(now) >= _LEARNT

    def _beyond(self, now: float) -> tuple[float, list[tuple[float, float]], list[float]]:
        """What is usual in a second; the shorter windows and their counts; by how many deviations these are more."""
        if not self.times:
            return 0.0, [], []
        longest = min(max(now - self.times[0], WINDOWS[-1]), WINDOWS[0])
        usual = self._within(longest, now) / longest
        counts = [(window, self._within(window, now)) for window in WINDOWS if window < longest]
        spread = self.crowds.dispersion
        return (
            usual,
            counts,
            [(count - usual * window) / sqrt(max(usual * window, 1.0) * spread) for window, count in counts],
        )

    def _within(self, window: float, now: float) -> float:
        """Requests of the last so many seconds; between two looks they came evenly."""
        begin = now - window
        after = bisect_right(self.times, begin)
        if after == 0:
            return self.total - self.totals[0]
        if after == len(self.times):
            return 0.0
        share = (begin - self.times[after - 1]) / (self.times[after] - self.times[after - 1])
        return self.total - (self.totals[after - 1] + share * (self.totals[after] - self.totals[after - 1]))
