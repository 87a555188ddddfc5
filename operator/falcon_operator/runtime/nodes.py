"""The cluster's nodes as decisions want them, and which resources a change of one touches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from falcon_operator.decide.nodes import NodeFacts, NodeIndex
from falcon_operator.decide.touched import Change, touches
from falcon_operator.kube.resources import FALCON
from falcon_operator.runtime.cache import Cache
from falcon_operator.runtime.queue import WorkQueue

# Nodes come by the hundred: what they touch is looked at together, twice a second at most; a single change at once.
GATHER_SECONDS = 0.1
SECONDS_BETWEEN = 0.5

log = logging.getLogger(__name__)


class Nodes:
    """Keeps the index, and queues the resources whose judgement a change may change, once for many changes."""

    def __init__(
        self,
        cache: Cache,
        queue: WorkQueue,
        *,
        gather_seconds: float = GATHER_SECONDS,
        seconds_between: float = SECONDS_BETWEEN,
    ) -> None:
        self._cache, self._queue = cache, queue
        self._gather_seconds, self._between, self._last = gather_seconds, seconds_between, -seconds_between
        self._index = NodeIndex()
        self._refused = False
        self._changes: set[Change] = set()
        self._due: asyncio.TimerHandle | None = None

    @property
    def index(self) -> NodeIndex | None:
        """All nodes; None where the operator may not read them."""
        return None if self._refused else self._index

    @property
    def gathering(self) -> bool:
        """Whether there are changes whose resources have not been queued yet."""
        return self._due is not None

    def changed(self, body: Mapping[str, Any]) -> None:
        """A node is new or another; `body` is as the cache keeps it, and its labels are not copied."""
        node = replace(NodeFacts.of(body), labels=body["metadata"].get("labels") or {})
        before = self._index.get(node.name)
        if self._index.put(node):
            self._plan(Change.between(before, node))

    def gone(self, name: str) -> None:
        """A node is no longer there."""
        before = self._index.get(name)
        if before is not None and self._index.remove(name):
            self._plan(Change.between(before, None))

    def readable(self, allowed: bool) -> None:
        """Whether nodes may be read; where not, nothing is known of them."""
        if allowed is self._refused:
            self._index, self._refused = NodeIndex(), not allowed
            self._plan(Change(everything=True))

    def _plan(self, change: Change | None) -> None:
        if change is None:
            return
        self._changes.add(change)
        if self._due is None:
            loop = asyncio.get_running_loop()
            due = max(loop.time() + self._gather_seconds, self._last + self._between)
            self._due = loop.call_at(due, self._queue_touched)

    def _queue_touched(self) -> None:
        changes, self._changes, self._due = frozenset(self._changes), set(), None
        self._last = asyncio.get_running_loop().time()
        touched = [key for key in self._cache.keys(FALCON)
                   if touches(changes, self._cache.get(FALCON, key) or {})]  # fmt: skip
        for key in touched:
            self._queue.add(key)
        log.debug("%d kinds of change among nodes touch %d resources", len(changes), len(touched))
