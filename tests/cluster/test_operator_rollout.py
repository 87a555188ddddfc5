"""How pods are replaced on a real API server by a real Deployment controller; kwok plays the pods."""

from typing import Any

import pytest
from testbed.lab.gpunodes import Card
from tests.cluster.conftest import Start
from tests.cluster.test_operator_nodes import add_node, resource  # noqa: F401
from tests.cluster.world import QUIET_SECONDS, RESOURCES, AuditLog, World, wait_for, wait_quiet

from falcon_operator.api import names
from falcon_operator.kube.resources import EVENT

pytestmark = [pytest.mark.cluster, pytest.mark.alone]


def card(count: int) -> Card:
    return Card("NVIDIA-H200", 143771, "hopper", (9, 0), count)


def foretold(world: World, words: str) -> bool:
    """Whether an event says so."""
    events = world.client.get(EVENT.path(world.namespace)).raise_for_status().json()["items"]
    return any(words in (event.get("message") or "") for event in events)


@pytest.mark.parametrize(
    ("gpus", "surge", "words"), [(2, 1, "a GPU is free on node"), (1, 0, "no GPU is free on the node")]
)
def test_a_new_pod_starts_first_only_where_a_gpu_is_free(
    world: World,
    start: Start,
    audit: AuditLog,
    add_node: Any,  # noqa: F811
    gpus: int,
    surge: int,
    words: str,
) -> None:
    name = add_node(card(gpus))
    size = {"status": {"capacity": {"nvidia.com/gpu": str(gpus)}, "allocatable": {"nvidia.com/gpu": str(gpus)}}}
    world.merge("Node", name, size, "status")
    start()
    resource(world)
    world.wait_ready("web")
    world.settled("web")
    resource(world, podMetadata={"annotations": {"example.com/new": "1"}})
    wait_for(lambda: (world.get("Deployment", "web") or {})["metadata"]["generation"] > 1, "the change", 30)
    deployment = world.get("Deployment", "web") or {}
    rolling = {"maxSurge": surge, "maxUnavailable": 1 - surge}
    assert deployment["spec"]["strategy"]["rollingUpdate"] == rolling
    world.wait_ready("web")
    wait_for(lambda: foretold(world, words), f"an event with: {words}", 30)
    wait_quiet(audit.writes, QUIET_SECONDS)
    deployment = world.get("Deployment", "web") or {}
    assert deployment["spec"]["strategy"]["rollingUpdate"] == rolling, "it stays as it has begun"
    written = [w for w in audit.writes() if w.startswith("patch deployments/web ")]
    assert written == ["patch deployments/web 201", "patch deployments/web 200"]


def test_a_revision_that_fails_for_good_is_rolled_back(world: World, start: Start, audit: AuditLog) -> None:
    """The pods of the bad revision find no node, so kwok leaves them alone; the test is their kubelet."""
    start()
    good = {"replicas": 2, "rollout": {"onFailure": "RollBack", "strategy": "Surge"}}
    world.resource("web", good)
    world.settled("web")
    before = {pod["metadata"]["uid"] for pod in world.all("Pod")}
    world.resource("web", {**good, "scheduling": {"nodeSelector": {"no-such": "node"}}})
    engines = {"labelSelector": names.selector_string("web")}

    def newcomer() -> Any:
        path = RESOURCES["Pod"].path(world.namespace)
        pods = world.client.get(path, params=engines).raise_for_status().json()["items"]
        return next((pod for pod in pods if pod["metadata"]["uid"] not in before), None)

    pod = wait_for(newcomer, "pod of the new revision", 30)
    waiting = {"reason": "InvalidImageName", "message": "couldn't parse image name"}
    status = {"name": "engine", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    status["state"] = {"waiting": waiting}
    world.merge("Pod", pod["metadata"]["name"], {"status": {"containerStatuses": [status]}}, "status")

    def stalled() -> Any:
        return world.condition("web", "Stalled")

    wait_for(lambda: stalled().get("reason") == "RolledBack", "return", 60, stalled)
    assert world.condition("web", "Available")["status"] == "True"
    wait_for(lambda: newcomer() is None, "end of the failed pod", 30)
    wait_for(lambda: stalled().get("status") == "True", "end of the return", 60, stalled)
    wait_quiet(audit.writes, QUIET_SECONDS)
    resource_now = world.get(names.KIND, "web") or {}
    assert resource_now["status"]["revision"]["failed"] == pod["metadata"]["labels"][names.LABEL_REVISION]
    assert before <= {p["metadata"]["uid"] for p in world.all("Pod")}, "no pod that served was touched"
    assert foretold(world, "was given up"), "an event says so"

    world.resource("web", good)
    world.wait_ready("web")
    assert before <= {p["metadata"]["uid"] for p in world.all("Pod")}
