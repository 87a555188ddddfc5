"""The zero-loss scenarios on the real node, a small number of requests each; `make bench-loss` runs many of all."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from tests.cluster import kubeapi
from tests.load.loss import REAL_LONG, REAL_SHORT, Options, run, table
from tests.load.scenarios import REAL, SCENARIOS

pytestmark = pytest.mark.node

# As many as the testbed's node has by default.
GPUS = 2
FEW = Options(
    requests=600,
    long={"clients": 15, "ramp": 2.0, "ask": {"tokens": 50, "pace": 0.1}},
    short={"clients": 15, "ramp": 1.0, "ask": {"tokens": 5, "pace": 0.02}},
)


@pytest.fixture
def client(operator: None) -> Iterator[httpx.Client]:
    with kubeapi.connect() as connection:
        yield connection


FEW_REAL = Options(requests=40, engine=REAL, long=REAL_LONG, short=REAL_SHORT)


# Engines of 0.26 refuse new connections while they drain, those of 0.32 answer them with an error.
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rollout-one-gpu", FEW_REAL),
        ("scale-down", replace(FEW, engine="0.26")),
        ("gateway-rolled", FEW),
        ("engine-killed", FEW),
    ],
    ids=["rollout-one-gpu-vllm", "scale-down-0.26", "gateway-rolled", "engine-killed"],
)
def test_a_disruption_costs_no_more_than_it_may(client: httpx.Client, name: str, options: Options) -> None:
    scenario = SCENARIOS[name]
    row = asyncio.run(run(client, replace(scenario, replicas=min(scenario.replicas, GPUS)), options))
    assert row.met, "\n".join(table([row]))
