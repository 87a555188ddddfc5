"""One zero-loss scenario on the testbed's node."""

import asyncio
from dataclasses import replace

import httpx
from tests.load.loss import Options, run, table
from tests.load.scenarios import SCENARIOS

# As many as the testbed's node has by default.
GPUS = 2


def costs_no_more_than_it_may(client: httpx.Client, name: str, options: Options) -> None:
    """Run it, with as many engines as there are GPUs at most."""
    scenario = SCENARIOS[name]
    row = asyncio.run(run(client, replace(scenario, replicas=min(scenario.replicas, GPUS)), options))
    assert row.met, "\n".join(table([row]))
