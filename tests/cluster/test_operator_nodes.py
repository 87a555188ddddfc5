"""Nodes that come, go and change: what a resource says of them follows, and nothing else happens."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testbed.lab.gpunodes import Card, kwok_node, labels
from tests.cluster.conftest import Start
from tests.cluster.process import OperatorProcess
from tests.cluster.world import AuditLog, Json, World, wait_for, wait_quiet

from falcon_operator.api import names

pytestmark = [pytest.mark.cluster, pytest.mark.alone]

H200 = Card("NVIDIA-H200", 143771, "hopper", (9, 0), 8)
L4 = Card("NVIDIA-L4", 23034, "ada", (8, 9), 1)
OLD_DRIVER = {"nvidia.com/cuda.driver-version.major": "470", "nvidia.com/cuda.driver.major": "470"}
DRIVER = {"nvidia.com/cuda.driver-version.major": "580", "nvidia.com/cuda.driver.major": "580"}
OWN = "falcon.test/namespace"

AddNode = Callable[..., str]


@pytest.fixture
def add_node(world: World) -> Iterator[AddNode]:
    """Adds GPU nodes that kwok plays and that belong to this test; they are removed afterwards."""
    made: list[str] = []

    def add(card: Card = H200, *, wait: bool = True) -> str:
        name = f"{world.namespace}-{len(made)}"
        body = kwok_node(1, tainted=False)
        body["metadata"]["name"] = name
        body["metadata"]["labels"] |= labels(card, card.count) | {OWN: world.namespace, "kubernetes.io/hostname": name}
        world.create(body)
        made.append(name)
        if wait:
            wait_for(lambda: is_ready(world, name), f"Ready node {name}", 30, lambda: world.get("Node", name))
        return name

    yield add
    for name in made:
        if world.get("Node", name) is not None:
            world.delete("Node", name)


def is_ready(world: World, name: str) -> bool:
    """Whether a node reports, and the taint of one that does not yet has been taken from it."""
    node = world.get("Node", name) or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions") or ())
    return ready and not node["spec"].get("taints")


def resource(world: World, name: str = "web", **spec: Any) -> None:
    """A resource whose pods may go to this test's nodes alone."""
    scheduling = {"nodeSelector": {OWN: world.namespace}, "tolerations": []}
    world.resource(name, {"engine": {"version": "0.33.0"}, "scheduling": scheduling, **spec})


def compatible(world: World, status: str, reason: str, words: str = "", name: str = "web") -> Json:
    """GPUCompatible, once it is so."""

    def there() -> Json | None:
        found = world.condition(name, "GPUCompatible")
        alike = (found.get("status"), found.get("reason")) == (status, reason)
        return found if alike and words in found["message"] else None

    return wait_for(there, f"GPUCompatible={status}, {reason} {words}", 30, lambda: world.get(names.KIND, name))


def nodes(world: World, name: str = "web") -> Json:
    found: Json = (world.get(names.KIND, name) or {})["status"]["nodes"]
    return found


def passes(operator: OperatorProcess) -> float:
    return operator.metric("controller_runtime_reconcile_total")


def test_a_node_that_comes_is_seen_and_taken(world: World, start: Start, add_node: AddNode) -> None:
    start()
    resource(world)
    compatible(world, "False", "NoCompatibleNode")
    assert world.condition("web", "Ready")["reason"] == "NoCompatibleNode"
    assert nodes(world)["eligible"] == 0
    assert wait_for(lambda: world.all("Pod"), "pod for a cluster autoscaler to see")
    add_node()
    condition = compatible(world, "True", "CompatibleNodes")
    assert "1 node can run an engine: NVIDIA-H200 (1 node) runs NVFP4 weight-only" in condition["message"]
    status = world.wait_ready("web")["status"]
    assert status["nodes"]["eligible"] == 1
    (capacity,) = [entry for entry in status["capacity"] if entry["product"] == "NVIDIA-H200"]
    assert capacity["predicted"]["tokens"] > 1_000_000


def test_a_node_that_changes_or_goes_is_seen(world: World, start: Start, add_node: AddNode) -> None:
    start()
    name = add_node()
    resource(world, suspend=True)
    compatible(world, "True", "CompatibleNodes")
    world.merge("Node", name, {"metadata": {"labels": OLD_DRIVER}})
    compatible(world, "False", "NoCompatibleNode", "driver 470 < 580")
    world.merge("Node", name, {"metadata": {"labels": DRIVER}})
    compatible(world, "True", "CompatibleNodes")
    world.merge("Node", name, {"spec": {"unschedulable": True}})
    compatible(world, "False", "NoCompatibleNode", name)
    world.merge("Node", name, {"spec": {"unschedulable": False}})
    compatible(world, "True", "CompatibleNodes")
    world.delete("Node", name)
    compatible(world, "False", "NoCompatibleNode")
    assert nodes(world)["eligible"] == 0


def test_nodes_that_went_while_the_operator_was_down_are_not_remembered(
    world: World, start: Start, add_node: AddNode
) -> None:
    operator = start()
    name = add_node()
    resource(world, suspend=True)
    compatible(world, "True", "CompatibleNodes")
    operator.kill()
    world.delete("Node", name)
    start()
    compatible(world, "False", "NoCompatibleNode")


def test_heartbeats_and_labels_of_nobody_cause_no_pass(world: World, start: Start, add_node: AddNode) -> None:
    operator = start()
    name = add_node()
    resource(world, suspend=True)
    resource(world, "cpu", suspend=True, engine={"device": "cpu"})
    compatible(world, "True", "CompatibleNodes")
    compatible(world, "True", "DevelopmentDevice", name="cpu")
    before = wait_quiet(lambda: passes(operator), 2)
    for number in range(20):
        world.merge("Node", name, {"metadata": {"annotations": {"beat": str(number)}, "labels": {"rack": str(number)}}})
        conditions = (world.get("Node", name) or {})["status"]["conditions"]
        beating = [{**c, "lastHeartbeatTime": f"2026-01-01T00:00:{number:02}Z"} for c in conditions]
        world.merge("Node", name, {"status": {"conditions": beating}}, subresource="status")
    # The watch tells in order: when this has been seen, all that was before it has been, too.
    world.merge("Node", name, {"metadata": {"labels": OLD_DRIVER}})
    compatible(world, "False", "NoCompatibleNode", "driver 470 < 580")
    assert passes(operator) - before <= 3, "the pass for the driver, and its status' echo; none for the CPU's resource"


def test_many_nodes_are_few_passes_and_few_writes(
    world: World, start: Start, add_node: AddNode, audit: AuditLog
) -> None:
    operator = start()
    resource(world, suspend=True)
    compatible(world, "False", "NoCompatibleNode")
    before, written = passes(operator), len(audit.writes(world.namespace))
    for _ in range(40):
        add_node(wait=False)
    wait_for(lambda: nodes(world)["eligible"] == 40, "status.nodes of all", 30, lambda: nodes(world))
    assert passes(operator) - before < 40
    assert len(audit.writes(world.namespace)) - written < 20


@pytest.mark.parametrize("reads_nodes", [False])
def test_without_the_right_to_read_nodes_all_else_works(world: World, start: Start, reads_nodes: bool) -> None:
    operator = start()
    world.resource("idle", {"suspend": True})
    message = compatible(world, "Unknown", "NodesNotReadable", name="idle")["message"]
    assert "rbac.nodes" in message
    world.resource("web")
    world.wait_ready("web")
    assert world.condition("web", "GPUCompatible")["reason"] == "PodsScheduled"
    log = operator.tail(500)
    assert log.count("nodes cannot be read") == 1
    assert "Traceback" not in log
    assert operator.stop() == 0


def test_refuse_waits_for_a_gpu_that_holds_what_is_asked(world: World, start: Start, add_node: AddNode) -> None:
    add_node(L4)  # before the operator, which else may hear of it after the resource
    start()
    resource(world, fit="Refuse", replicas=1)
    stalled = wait_for(
        lambda: c if (c := world.condition("web", "Stalled")).get("status") == "True" else None, "Stalled"
    )
    assert stalled["reason"] == "SequencesExceedMemory"
    assert "NVIDIA-L4" in stalled["message"]
    assert world.get("Deployment", "web") is None
    add_node(H200)
    world.wait_ready("web")
    assert world.condition("web", "Stalled")["status"] == "False"
