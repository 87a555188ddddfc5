"""How soon a step of the load is answered: steady requests, and from one moment on eight times as many."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from random import Random

import httpx
from tests.load.arrivals import Arrivals, poisson
from tests.load.scaling import EACH, PROMPT_RATE, SEQUENCES, STEP, Scaled, scaled

from falcon_operator.decide.autoscale.engine_law import Engine, Law

PROMPT, ANSWER = 100, 20
RATE, FACTOR = 5.0, 8
WARM_SECONDS, STEP_SECONDS = 30.0, 20.0
TARGET, MOST = 0.7, 10
FIRST_LIMIT, RIGHT_LIMIT = 1.0, 3.0


@dataclass(frozen=True)
class Reaction:
    """One step. Times are seconds from it to the first write of more replicas, and to that of the number it kept."""

    before: int
    kept: int
    first: float
    right: float
    writes: int
    lost: int

    @property
    def met(self) -> bool:
        """Whether both limits are."""
        right = abs(self.kept - expected(RATE * FACTOR)) <= 1
        return self.first <= FIRST_LIMIT and self.right <= RIGHT_LIMIT and right and not self.lost


def expected(rate: float) -> int:
    """The engines that so many requests a second need, by the law of these engines."""
    engine = Engine.of(Law(PROMPT_RATE, STEP, EACH), PROMPT, ANSWER, SEQUENCES)
    return math.ceil(rate / engine.rate / TARGET)


async def react(client: httpx.Client, seed: int) -> Reaction:
    """One step on a new resource."""
    async with scaled(client, {"maxReplicas": MOST, "targetUtilization": TARGET}, gateways=2) as resource:
        return await step(resource, seed, RATE, FACTOR)


async def step(resource: Scaled, seed: int, rate: float, factor: float) -> Reaction:
    """Steady requests, and `factor` times as many."""
    random, end = Random(seed), WARM_SECONDS + STEP_SECONDS
    steady = poisson(random, rate, 0.0, WARM_SECONDS, ANSWER, PROMPT)
    after = poisson(random, rate * factor, WARM_SECONDS, end, ANSWER, PROMPT)
    clients = await Arrivals.begin([resource.address], [*steady, *after])
    try:
        outcomes = await clients.end()
    finally:
        clients.kill()
    await asyncio.sleep(0)  # what the watch has read is written down
    moment = clients.begun + WARM_SECONDS
    before = resource.seen.replicas_at(moment)
    writes = [(at, count) for at, count in resource.seen.replicas if moment < at <= clients.begun + end]
    more = [at - moment for at, count in writes if count > before]
    kept = writes[-1][1] if writes else before
    return Reaction(
        before=before,
        kept=kept,
        first=more[0] if more else math.inf,
        right=writes[-1][0] - moment if writes else math.inf,
        writes=len(writes),
        lost=sum(outcome.kind != "ok" for outcome in outcomes),
    )
