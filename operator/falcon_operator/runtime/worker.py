"""The workers: take a resource, look at everything that is there, decide, carry it out."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from falcon_operator.decide.events import ENGINE_FAILURE
from falcon_operator.decide.free_gpus import Free
from falcon_operator.decide.reconcile import decide
from falcon_operator.decide.types import Plan, Renderer, Snapshot, Watch
from falcon_operator.kube.apply import controller_uid
from falcon_operator.kube.errors import ApiError
from falcon_operator.kube.events import EventRecorder
from falcon_operator.kube.resources import CONTROLLER_REVISION, DEPLOYMENT, FALCON
from falcon_operator.observe.engine import PATIENCE_SECONDS, EngineObserver
from falcon_operator.runtime.autoscaler import Autoscaler
from falcon_operator.runtime.cache import Cache, Key
from falcon_operator.runtime.deletion_costs import DeletionCosts
from falcon_operator.runtime.executor import Executor, Outcome
from falcon_operator.runtime.free_gpus import FreeGpus
from falcon_operator.runtime.nodes import Nodes
from falcon_operator.runtime.queue import Priority, WorkQueue
from falcon_operator.runtime.snapshot import snapshot_of
from falcon_operator.runtime.status import StatusWriter
from falcon_operator.telemetry.metrics import Metrics

# What an earlier resource of the same name left behind is collected by the controller-manager, not by us.
WAIT_SECONDS = 2.0
# What the API server refused may be acceptable later: a name becomes free, a quota is raised.
REFUSED_SECONDS = 60.0

log = logging.getLogger(__name__)

Decide = Callable[[Snapshot, Renderer, datetime], Plan]


class Reconciler:
    """One pass over one resource. Nothing is kept between passes but the API server's refusals."""

    def __init__(
        self,
        cache: Cache,
        queue: WorkQueue,
        executor: Executor,
        status: StatusWriter,
        events: EventRecorder,
        observer: EngineObserver,
        nodes: Nodes,
        renderer: Renderer,
        *,
        resync_seconds: float,
        free: FreeGpus | None = None,
        costs: DeletionCosts | None = None,
        autoscaler: Autoscaler | None = None,
        failed: Callable[[Key, str], None] = lambda key, reason: None,
        decision: Decide = decide,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._cache, self._queue, self._executor, self._status = cache, queue, executor, status
        self._events, self._observer, self._nodes, self._renderer = events, observer, nodes, renderer
        self._resync, self._decide, self._now, self._jitter = resync_seconds, decision, now, jitter
        self._failed, self._free, self._costs, self._autoscaler = failed, free, costs, autoscaler
        self._known: dict[Key, str] = {}
        # What a look for a free GPU has found, with the generation it was for, until the event has told it.
        self._found: dict[Key, tuple[int | None, Free]] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Bring one resource a step nearer to its spec; returns after how many seconds to look again, None if never."""
        resource = self._cache.get(FALCON, key)
        if resource is None or resource["metadata"]["uid"] != self._known.get(key, resource["metadata"]["uid"]):
            self._forget(key)
        if resource is None or resource["metadata"].get("deletionTimestamp"):
            self._watch(key, None)
            return None  # its children are collected through their owner references
        uid = self._known[key] = resource["metadata"]["uid"]
        plan = self._plan(key, resource)
        if plan.look is not None and self._free is not None:
            self._found[key] = resource["metadata"].get("generation"), await self._free.look(plan.look)
            plan = self._plan(key, resource)
        if plan.costs and self._costs is not None:
            await self._costs.write(key[0], plan.costs)
            if _generation(self._cache.get(FALCON, key)) != _generation(resource):
                return self._later(None)  # the change has queued it: pods that are wanted again must not go
        refused, fresh = self._executor.refused(key), not self._started(key, uid)

        # What pods need and the Deployment go side by side: a pod looks for its volumes a good while later.
        before, after, records = _in_stages(plan.apply)
        outcomes = list(await asyncio.gather(*(self._executor.apply(key, uid, body) for body in before)))
        if fresh and Outcome.WRITTEN in outcomes and self._started(key, uid):
            # The rest, and even the first status, comes after other resources' Deployments.
            self._queue.add(key, Priority.NORMAL)
            return self._later(None)
        outcomes += [await self._executor.apply(key, uid, body) for body in after]
        for reference in plan.delete:
            await self._executor.delete(reference)
        if Outcome.WRITTEN in outcomes or self._executor.refused(key) != refused:
            # Decide again with what was just written or refused.
            resource = self._cache.get(FALCON, key) or resource
            plan = self._plan(key, resource)
            records = _in_stages(plan.apply)[2]

        asking = self._ask(key, plan.observe)
        if self._status.differs(resource, plan.status):
            wait = PATIENCE_SECONDS if asking else await self._status.write(resource, plan.status)
            if wait > 0:
                return wait  # the events belong to that later status
        for event in plan.events:
            self._events.record(resource, event)
            if event.action == ENGINE_FAILURE:
                self._failed(key, event.reason)
        self._found.pop(key, None)
        # The record of what has served is for a later day: it does not hold the status up.
        outcomes += [await self._executor.apply(key, uid, body) for body in records]
        if Outcome.REFUSED in outcomes:
            raise Refused
        return self._later(WAIT_SECONDS if Outcome.WAITING in outcomes else plan.requeue_after)

    def _ask(self, key: Key, pods: Sequence[str]) -> bool:
        """Have pods asked what they serve; True where an answer may come any moment."""
        wanted = [body for _, body in self._cache.children(key) if body["metadata"]["uid"] in pods]
        return any([self._observer.want(pod, key) for pod in wanted])

    def _later(self, seconds: float | None) -> float:
        resync = self._resync * (0.9 + 0.2 * self._jitter())
        return resync if seconds is None else min(seconds, resync)

    def _plan(self, key: Key, resource: Mapping[str, Any]) -> Plan:
        engines, refused = self._observer.facts, self._executor.refused(key)
        snapshot = snapshot_of(self._cache, key, resource, engines, refused, self._nodes.index)
        generation, free = self._found.get(key, (None, None))
        if generation == resource["metadata"].get("generation"):
            snapshot = replace(snapshot, free=free)
        if self._autoscaler is not None:
            snapshot = replace(snapshot, scaling=self._autoscaler.scaling(key))
        plan = self._decide(snapshot, self._renderer, self._now())
        self._watch(key, plan.autoscale)
        return plan

    def _watch(self, key: Key, watch: Watch | None) -> None:
        """Tell the autoscaler what is there, whatever becomes of the plan: it must not go by an older fleet."""
        if self._autoscaler is not None:
            self._autoscaler.want(key, watch)

    def _started(self, key: Key, uid: str) -> bool:
        deployment = self._cache.get(DEPLOYMENT, key)
        return deployment is not None and controller_uid(deployment) == uid

    def _forget(self, key: Key) -> None:
        uid = self._known.pop(key, None)
        self._found.pop(key, None)
        self._watch(key, None)
        self._executor.forget(key)
        self._queue.forget(key)
        if uid is not None:
            self._status.forget(uid)


def _in_stages(objects: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], ...]:
    """Up to the Deployment, the rest, and the records of what has served."""
    records = [body for body in objects if body["kind"] == CONTROLLER_REVISION.kind]
    others = [body for body in objects if body["kind"] != CONTROLLER_REVISION.kind]
    first = next((n for n, body in enumerate(others, 1) if body["kind"] == DEPLOYMENT.kind), 0)
    return others[:first], others[first:], records


def _generation(resource: Mapping[str, Any] | None) -> int | None:
    return resource["metadata"].get("generation") if resource is not None else None


class Refused(Exception):
    """The API server refused a child; that is said in the status, and tried again with growing patience."""


class Workers:
    """A number of workers on one queue."""

    def __init__(
        self,
        queue: WorkQueue,
        reconciler: Reconciler,
        metrics: Metrics,
        *,
        count: int,
    ) -> None:
        self._queue, self._reconciler, self._metrics, self._count = queue, reconciler, metrics, count
        metrics.max_workers.set(count)

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._work(), name=f"worker {number}")

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._metrics.active_workers.inc()
            try:
                await self._process(key)
            finally:
                self._metrics.active_workers.dec()
                self._queue.done(key)

    async def _process(self, key: Key) -> None:
        begin, result = perf_counter(), "success"
        try:
            again = await self._reconciler.reconcile(key)
        except Refused:
            result = "error"
            self._queue.retry(key, at_most=REFUSED_SECONDS)
        except ApiError as error:
            result = "error"
            seconds = self._queue.retry(key, at_least=error.retry_after or 0.0)
            log.warning("%s/%s: %s; again in %.1f s", *key, error, seconds)
        except Exception:
            # An error of ours must not stop the other resources, nor spin on this one.
            result = "panic"
            seconds = self._queue.retry(key)
            log.exception("%s/%s: internal error; again in %.1f s", *key, seconds)
        else:
            self._queue.succeeded(key)
            if again is not None:
                self._queue.add_after(key, again)
        self._metrics.reconciled(result, perf_counter() - begin)
