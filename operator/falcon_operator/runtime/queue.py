"""The work queue: each resource at most once, by priority, later, or after a failure with growing patience."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from time import monotonic

from falcon_operator.runtime.cache import Key
from falcon_operator.telemetry.metrics import Metrics

BASE_SECONDS = 0.5
MAX_SECONDS = 300.0


class Priority(IntEnum):
    """What goes first when many resources wait."""

    FIRST = 0  # no Deployment yet: nothing can start before it is written
    NORMAL = 1


@dataclass
class _Waiting:
    priority: Priority
    since: float


class WorkQueue:
    """A queue of keys. A key that is being worked on is handed out again only after `done`."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        base_seconds: float = BASE_SECONDS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._metrics = metrics
        self._base, self._jitter = base_seconds, jitter
        self._ready: dict[Priority, deque[Key]] = {priority: deque() for priority in Priority}
        self._waiting: dict[Key, _Waiting] = {}
        self._working: dict[Key, float] = {}
        self._again: dict[Key, Priority] = {}
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._getters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Key, priority: Priority = Priority.NORMAL) -> None:
        """Queue a key now; nothing happens where it waits already, unless this is more urgent."""
        if key in self._working:
            self._again[key] = min(priority, self._again.get(key, priority))
            return
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = _Waiting(priority, monotonic())
            self._metrics.queue_adds.inc()
        elif priority < waiting.priority:
            waiting.priority = priority  # its older place is skipped when its turn comes
        else:
            return
        self._ready[priority].append(key)
        self._metrics.queue_depth.set(len(self._waiting))
        self._wake_one()

    def add_after(self, key: Key, seconds: float, priority: Priority = Priority.NORMAL) -> None:
        """Queue a key later; of several times the earliest holds."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(seconds, 0)
        planned = self._later.get(key)
        if planned is not None:
            if planned.when() <= due:
                return
            planned.cancel()
        self._later[key] = loop.call_at(due, self._come_due, key, priority)

    def retry(self, key: Key, *, at_least: float = 0.0, at_most: float = MAX_SECONDS) -> float:
        """Queue a key after a failure; returns after how many seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        seconds = min(self._base * 2.0 ** min(failures, 30), at_most) * (0.75 + 0.5 * self._jitter())
        seconds = max(seconds, at_least)
        self._metrics.queue_retries.inc()
        self.add_after(key, seconds)
        return seconds

    def succeeded(self, key: Key) -> None:
        """Forget the failures of a key."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """The resource is gone: forget its failures and its later turn."""
        self._failures.pop(key, None)
        planned = self._later.pop(key, None)
        if planned is not None:
            planned.cancel()

    async def get(self) -> Key:
        """The next key; waits for one."""
        while True:
            for priority, keys in self._ready.items():
                while keys:
                    key = keys.popleft()
                    waiting = self._waiting.get(key)
                    if waiting is None or waiting.priority is not priority:
                        continue  # moved to a more urgent place
                    del self._waiting[key]
                    now = monotonic()
                    self._working[key] = now
                    self._metrics.queue_seconds.observe(now - waiting.since)
                    self._metrics.queue_depth.set(len(self._waiting))
                    return key
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake_one()  # the wake-up was ours: pass it on
                raise

    def done(self, key: Key) -> None:
        """Work on a key has ended; a key that was added meanwhile is queued now."""
        began = self._working.pop(key)
        self._metrics.work_seconds.observe(monotonic() - began)
        again = self._again.pop(key, None)
        if again is not None:
            self.add(key, again)

    def ages(self) -> list[float]:
        """How long each piece of work in progress has taken so far."""
        now = monotonic()
        return [now - began for began in self._working.values()]

    def _come_due(self, key: Key, priority: Priority) -> None:
        self._later.pop(key, None)
        self.add(key, priority)

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return
