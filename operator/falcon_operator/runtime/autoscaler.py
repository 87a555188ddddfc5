"""Looks at each resource's gateways and engines all the time, and has the newest decision ready for the workers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from time import monotonic

from falcon_operator.api import names
from falcon_operator.decide.autoscale.decision import decide
from falcon_operator.decide.types import Scaling, Watch
from falcon_operator.observe.http import Http
from falcon_operator.runtime.cache import Key
from falcon_operator.runtime.sources import Means
from falcon_operator.runtime.watched import Decide, Figures, Watched

# Engines that are asked at the same time, of all resources: those that hang must not hold up the others.
AT_ONCE = 500


class Autoscaler:
    """All resources with autoscaling; `changed` gets the key when a plan would come out differently.

    Time is that of a monotonic clock alone: when the day's clock is set, nothing is decided otherwise.
    """

    def __init__(
        self,
        changed: Callable[[Key], None],
        *,
        gateway_port: int = names.GATEWAY_METRICS_PORT,
        engine_port: int = names.ENGINE_PORT,
        decision: Decide = decide,
        clock: Callable[[], float] = monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._changed, self._decide, self._jitter = changed, decision, jitter
        # The client's own bound costs more the more wait for it.
        self._http = Http(at_once=0)
        self._means = Means(clock, self._http, gateway_port, engine_port, asyncio.Semaphore(AT_ONCE))
        self._watched: dict[Key, Watched] = {}

    def want(self, key: Key, watch: Watch | None) -> None:
        """What is there of a resource now; None ends looking at it, and nothing is remembered of it."""
        known = self._watched.get(key)
        if watch is None:
            self.forget(key)
        elif known is not None:
            known.update(watch)
        else:
            self._watched[key] = Watched(key, watch, self._means, self._decide, self._changed, self._jitter())

    def scaling(self, key: Key) -> Scaling | None:
        """The newest decision, which counts as told from here on; None where there is none yet."""
        known = self._watched.get(key)
        return known.scaling() if known is not None else None

    def figures(self) -> Iterator[tuple[Key, Figures]]:
        """What the operator's metrics say of each resource."""
        for key, watched in self._watched.items():
            yield key, watched.figures()

    def forget(self, key: Key) -> None:
        """The resource is gone, or is no longer the autoscaler's."""
        known = self._watched.pop(key, None)
        if known is not None:
            known.close()

    async def close(self) -> None:
        """Stop looking."""
        for key in list(self._watched):
            self.forget(key)
        await self._http.close()
