"""How many requests come in a second: over a while, or since they became clearly more than that."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import sqrt

# The longest first. A shorter one counts only where chance does not explain what it has beyond the usual.
WINDOWS = (120.0, 60.0, 30.0, 15.0, 8.0, 5.6, 4.0, 2.8, 2.0, 1.4, 1.0, 0.7)
# In deviations: what is more than usual, what may be, and what may be luck: of the more that is just certain twice as
# much, since then luck had its part in it, and the less the more certain it is.
_CERTAIN, _DOUBTFUL, _LUCK = 5.0, 2.0, 1.0
# Seconds after which it is known what is usual.
_LEARNT = 30.0
# Seconds after which a source that has said nothing new counts as one without requests.
_SILENT = 3.0
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
        if self.begun is None and not new:
            return self  # what comes after nothing, for the first time, is no crowd
        if self.begun is None or not 0 <= now - self.begun <= 2 * _BIN:
            return replace(self, begun=now, count=0.0)
        count = self.count + new
        if now - self.begun < _BIN:
            # (`replace` takes three times as long, and this is most looks)
            return Unevenness(self.about, self.near, self.mean, self.variance, self.bins, self.begun, count)
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
class Pace:
    """Requests a second, and by how many deviations they are more than usual; 0 where that is not known."""

    rate: float
    sign: float = 0.0

    @property
    def doubtful(self) -> bool:
        """Whether there may be more than usual, so that another look would tell."""
        return _DOUBTFUL <= self.sign < _CERTAIN

    @property
    def changed(self) -> bool:
        """Whether there is clearly more than usual: then `rate` is what is there at least."""
        return self.sign >= _CERTAIN


@dataclass(frozen=True)
class Looks:
    """One source's running total of requests at each look of the last minutes, the oldest first.

    A look counts somewhere between the question and the answer: either may be late, the source or the one who asks.
    """

    asked: tuple[float, ...] = ()
    answered: tuple[float, ...] = ()
    totals: tuple[float, ...] = ()

    def looked(self, asked: float, now: float, new: float) -> Looks:
        """With one more."""
        total = self.totals[-1] + new if self.totals else new
        # One look before the longest window stays, to know the total at its begin.
        first = max(bisect_right(self.answered, now - WINDOWS[0]) - 1, 0)
        return Looks((*self.asked[first:], asked), (*self.answered[first:], now), (*self.totals[first:], total))

    def within(self, windows: Sequence[float], now: float) -> list[float]:
        """Requests of each so many seconds until its last look, or until now where that is long ago.

        By questions and by answers, the fewer: what only comes together because an answer was late is no more load.
        """
        silent = now - self.answered[-1] > _SILENT
        both = [self._since(times, now if silent else times[-1], windows) for times in (self.asked, self.answered)]
        return list(map(min, *both))

    def _since(self, times: tuple[float, ...], end: float, windows: Sequence[float]) -> list[float]:
        """Between two looks they came evenly."""
        totals, found = self.totals, []
        for window in windows:
            begin = end - window
            after = bisect_right(times, begin)
            if after == 0:
                before = totals[0]
            elif after == len(times):
                before = totals[-1]
            else:
                share = (begin - times[after - 1]) / (times[after] - times[after - 1])
                before = totals[after - 1] + share * (totals[after] - totals[after - 1])
            found.append(totals[-1] - before)
        return found


@dataclass(frozen=True)
class Arrivals:
    """The requests of all sources."""

    looks: dict[str, Looks] = field(default_factory=dict)  # of those that are gone, too, for as long as they count
    last: dict[str, float] = field(default_factory=dict)  # each source's counter as last seen
    total: float = 0.0  # all requests since this operator began to look
    crowds: Unevenness = Unevenness(_CROWD)  # what may look like more load, and is none
    swings: Unevenness = Unevenness(_BINS)  # and load that rises while engines start; others need room for both

    def seen(self, counters: dict[str, tuple[float, float]], now: float, start: float) -> Arrivals:
        """Take the counters of all sources that could be read, each with the time when it was asked.

        One that went back belongs to a process that began anew. A source that is seen for the first time adds nothing:
        when it counted is not known. Engines take `start` seconds until they serve.
        """
        more = 0.0
        looks = {uid: known for uid, known in self.looks.items() if now - known.answered[-1] <= WINDOWS[0]}
        for source, (asked, count) in counters.items():
            before, known = self.last.get(source), looks.get(source, Looks())
            new = 0.0 if before is None else count - before if count >= before else count
            if known.asked and known.asked[-1] == asked:
                continue  # nobody has asked it since
            looks[source] = known.looked(asked, now, new)
            more += new
        bins = min(max(round(start / _BIN), _CROWD), _BINS)
        return Arrivals(
            looks,
            self.last | {source: count for source, (_, count) in counters.items()},
            self.total + more,
            self.crowds.seen(more, now),
            (self.swings if self.swings.about == bins else replace(self.swings, about=bins)).seen(more, now),
        )

    def keep(self, sources: set[str]) -> Arrivals:
        """Forget what is gone for good."""
        if sources >= self.last.keys():
            return self
        return replace(self, last={source: count for source, count in self.last.items() if source in sources})

    def pace(self, now: float) -> Pace:
        """The mean of the longest window, or since they became clearly more than that."""
        if not self.looks:
            return Pace(0.0)
        known, spread = max(now - looks.answered[0] for looks in self.looks.values()), self.crowds.dispersion
        longest = min(max(known, WINDOWS[-1]), WINDOWS[0])
        windows = (longest, *(window for window in WINDOWS if window < longest))
        counts = [
            sum(each) for each in zip(*(looks.within(windows, now) for looks in self.looks.values()), strict=True)
        ]
        usual = counts[0] / longest
        if known < _LEARNT:
            # Of a few seconds much may be luck.
            return Pace(max(usual - _LUCK * sqrt(usual * longest * spread) / longest, 0.0))
        shorter = list(zip(windows, counts, strict=True))[1:]
        signs = [(count - usual * window) / sqrt(max(usual * window, 1.0) * spread) for window, count in shorter]
        most = max(signs)
        if most < _CERTAIN:
            return Pace(usual, most)
        # Something has changed: since about then, or in the second half of it; what is left of it without good luck
        # counts. Of still shorter windows the luckiest would.
        first, luck = signs.index(most), _LUCK * 2 * _CERTAIN / most
        since = shorter[first : first + 2]
        return Pace(max(usual, *((count - luck * sqrt(count * spread)) / window for window, count in since)), most)
