"""The zero-loss scenario with a single GPU, on the real node with the real engine."""

import httpx
import pytest
from tests.load.loss import REAL_LONG, REAL_SHORT, Options
from tests.load.scenarios import REAL
from tests.node.loss import costs_no_more_than_it_may

pytestmark = pytest.mark.node


def test_the_only_engine_is_replaced_and_no_request_is_lost(client: httpx.Client) -> None:
    options = Options(requests=40, engine=REAL, long=REAL_LONG, short=REAL_SHORT)
    costs_no_more_than_it_may(client, "rollout-one-gpu", options)
