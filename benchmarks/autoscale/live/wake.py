"""From nothing to an answer: what the first request waits for, and requests that come just as the last engine goes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random

import httpx
from tests.load.arrivals import Arrival
from tests.load.client import Outcome
from tests.load.scaling import Scaled, scaled

ZERO_SECONDS = 10
AUTOSCALING = {"minReplicas": 0, "maxReplicas": 2, "scaleToZeroAfter": f"{ZERO_SECONDS}s"}
LIMIT = 0.3
TOKENS = 5
# Requests of one moment, and how far around the scaling to zero moments are.
AT_ONCE, BEFORE, AFTER = 3, 1.0, 2.0


@dataclass(frozen=True)
class Wake:
    """Seconds of one request to a resource without engines.

    `write`: until the Deployment asked for an engine; `pod`: from there until its pod was there, the Kubernetes
    controller's; `node`: until its container ran, the scheduler's and the kubelet's; `start`: until it was Ready, the
    engine's; `answer`: from there to the first token, the gateway's and the engine's.
    """

    write: float
    pod: float
    node: float
    start: float
    answer: float
    ok: bool

    @property
    def own(self) -> float:
        """What this project's control plane took: the operator's write, and the gateway's finding the engine."""
        return self.write + max(0.0, self.answer)

    @property
    def met(self) -> bool:
        """Whether the request was answered, and the limit is."""
        return self.ok and self.own <= LIMIT


async def asleep(resource: Scaled) -> None:
    """Wait until nothing is left of the engines."""
    await resource.asked_for(0)
    await resource.serving(0)


async def wake(resource: Scaled) -> Wake:
    """One request to a resource without engines."""
    await asleep(resource)
    known = set(resource.seen.created)
    [outcome] = await resource.ask(Arrival(0.1, TOKENS))
    asked, seen = outcome.began, resource.seen
    [pod] = set(seen.created) - known
    written = next(at for at, count in seen.replicas if at > asked and count > 0)
    created, started, ready = seen.created[pod], seen.started[pod], seen.ready[pod]
    first = asked + (outcome.first or 0.0)
    return Wake(
        write=written - asked,
        pod=created - written,
        node=started - created,
        start=ready - started,
        answer=first - ready,
        ok=outcome.kind == "ok",
    )


async def wakes(client: httpx.Client, repeats: int) -> list[Wake]:
    """One resource, put to sleep and woken again and again."""
    async with scaled(client, AUTOSCALING) as resource:
        return [await wake(resource) for _ in range(repeats)]


async def race_on(resource: Scaled, rounds: int, seed: int) -> list[Outcome]:
    """Requests at random moments around the scaling to zero, each after the answers of those before."""
    random, outcomes = Random(seed), list[Outcome]()
    for _ in range(rounds):
        # what was answered last is the last request, and the time until zero runs from about then
        moment = ZERO_SECONDS + random.uniform(-BEFORE, AFTER)
        burst = [Arrival(moment + random.uniform(0.0, 0.5), TOKENS) for _ in range(AT_ONCE)]
        outcomes += await resource.ask(*sorted(burst, key=lambda arrival: arrival.at))
    return outcomes


async def races(client: httpx.Client, resources: int, rounds: int) -> list[Outcome]:
    """Several resources side by side."""

    async def one(seed: int) -> list[Outcome]:
        async with scaled(client, AUTOSCALING) as resource:
            return await race_on(resource, rounds, seed)

    found = await asyncio.gather(*map(one, range(resources)))
    return [outcome for outcomes in found for outcome in outcomes]
