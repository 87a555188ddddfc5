"""An engine whose node or network is gone for good: nothing says so, and no client hangs for an hour."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.gateway.haproxies import HAProxy

ROOT = Path(__file__).parents[2]
NETWORK = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


@pytest.fixture(scope="session")
def network() -> list[str]:
    """What starts a command in a network of its own, whose packets may be dropped."""
    tried = subprocess.run(
        [*NETWORK, "nft", "add", "table", "ip", "tried"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"no network of its own with packet filter on this machine: {tried.stderr.strip()}")
    return NETWORK


def test_streams_on_an_engine_that_vanished_end_and_new_requests_do_not_suffer(
    haproxy: HAProxy, network: list[str], tmp_path: Path
) -> None:
    places = [str(tmp_path / "gateway"), str(haproxy.folder)]
    command = [sys.executable, "-m", "tests.gateway.vanish", *places, "1", "1", "3"]
    environment = haproxy.environment | {"PYTHONPATH": f"{ROOT}/operator:{ROOT}"}
    done = subprocess.run(
        [*network, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stderr.splitlines()[-1])
    assert found["fresh"] == [200] * 6
    assert found["slowest"] < 10
    # a probe after 1 s of silence, three more: the client learns that its answer is not whole
    assert found["stream"] < 15
    assert found["early"] < 15
