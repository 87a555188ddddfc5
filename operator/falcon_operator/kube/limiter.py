"""Token buckets: a burst at once, then a trickle."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from time import monotonic


class Limiter:
    """One bucket a key; keys that were not used for long are forgotten (their buckets are full again)."""

    def __init__(
        self, burst: int, seconds_each: float, *, clock: Callable[[], float] = monotonic, keys: int = 10_000
    ) -> None:
        self._burst, self._seconds_each, self._clock, self._keys = burst, seconds_each, clock, keys
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait(self, key: Hashable) -> float:
        """Take a token; 0 where there was one, else the seconds until there will be one (none is taken)."""
        now = self._clock()
        tokens, since = self._buckets.get(key, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - since) / self._seconds_each)
        granted = tokens >= 1
        tokens -= granted
        self._buckets[key] = tokens, now
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._keys:
            self._buckets.popitem(last=False)
        return 0.0 if granted else (1 - tokens) * self._seconds_each

    def forget(self, key: Hashable) -> None:
        """The key's bucket is full again."""
        self._buckets.pop(key, None)
