"""The zero-loss scenarios on the real node, a small number of requests each; `make bench-loss` runs many of all."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from tests.cluster import kubeapi
from tests.load.loss import Options, run, table
from tests.load.scenarios import SCENARIOS

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


@pytest.mark.parametrize("name", ["rollout-one-gpu", "scale-down", "gateway-rolled", "engine-killed"])
def test_a_disruption_costs_no_more_than_it_may(client: httpx.Client, name: str) -> None:
    scenario = SCENARIOS[name]
    row = asyncio.run(run(client, replace(scenario, replicas=min(scenario.replicas, GPUS)), FEW))
    assert row.met, "\n".join(table([row]))
