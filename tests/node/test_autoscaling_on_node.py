"""The autoscaler on the real node, with engines that only count: more of them, none, and back, with no request lost.

`make bench-autoscale-live` measures the same.
"""

import asyncio
from collections import Counter
from random import Random

import httpx
import pytest
from benchmarks.autoscale.live import react, wake
from tests.load.arrivals import Arrivals, poisson
from tests.load.client import Outcome
from tests.load.cluster import until
from tests.load.scaling import scaled

pytestmark = pytest.mark.node

# Twice what one engine can do: what it can is not learned yet, so that what waits has to tell.
RATE, SECONDS = 30.0, 15.0
ROUNDS = 1


def lost(outcomes: list[Outcome]) -> Counter[str]:
    return Counter(f"{outcome.kind}: {outcome.detail}" for outcome in outcomes if outcome.kind != "ok")


def test_load_gets_a_second_engine_and_no_request_is_lost(client: httpx.Client) -> None:
    async def run() -> list[Outcome]:
        async with scaled(client, {"maxReplicas": 2}, gateways=2) as resource:
            arrivals = poisson(Random(1), RATE, 0.0, SECONDS, react.ANSWER, react.PROMPT)
            clients = await Arrivals.begin([resource.address], arrivals)
            try:
                await resource.asked_for(2, SECONDS)
                outcomes = await clients.end()
            finally:
                clients.kill()
            await resource.serving(2)
            await until(lambda: resource.cluster.status()["readyReplicas"] == 2, "two engines in the status", 30)
            return outcomes

    assert not lost(asyncio.run(run()))


def test_the_last_engine_goes_and_the_first_request_brings_it_back(client: httpx.Client) -> None:
    async def run() -> tuple[wake.Wake, list[Outcome]]:
        async with scaled(client, wake.AUTOSCALING) as resource:
            woken = await wake.wake(resource)
            return woken, await wake.race_on(resource, rounds=ROUNDS, seed=1)

    woken, raced = asyncio.run(run())
    assert woken.ok
    assert woken.write < 1.0, "a held request is noticed at once"
    assert len(raced) == ROUNDS * wake.AT_ONCE
    assert not lost(raced)
