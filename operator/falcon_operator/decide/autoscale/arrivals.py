"""How many requests come in a second: over a minute, or since they became clearly more than that."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt

# The longest first. A shorter one counts only where chance does not explain what it has beyond a longer one.
WINDOWS = (60.0, 30.0, 15.0, 8.0, 4.0, 2.0)
# In deviations.
_CERTAIN, _LUCK = 4.5, 1.0


@dataclass(frozen=True)
class Arrivals:
    """A running total of requests, as it was at each look of the last minute."""

    looks: tuple[tuple[float, float], ...] = ()
    last: dict[str, float] = field(default_factory=dict)  # each source's counter as last seen

    @property
    def total(self) -> float:
        """All requests since this operator began to look."""
        return self.looks[-1][1] if self.looks else 0.0

    def seen(self, counters: dict[str, float], now: float) -> Arrivals:
        """Take the counters of all sources that could be read; one that went back belongs to a process that began anew.

        A source that is seen for the first time adds nothing: when it counted is not known.
        """
        new = 0.0
        for source, count in counters.items():
            before = self.last.get(source)
            if before is not None:
                new += count - before if count >= before else count
        looks = (*self.looks, (now, self.total + new))
        if len(looks) > 2 and looks[1][0] <= now - WINDOWS[0]:
            first = next(i for i, (at, _) in enumerate(looks) if at > now - WINDOWS[0]) - 1
            looks = looks[first:]
        return Arrivals(looks, self.last | counters)

    def keep(self, sources: set[str]) -> Arrivals:
        """Forget what is gone for good."""
        if sources >= self.last.keys():
            return self
        return Arrivals(self.looks, {source: count for source, count in self.last.items() if source in sources})

    def rate(self, now: float) -> float:
        """Requests a second at this time."""
        if not self.looks:
            return 0.0
        longest = min(max(now - self.looks[0][0], WINDOWS[-1]), WINDOWS[0])
        usual = self._within(longest, now) / longest
        counts = [(window, self._within(window, now)) for window in WINDOWS if window < longest]
        # By how many deviations each shorter window has more than usual.
        signs = [(count - usual * window) / sqrt(max(usual * window, 1.0)) for window, count in counts]
        most = max(signs, default=0.0)
        if most < _CERTAIN:
            return usual
        # Something has changed: since about then, or later; what is left of it without good luck counts.
        since = counts[signs.index(most) :]
        return max(usual, *((count - _LUCK * sqrt(count)) / window for window, count in since))

    def _within(self, window: float, now: float) -> float:
        """Requests of the last so many seconds; between two looks they came evenly."""
        begin = now - window
        before = self.looks[0]
        if before[0] >= begin:
            return self.total - before[1]
        for look in reversed(self.looks):
            if look[0] <= begin:
                before = look
                break
            after = look
        if before is self.looks[-1]:
            return 0.0
        share = (begin - before[0]) / (after[0] - before[0])
        return self.total - (before[1] + share * (after[1] - before[1]))
