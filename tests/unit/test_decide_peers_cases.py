"""Eight things that go wrong, of which operators of this kind tell their users little or nothing.

Each was tried on three of them: mostly the resource's status did not name the cause, and no event ever did. Here a
condition and an event name it.
"""

from collections.abc import Callable

import pytest
from tests.unit.broken import crashed
from tests.unit.test_decide_nodes import H200
from tests.unit.test_decide_placement import unschedulable
from tests.unit.world import World, diagnosis

from falcon_operator.api.status import Status
from falcon_operator.decide.nodes import NodeIndex

NODES = NodeIndex((H200,))
NO_FLAG = diagnosis("FlagUnknown", "no flag --no-such", "Correct it in spec.engine.extraArgs.", 2)


def a_product_that_no_node_has() -> World:
    world = World(spec={"gpu": {"products": ["NVIDIA-GB300"]}}, nodes=NODES)
    world.step()
    unschedulable(world.add_pod(), "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
    return world


def the_only_gpu_taken_by_another_resource() -> World:
    world = World(nodes=NODES)
    world.step()
    unschedulable(world.add_pod(), "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    return world


def a_pod_in_crash_loop_back_off() -> World:
    world = World(nodes=NODES)
    world.step()
    crashed(1, "Traceback\nValueError: the sixth crash\n", restarts=6)(world.add_pod())
    return world


def a_change_while_the_only_gpu_is_in_use() -> World:
    world = World(nodes=NODES).serve()
    world.events.clear()
    world.change({"engine": {"maxModelLen": 4096}})
    world.step()
    unschedulable(world.add_pod(), "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    return world


def a_flag_that_the_engine_does_not_know() -> World:
    world = World(spec={"engine": {"extraArgs": ["--no-such"]}}, nodes=NODES)
    world.step()
    crashed(2, NO_FLAG)(world.add_pod())
    return world


def more_than_all_of_the_gpus_memory() -> World:
    return World(spec={"engine": {"gpuMemoryUtilization": 7}})


def less_than_no_sequences() -> World:
    return World(spec={"engine": {"maxNumSeqs": -5}})


def less_than_no_replicas() -> World:
    return World(spec={"replicas": -1})


Case = Callable[[], World]
CASES: list[tuple[Case, str, str, tuple[str, ...]]] = [
    (
        a_product_that_no_node_has,
        "GPUCompatible",
        "NoCompatibleNode",
        ("product NVIDIA-H200 is not in spec.gpu.products", "h200"),
    ),
    (the_only_gpu_taken_by_another_resource, "Ready", "Unschedulable", ("Too few nvidia.com/gpu are free",)),
    (a_pod_in_crash_loop_back_off, "Ready", "EngineFailed", ("exit code 1", "ValueError: the sixth crash")),
    (
        a_change_while_the_only_gpu_is_in_use,
        "GPUCompatible",
        "Unschedulable",
        ("Too few nvidia.com/gpu are free", "spec.gpu.count"),
    ),
    (a_flag_that_the_engine_does_not_know, "Stalled", "FlagUnknown", ("--no-such", "spec.engine.extraArgs")),
    (more_than_all_of_the_gpus_memory, "Stalled", "InvalidSpec", ("spec.engine.gpuMemoryUtilization", "7", "0.98")),
    (less_than_no_sequences, "Stalled", "InvalidSpec", ("spec.engine.maxNumSeqs", "-5")),
    (less_than_no_replicas, "Stalled", "InvalidSpec", ("spec.replicas", "-1")),
]


@pytest.mark.parametrize(("case", "kind", "reason", "words"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_a_condition_and_an_event_name_the_cause(case: Case, kind: str, reason: str, words: tuple[str, ...]) -> None:
    world = case()
    world.step(seconds=1)
    Status.model_validate(world.status)
    assert world.condition(kind)["status"] == ("True" if kind == "Stalled" else "False")
    assert world.condition(kind)["reason"] == reason
    [event] = [e for e in world.events if e.type == "Warning"]
    assert event.reason == reason
    for word in words:
        assert word in world.condition(kind)["message"]
        assert word in event.note
    assert world.condition("Ready")["status"] == "False"


def test_with_the_cause_away_it_is_ready() -> None:
    world = less_than_no_sequences()
    world.step()
    world.change({})
    world.serve()
    assert world.state("Ready") == ("True", "Ready")
    assert world.state("Stalled")[0] == "False"
