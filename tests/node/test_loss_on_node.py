"""The zero-loss scenarios on the real node with engines that only count, a small number of requests each.

`make bench-loss` runs many of all.
"""

from dataclasses import replace

import httpx
import pytest
from tests.load.loss import Options
from tests.node.loss import costs_no_more_than_it_may

pytestmark = pytest.mark.node

FEW = Options(
    requests=600,
    long={"clients": 15, "ramp": 2.0, "ask": {"tokens": 50, "pace": 0.1}},
    short={"clients": 15, "ramp": 1.0, "ask": {"tokens": 5, "pace": 0.02}},
)


# Engines of 0.26 refuse new connections while they drain, those of 0.32 answer them with an error.
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rollout-one-gpu", FEW),
        ("scale-down", replace(FEW, engine="0.26")),
        ("gateway-rolled", FEW),
        ("engine-killed", FEW),
    ],
    ids=["rollout-one-gpu", "scale-down-0.26", "gateway-rolled", "engine-killed"],
)
def test_a_disruption_costs_no_more_than_it_may(client: httpx.Client, name: str, options: Options) -> None:
    costs_no_more_than_it_may(client, name, options)
