"""What is said of the nodes and of what fits there, before any pod exists and while nodes come and go."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.world import Json, World, make_ready, schedule

from falcon_operator.api.status import Status
from falcon_operator.decide.nodes import NodeFacts, NodeIndex
from falcon_operator.decide.report import Clamped, Report

SPEC: Json = {"engine": {"version": "0.33.0"}}


def node(
    name: str, product: str = "NVIDIA-H200", gib: float = 140.4, capability: str = "9.0", driver: str = "580"
) -> NodeFacts:
    major, _, minor = capability.partition(".")
    return NodeFacts(
        name=name,
        labels={
            "nvidia.com/gpu.product": product,
            "nvidia.com/gpu.memory": str(int(gib * 1024)),
            "nvidia.com/gpu.replicas": "1",
            "nvidia.com/gpu.compute.major": major,
            "nvidia.com/gpu.compute.minor": minor,
            "nvidia.com/cuda.driver-version.major": driver,
        },
        allocatable={"nvidia.com/gpu": "8"},
    )


H200 = node("h200")
B200 = node("b200", "NVIDIA-B200", 179, "10.0")
L4 = node("l4", "NVIDIA-L4", 22.5, "8.9")
UNLABELLED = replace(H200, name="bare", labels={})
WORKER = NodeFacts("worker", {"zone": "a"}, {})


def world(*nodes: NodeFacts, **spec: Any) -> World:
    return World(spec={**SPEC, **spec}, nodes=NodeIndex(nodes))


def said(world: World, kind: str) -> str:
    message: str = world.condition(kind)["message"]
    return message


def test_which_nodes_and_which_kernel_is_said_in_the_first_status() -> None:
    w = world(H200, B200, node("old", driver="570"), WORKER)
    w.step()
    assert w.state("GPUCompatible") == ("True", "CompatibleNodes")
    message = said(w, "GPUCompatible")
    assert message.startswith("2 nodes can run an engine: ")
    assert "NVIDIA-H200 (1 node) runs NVFP4 weight-only (" in message
    assert "NVIDIA-B200 (1 node) runs NVFP4 natively (" in message
    assert "Refused: driver 570 < 580 (old)." in message
    assert w.status["nodes"] == {"eligible": 2, "rejected": [{"name": "old", "reason": "driver 570 < 580"}]}
    assert w.state("Fits") == ("True", "FitPredicted")
    assert "NVIDIA-H200: " in said(w, "Fits")
    capacity = {entry["product"]: entry["predicted"] for entry in w.status["capacity"]}
    assert list(capacity) == ["NVIDIA-B200", "NVIDIA-H200"]
    assert capacity["NVIDIA-B200"]["tokens"] > capacity["NVIDIA-H200"]["tokens"] > 2_000_000
    assert "NVFP4 will be computed on NVIDIA-" in said(w, "EngineSupported")
    assert w.deployment is not None
    Status.model_validate(w.status)


def test_the_order_in_which_nodes_came_does_not_matter() -> None:
    nodes = [H200, B200, node("h200-2"), node("old", driver="570"), UNLABELLED, L4]
    one, other = world(*nodes), world(*reversed(nodes))
    one.step()
    other.step()
    assert one.status == other.status


def test_without_a_node_that_can_pods_are_made_for_an_autoscaler_to_see() -> None:
    w = world(node("old", driver="570"), node("older", driver="570"))
    w.step()
    assert w.deployment is not None
    assert w.deployment["spec"]["replicas"] == 1
    for kind in ("Ready", "Available", "GPUCompatible"):
        assert w.state(kind) == ("False", "NoCompatibleNode")
        assert "driver 570 < 580 (old, older)" in said(w, kind)
    assert w.state("Stalled")[0] == "False", "a node may come"
    assert w.state("Reconciling")[0] == "True"
    assert [(e.type, e.reason) for e in w.events] == [("Warning", "NoCompatibleNode")]
    pod = w.add_pod()
    message = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
         "lastTransitionTime": "2026-05-01T12:00:11Z"}
    ]  # fmt: skip
    w.step()
    assert w.state("Ready") == ("False", "NoCompatibleNode"), "it has the nodes' own reasons"
    assert w.nodes is not None
    w.nodes.put(H200)
    w.step()
    assert w.state("GPUCompatible") == ("False", "Unschedulable"), "the scheduler has not looked again yet"
    schedule(pod, "2026-05-01T12:00:31Z")
    w.step()
    assert w.state("GPUCompatible") == ("True", "CompatibleNodes")


def test_a_cluster_without_gpus_says_what_to_do() -> None:
    w = world(WORKER)
    w.step()
    assert w.state("GPUCompatible") == ("False", "NoCompatibleNode")
    assert "device plugin" in said(w, "GPUCompatible")
    assert w.status["nodes"] == {"eligible": 0}
    assert "capacity" not in w.status


def test_labels_that_are_missing_refuse_nobody() -> None:
    w = world(UNLABELLED)
    w.step()
    assert w.state("GPUCompatible") == ("Unknown", "NodeLabelsMissing")
    assert "GPU feature discovery" in said(w, "GPUCompatible")
    assert "bare" in said(w, "GPUCompatible")
    assert w.state("Fits") == ("Unknown", "NotEvaluated")
    assert w.state("Ready") == ("False", "Starting")
    w.roll()
    w.pods[0]["spec"]["nodeName"] = "bare"
    w.step()
    assert w.state("GPUCompatible") == ("True", "PodsScheduled")


def test_nodes_that_may_not_be_read_are_said_with_right_and_value() -> None:
    w = World(spec=SPEC)
    w.step()
    assert w.state("GPUCompatible") == ("Unknown", "NodesNotReadable")
    assert "list and watch on nodes" in said(w, "GPUCompatible")
    assert "rbac.nodes" in said(w, "GPUCompatible")
    assert "nodes" not in w.status
    w.serve()
    assert w.state("Ready") == ("True", "Ready")
    assert w.state("GPUCompatible") == ("True", "PodsScheduled")


@pytest.mark.parametrize("gpu", [{}, {"count": 0}], ids=["unset", "none"])
def test_a_cpu_engine_says_nothing_of_nodes(gpu: Json) -> None:
    w = world(H200, engine={"device": "cpu"}, gpu=gpu)
    w.step()
    assert w.state("GPUCompatible") == ("True", "DevelopmentDevice")
    assert "nodes" not in w.status
    assert "capacity" not in w.status


def test_fewer_sequences_where_the_gpu_holds_fewer() -> None:
    w = world(L4)
    w.step()
    assert w.state("Fits") == ("True", "Clamped")
    message = said(w, "Fits")
    assert "NVIDIA-L4: max_num_seqs is lowered from 256 to " in message
    given = w.status["capacity"][0]["predicted"]["blocks"]
    assert f"from 256 to {given:,}" in message
    assert w.engine()["image"], "its pods are made"


def test_a_kind_of_gpu_in_several_sizes_is_predicted_by_its_smallest() -> None:
    w = world(H200, node("less", gib=100))
    w.step()
    both = w.status["capacity"]
    w = world(node("less", gib=100))
    w.step()
    assert w.status["capacity"] == both


def test_refuse_makes_no_pods_and_says_how_many_would_fit() -> None:
    w = world(L4, fit="Refuse")
    plan = w.step()
    assert (plan.apply, plan.delete) == ((), ())
    for kind, status in (("Stalled", "True"), ("Ready", "False"), ("Fits", "False")):
        assert w.state(kind) == (status, "SequencesExceedMemory")
    assert "lower it to " in said(w, "Stalled")
    assert "spec.fit to Clamp" in said(w, "Stalled")
    assert w.status["nodes"]["eligible"] == 0
    Status.model_validate(w.status)
    w.settle()
    assert [e.reason for e in w.events] == ["SequencesExceedMemory", "NoCompatibleNode"]
    assert w.nodes is not None
    w.nodes.put(H200)
    w.step()
    assert w.state("Stalled")[0] == "False", "a node that holds them has come"
    assert w.deployment is not None


def test_refuse_needs_one_kind_of_gpu_that_holds_them() -> None:
    w = world(L4, H200, fit="Refuse")
    w.step()
    assert w.state("GPUCompatible") == ("True", "CompatibleNodes")
    assert w.state("Fits") == ("True", "FitPredicted")
    assert w.status["nodes"]["eligible"] == 1
    assert w.deployment is not None


def test_refuse_does_not_stall_over_gpus_of_unknown_memory() -> None:
    w = world(UNLABELLED, fit="Refuse")
    w.step()
    assert w.state("Stalled")[0] == "False"
    assert w.deployment is not None


def test_what_runs_is_left_as_it_is_when_more_is_asked_than_fits() -> None:
    w = world(L4, fit="Refuse", engine={"version": "0.33.0", "maxNumSeqs": 2}).serve()
    assert w.state("Ready") == ("True", "Ready")
    objects = dict(w.objects)
    w.change({**SPEC, "fit": "Refuse"})
    w.settle()
    assert w.state("Stalled") == ("True", "SequencesExceedMemory")
    assert w.state("Available")[0] == "True"
    assert w.objects == objects
    w.change({**SPEC, "fit": "Refuse", "engine": {"version": "0.33.0", "maxNumSeqs": 2}})
    w.settle()
    assert w.state("Ready") == ("True", "Ready")


def test_an_engine_that_has_started_is_believed_more_than_sums() -> None:
    w = world(H200, fit="Refuse").serve()
    assert w.nodes is not None
    w.nodes.remove("h200")
    w.nodes.put(replace(L4, name="node-1"))
    w.settle()
    assert w.state("Stalled")[0] == "False"
    assert w.state("Ready") == ("True", "Ready")
    assert w.state("Fits") == ("True", "EngineStarted")


def test_what_the_engine_got_is_said_after_its_start() -> None:
    w = world(L4)
    w.step()
    w.roll()
    w.answer()
    ((uid, facts),) = w.engines.items()
    w.engines[uid] = replace(facts, report=Report(clamped=Clamped(256, 99, "the GPU holds 99 blocks.")))
    w.settle()
    assert w.state("Fits") == ("True", "Clamped")
    assert "maxNumSeqs 256, lowered to 99: the GPU holds 99 blocks." in said(w, "Fits")


def test_a_pod_on_a_node_that_looked_unfit_is_where_it_is() -> None:
    w = world(node("node-1", driver="570"))
    w.step()
    make_ready(w.add_pod(), w.now)
    w.step()
    assert w.state("GPUCompatible") == ("True", "PodsScheduled")


def test_an_unknown_version_is_predicted_by_the_newest_rules() -> None:
    w = World(nodes=NodeIndex([H200]))
    w.step()
    assert w.state("EngineSupported") == ("Unknown", "EngineVersionUnknown")
    assert w.state("GPUCompatible")[0] == "True"
    assert "rules of vLLM 0.33" in said(w, "Fits")


def test_many_nodes_are_ten_in_the_status_and_a_few_words() -> None:
    many = [node(f"old-{number:03}", driver="570") for number in range(300)]
    w = world(H200, *many)
    w.step()
    assert len(w.status["nodes"]["rejected"]) == 10
    assert "driver 570 < 580 (old-000, old-001, old-002, old-003, old-004 and 295 more)" in said(w, "GPUCompatible")
    assert len(said(w, "GPUCompatible")) < 500


def test_a_node_that_comes_while_pods_start_costs_no_status_of_its_own() -> None:
    w = world(H200)
    w.step()
    w.add_pod()
    before = w.status
    assert w.nodes is not None
    w.nodes.put(B200)
    plan = w.step(seconds=1)
    assert w.status == before
    assert plan.requeue_after is not None, "it is said a little later"
    w.step(seconds=plan.requeue_after)
    assert w.status["nodes"] == {"eligible": 2}


def test_the_first_node_that_can_is_said_at_once_though_pods_are_young() -> None:
    w = world(node("old", driver="570"))
    w.step()
    w.add_pod()
    assert w.nodes is not None
    w.nodes.put(H200)
    w.step(seconds=1)
    assert w.state("GPUCompatible") == ("True", "CompatibleNodes")
    w.nodes.remove("h200")
    w.step(seconds=1)
    assert w.state("GPUCompatible") == ("False", "NoCompatibleNode")


def test_nodes_change_no_pod() -> None:
    w = world(H200).serve()
    template = w.template()
    assert w.nodes is not None
    for change in (B200, L4, node("h200", driver="570"), UNLABELLED):
        w.nodes.put(change)
        w.settle()
        assert w.template() == template
    for name in ("b200", "l4", "h200", "bare"):
        w.nodes.remove(name)
        w.settle()
        assert w.template() == template
