"""The API server goes away and comes back."""

import subprocess
import time

import pytest
from tests.cluster.conftest import ROOT, Start
from tests.cluster.world import World, wait_for

from falcon_operator.api import names

# kwok and the controllers take up to a minute to look at the API server again.
pytestmark = [pytest.mark.cluster, pytest.mark.alone, pytest.mark.last]

OUTAGE_SECONDS = 15


def component(action: str, name: str) -> None:
    subprocess.run([str(ROOT / "testbed/component"), action, name], check=True, capture_output=True, text=True)


def acted_on(world: World, generation: int, replicas: int) -> bool:
    resource, deployment = world.get(names.KIND, "web"), world.get("Deployment", "web")
    assert resource is not None
    assert deployment is not None
    return bool(resource["status"]["observedGeneration"] == generation and deployment["spec"]["replicas"] == replicas)


def test_an_outage_of_the_api_server_touches_no_pod_and_ends_without_help(world: World, start: Start) -> None:
    operator = start()
    world.resource("web")
    world.settled("web")
    pods = {pod["metadata"]["uid"] for pod in world.all("Pod")}
    component("stop", "kube-apiserver")
    try:
        end = time.monotonic() + OUTAGE_SECONDS
        wait_for(lambda: time.monotonic() > end or operator.exit_code is not None, "end of the outage")
        assert operator.exit_code is None, operator.tail()
    finally:
        component("start", "kube-apiserver")
    world.resource("web", {"replicas": 2})
    wait_for(lambda: acted_on(world, 2, 2), "reaction to an edit")
    assert operator.exit_code is None
    assert pods <= {pod["metadata"]["uid"] for pod in world.all("Pod")}
