"""Tells Kubernetes what runs in each pod before some of them go, once for each scale-down and in bounded time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from falcon_operator.api import names
from falcon_operator.decide.deletion_cost import ANNOTATION, changes
from falcon_operator.decide.pods import Pod
from falcon_operator.kube.client import KubeClient
from falcon_operator.kube.errors import ApiError, Forbidden
from falcon_operator.kube.resources import POD
from falcon_operator.observe.http import Unreadable

# Of one resource's pods. What an engine says is small, but nothing makes it so.
AT_ONCE = 16
# For all pods together, once to read and once to write.
SECONDS = 3.0
_SHOWN = 10

log = logging.getLogger(__name__)


class DeletionCosts:
    """Writes costs as far as it can: the scale-down goes on in any case. `load` asks the engine at an address."""

    def __init__(
        self, client: KubeClient, load: Callable[[str], Awaitable[float]], *, seconds: float = SECONDS
    ) -> None:
        self._client, self._load, self._seconds = client, load, seconds
        self._told = False

    async def write(self, namespace: str, pods: Sequence[Pod]) -> None:
        """Annotate pods with the requests that they have; what cannot be read or written is logged."""
        try:
            await self._write(namespace, pods, await self._loads(namespace, pods))
        except Exception:
            log.exception("%s: internal error over deletion costs, so pods go without", namespace)

    async def _loads(self, namespace: str, pods: Sequence[Pod]) -> Mapping[str, float | None]:
        """By the pods' names; None where the engine did not say in time."""
        loads: dict[str, float | None] = dict.fromkeys(pod.name for pod in pods)
        problems: list[Unreadable] = []

        async def ask(pod: Pod) -> None:
            try:
                loads[pod.name] = await self._load(str(pod.status.get("podIP") or ""))
            except Unreadable as problem:
                problems.append(problem)

        await self._in_time(ask, pods)
        unknown = sum(load is None for load in loads.values())
        if unknown:
            log.warning("%s: %d of %d engines do not say how many requests they have, and count as the busiest: %s",
                        namespace, unknown, len(pods), problems[0] if problems else "no answer in time")  # fmt: skip
        return loads

    async def _write(self, namespace: str, pods: Sequence[Pod], loads: Mapping[str, float | None]) -> None:
        annotations = {pod.name: pod.raw["metadata"].get("annotations") or {} for pod in pods}
        costs = changes(loads, {name: found[ANNOTATION] for name, found in annotations.items() if ANNOTATION in found})
        written: list[str] = []
        problems: list[ApiError] = []

        async def annotate(pod: Pod) -> None:
            body = {
                "apiVersion": POD.api_version,
                "kind": POD.kind,
                "metadata": {
                    "namespace": namespace,
                    "name": pod.name,
                    "uid": pod.uid,  # a pod that has gone meanwhile is not made anew
                    "annotations": {ANNOTATION: costs[pod.name]},
                },
            }
            try:
                # Not forced: a cost that somebody else has set stays.
                await self._client.apply(POD, body, names.MANAGER_COSTS)
                written.append(f"{pod.name} {costs[pod.name]}")
            except ApiError as problem:
                problems.append(problem)

        # The busiest first: where time runs out, the others count as empty.
        due = sorted((pod for pod in pods if pod.name in costs), key=lambda pod: -int(costs[pod.name]))
        await self._in_time(annotate, due)
        if written:
            more = f" and {len(written) - _SHOWN} more" if len(written) > _SHOWN else ""
            log.info("%s: deletion costs before a scale-down: %s%s",
                     namespace, ", ".join(sorted(written)[:_SHOWN]), more)  # fmt: skip
        if len(written) < len(due):
            self._complain(namespace, f"{len(due) - len(written)} of {len(due)}", problems)

    def _complain(self, namespace: str, missing: str, problems: Sequence[ApiError]) -> None:
        if problems and isinstance(problems[0], Forbidden):
            if not self._told:
                log.warning("%s: the operator may not patch pods, as the chart's role lets it, so a scale-down may "
                            "take a busy pod: %s", namespace, problems[0].message)  # fmt: skip
            self._told = True
            return
        log.warning("%s: %s deletion costs are not written, so a scale-down may take a busy pod: %s",
                    namespace, missing, problems[0] if problems else "no answer in time")  # fmt: skip

    async def _in_time(self, work: Callable[[Pod], Awaitable[None]], pods: Sequence[Pod]) -> None:
        """Work on as many pods as there is time for."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def in_turn(pod: Pod) -> None:
            async with slots:
                await work(pod)

        try:
            async with asyncio.timeout(self._seconds), asyncio.TaskGroup() as group:
                for pod in pods:
                    group.create_task(in_turn(pod))
        except TimeoutError:
            log.debug("not done with all of %d pods after %.1f s", len(pods), self._seconds)
