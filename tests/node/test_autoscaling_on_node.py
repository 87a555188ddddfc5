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
from tests.load.scaling import scaled

pytestmark = pytest.mark.node

# Two or three engines' worth, where there are two GPUs: the first engine alone has too much to do.
RATE, SECONDS = 15.0, 12.0


def lost(outcomes: list[Outcome]) -> Counter[str]:
    return Counter(f"{outcome.kind}: {outcome.detail}" for outcome in outcomes if outcome.kind != "ok")


def test_load_gets_a_second_engine_and_no_request_is_lost(client: httpx.Client) -> None:
    async def run() -> tuple[list[Outcome], dict[str, object]]:
        async with scaled(client, {"maxReplicas": 2}, gateways=2) as resource:
            arrivals = poisson(Random(1), RATE, 0.0, SECONDS, react.ANSWER, react.PROMPT)
            clients = await Arrivals.begin([resource.address], arrivals)
            try:
                await resource.asked_for(2, SECONDS)
                outcomes = await clients.end()
            finally:
                clients.kill()
            await resource.serving(2)
            return outcomes, resource.cluster.status()

    outcomes, status = asyncio.run(run())
    assert not lost(outcomes)
    assert status["replicas"] == 2


def test_the_last_engine_goes_and_the_first_request_brings_it_back(client: httpx.Client) -> None:
    async def run() -> tuple[wake.Wake, list[Outcome]]:
        async with scaled(client, wake.AUTOSCALING) as resource:
            woken = await wake.wake(resource)
            return woken, await wake.race_on(resource, rounds=2, seed=1)

    woken, raced = asyncio.run(run())
    assert woken.ok
    assert woken.write < 1.0, "a held request is noticed at once"
    assert len(raced) == 2 * wake.AT_ONCE
    assert not lost(raced)
