"""How soon a step of the load is answered: steady requests, and from one moment on eight times as many."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from random import Random

import httpx
from tests.load.arrivals import Arrival, Arrivals, poisson
from tests.load.scaling import EACH, PROMPT_RATE, SEQUENCES, STEP, Scaled, scaled

from falcon_operator.decide.autoscale.engine_law import Engine, Law

PROMPT, ANSWER = 100, 20
RATE, FACTOR = 8.0, 8
# First some more, from which it is learned what these engines can do.
LEARN_RATE, LEARN_SECONDS = 11.0, 25.0
WARM_SECONDS, STEP_SECONDS = 60.0, 15.0
TARGET, MOST = 0.7, 10
# Where engines are used less than this, none is added: half way between the target and all of the time.
BORNE = (1 + TARGET) / 2
FIRST_LIMIT, RIGHT_LIMIT = 1.0, 3.0


@dataclass(frozen=True)
class Reaction:
    """One step. Times are seconds from it to the first write of more replicas, and to that of enough of them."""

    before: int
    kept: int
    first: float
    enough: float
    writes: int
    lost: int
    reasons: tuple[str, ...] = ()  # of each change of the number, with the second of it

    @property
    def met(self) -> bool:
        """Whether both limits are, with about as many engines as the law asks for."""
        about = self.kept <= engines(RATE * FACTOR, TARGET) + 2
        return self.first <= FIRST_LIMIT and self.enough <= RIGHT_LIMIT and about and not self.lost


def engines(rate: float, use: float) -> int:
    """The engines that so many requests a second need, by the law of these engines, to be used so much of the time."""
    engine = Engine.of(Law(PROMPT_RATE, STEP, EACH), PROMPT, ANSWER, SEQUENCES)
    return math.ceil(rate / engine.rate / use)


async def react(client: httpx.Client, seed: int) -> Reaction:
    """One step on a new resource."""
    async with scaled(client, {"maxReplicas": MOST, "targetUtilization": TARGET}, gateways=2) as resource:
        return await _step(resource, seed)


def requests(seed: int) -> list[Arrival]:
    """Steady requests, and from one moment on eight times as many."""
    random, found = Random(seed), list[Arrival]()
    for rate, begin, end in (
        (LEARN_RATE, 0.0, LEARN_SECONDS),
        (RATE, LEARN_SECONDS, WARM_SECONDS),
        (RATE * FACTOR, WARM_SECONDS, WARM_SECONDS + STEP_SECONDS),
    ):
        found += poisson(random, rate, begin, end, ANSWER, PROMPT)
    return found


async def _step(resource: Scaled, seed: int) -> Reaction:
    clients = await Arrivals.begin([resource.address], requests(seed))
    try:
        outcomes = await clients.end()
    finally:
        clients.kill()
    await asyncio.sleep(0)  # what the watch has read is written down
    moment = clients.begun + WARM_SECONDS
    before = resource.seen.replicas_at(moment)
    writes = [(at, count) for at, count in resource.seen.replicas if moment < at <= moment + STEP_SECONDS]
    more = [at - moment for at, count in writes if count > before]
    kept = writes[-1][1] if writes else before
    enough = [at - moment for at, count in writes if count >= engines(RATE * FACTOR, BORNE)]
    return Reaction(
        before=before,
        kept=kept,
        first=more[0] if more else math.inf,
        enough=enough[0] if enough else math.inf,
        writes=len(writes),
        lost=sum(outcome.kind != "ok" for outcome in outcomes),
        reasons=tuple(f"{at - moment:+.2f} s: {reason}" for at, reason in resource.seen.reasons),
    )
