"""`spec.autoscaling` in plans: the Deployment's number, and that what is decided of another number says nothing."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.world import World, at, make_ready, schedule

from falcon_operator.api import names
from falcon_operator.api.reasons import Reason
from falcon_operator.api.spec import Spec
from falcon_operator.decide import autoscaling
from falcon_operator.decide.autoscale.engine_law import Law, Learned
from falcon_operator.decide.autoscale.types import Config, Decision, Limit
from falcon_operator.decide.nodes import NodeFacts, NodeIndex
from falcon_operator.decide.placement import place
from falcon_operator.decide.types import Scaling, Watch
from falcon_operator.desired.gateway.objects import gateway_settings
from falcon_operator.desired.metadata import Owner

UPTO8 = {"autoscaling": {"maxReplicas": 8}}
ZERO = {"autoscaling": {"minReplicas": 0, "maxReplicas": 8}}


def decided(
    world: World, replicas: int, reason: str = "The load needs it.", limit: Limit | None = None, **more: Any
) -> None:
    """The autoscaler has decided, of the number that the Deployment has now."""
    assert world.deployment is not None
    seen = world.deployment["spec"]["replicas"]
    learned = more.pop("learned", Learned())
    world.scaling = Scaling(Decision(replicas, reason, "2 of 2 gateways", limit, **more), learned, seen)


def live(world: World) -> int:
    assert world.deployment is not None
    found: int = world.deployment["spec"]["replicas"]
    return found


def scale_by_hand(world: World, replicas: int) -> None:
    assert world.deployment is not None
    world.deployment["spec"]["replicas"] = replicas


def watched(world: World) -> Watch:
    found = world.plan().autoscale
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("spec", "first"),
    [
        (UPTO8, 1),
        (UPTO8 | {"replicas": 5}, 1),
        ({"autoscaling": {"minReplicas": 3, "maxReplicas": 8}}, 3),
        (ZERO, 1),
        (UPTO8 | {"suspend": True}, 0),
        ({"replicas": 5, "autoscaling": {"mode": "External"}}, 5),
        ({"replicas": 5, "autoscaling": {"mode": "External", "maxReplicas": 2}}, 5),
        ({"replicas": 5}, 5),
    ],
)
def test_a_new_resource_begins_with_as_many_as_are_never_to_be_less(spec: Any, first: int) -> None:
    world = World(spec=spec)
    world.step()
    assert live(world) == first
    assert world.status["desiredReplicas"] == first


def test_a_decision_moves_the_deployment_and_nothing_else_of_it() -> None:
    world = World(spec=UPTO8).serve()
    before = copy.deepcopy(world.deployment)
    decided(world, 5)
    world.step()
    after = copy.deepcopy(world.deployment)
    assert before is not None
    assert after is not None
    assert after["spec"].pop("replicas") == 5
    assert before["spec"].pop("replicas") == 1
    assert after["spec"] == before["spec"]
    said = json.loads(after["metadata"]["annotations"][names.ANNOTATION_SCALED])
    assert said == {"from": 1, "to": 5, "reason": "The load needs it.", "signal": "2 of 2 gateways"}
    assert world.spec == UPTO8, "spec.replicas is the user's"


def test_what_was_decided_of_another_number_says_nothing() -> None:
    world = World(spec=UPTO8).serve()
    decided(world, 3)
    world.step()
    scale_by_hand(world, 6)  # another operator, or a person: this decision is of 1
    world.step()
    assert live(world) == 6
    decided(world, 4)
    world.step()
    assert live(world) == 4


@pytest.mark.parametrize(("bounds", "number"), [({"minReplicas": 6}, 6), ({"maxReplicas": 2}, 2)])
def test_bounds_hold_whatever_was_decided(bounds: Any, number: int) -> None:
    world = World(spec=UPTO8).serve()
    decided(world, 4)
    world.step()
    world.roll()
    decided(world, 4)
    world.change({"autoscaling": UPTO8["autoscaling"] | bounds})
    world.settle()
    assert live(world) == number
    assert "Brought between minReplicas" in world.status["autoscaling"]["decisions"][0]["reason"]


def test_a_restart_at_any_number_writes_and_says_nothing() -> None:
    world = World(spec=UPTO8 | {"replicas": 2}).serve()
    decided(world, 5, limit=Limit.CAPACITY)
    world.step()
    world.roll()
    world.answer()
    world.settle()
    objects, status, told = copy.deepcopy(world.objects), copy.deepcopy(world.status), len(world.events)
    world.scaling = None
    world.step(seconds=3600)
    assert (world.objects, world.status, len(world.events)) == (objects, status, told)
    decided(world, 5, "The load needs 3.1 engines.")
    world.step(seconds=3600)
    assert (world.objects, world.status, len(world.events)) == (objects, status, told)


def test_a_deployment_that_somebody_deleted_comes_back_as_it_was() -> None:
    world = World(spec=UPTO8).serve()
    decided(world, 5)
    world.step()
    del world.objects["Deployment", "demo"]
    world.scaling = None
    world.step()
    assert live(world) == 5


def test_suspended_wins_and_ends_with_engines_though_zero_would_do() -> None:
    world = World(spec=ZERO).serve()
    decided(world, 4)
    world.step()
    world.roll()
    world.change(ZERO | {"suspend": True})
    decided(world, 6)
    plan = world.step()
    assert (live(world), plan.autoscale) == (0, None)
    assert world.state("AutoscalingActive") == ("False", "Suspended")
    world.scaling = None
    world.roll()
    world.settle()
    world.change(ZERO)
    world.serve()
    assert live(world) == 1
    assert world.state("Ready") == ("True", "Ready")


def test_without_autoscaling_again_the_number_is_the_users() -> None:
    world = World(spec=UPTO8).serve()
    decided(world, 5)
    world.step()
    world.change({"replicas": 3})
    world.scaling = None
    plan = world.step()
    assert (live(world), plan.autoscale) == (3, None)
    assert "autoscaling" not in world.status
    assert names.ANNOTATION_SCALED not in (world.deployment or {})["metadata"]["annotations"]
    assert all(c["type"] != "AutoscalingActive" for c in world.status["conditions"])


def test_in_external_a_recommendation_moves_nothing() -> None:
    world = World(spec={"replicas": 2, "autoscaling": {"mode": "External", "maxReplicas": 9}}).serve()
    decided(world, 7, learned=Learned(Law(), 100, 10))
    plan = world.step()
    assert live(world) == 2
    assert plan.autoscale is not None
    assert not plan.autoscale.native
    assert "autoscaling" not in world.status
    assert world.state("AutoscalingActive") == ("True", "ScaledExternally")


def test_fewer_engines_are_the_emptiest() -> None:
    world = World(spec=UPTO8).serve()
    decided(world, 3)
    world.step()
    world.roll()
    assert world.plan().costs == ()
    decided(world, 2)
    assert {p.name for p in world.plan().costs} == {p["metadata"]["name"] for p in world.pods}


def test_what_is_looked_at() -> None:
    world = World(
        spec={
            "engine": {"maxNumSeqs": 64},
            "autoscaling": {
                "minReplicas": 2,
                "maxReplicas": 8,
                "targetUtilization": 0.5,
                "scaleDownWindow": "20m",
                "scaleToZeroAfter": "1h",
            },
        }
    )
    world.step()
    first = watched(world)
    assert not first.fleet.has_served
    assert first.fleet.replicas == 2
    world.serve()
    found = watched(world)
    assert found.config == Config(
        min_replicas=2,
        max_replicas=8,
        target=0.5,
        window=1200,
        zero_after=3600,
        per_engine=64,
        cold_start=world.status["coldStart"]["ready"],
        gpus=None,
        gateway=True,
    )
    assert [p.name for p in found.gateways] == ["demo-gateway-1", "demo-gateway-2"]
    assert [p.name for p in found.engines] == [p["metadata"]["name"] for p in world.pods]
    assert (found.native, found.version, found.fleet.has_served) == (True, "0.33.0", True)
    assert found.fleet == replace(found.fleet, replicas=2, ready=2, starting=(), unplaced=0)


def test_engines_on_their_way_are_counted_with_their_age() -> None:
    world = World(spec=UPTO8).serve()
    decided(world, 4)
    world.step()
    schedule(world.add_pod(), at(0))
    lost = world.add_pod()
    lost["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
    world.add_pod()  # nobody has looked at it yet
    world.step(seconds=30)
    fleet = watched(world).fleet
    assert (fleet.replicas, fleet.ready, fleet.starting, fleet.unplaced) == (4, 1, (30.0,), 1)


def test_a_rollout_pauses_the_autoscaler_but_not_the_first_engine() -> None:
    world = World(spec=ZERO).serve()
    world.change(ZERO | {"engine": {"maxNumSeqs": 8}})
    world.step()
    assert watched(world).config.paused == autoscaling.PAUSED
    decided(world, 0)
    world.step()
    assert live(world) == 0
    assert watched(world).config.paused is None, "the old pod still leaves, and a request may be waiting"


def gpu_node(name: str, gpus: str | None, **labels: str) -> NodeFacts:
    said = {"nvidia.com/gpu.product": "NVIDIA-B200", "nvidia.com/gpu.memory": "183359", "pool": "a", **labels}
    said |= {"nvidia.com/gpu.compute.major": "10", "nvidia.com/gpu.compute.minor": "0"}
    return NodeFacts(name, said, {} if gpus is None else {"nvidia.com/gpu": gpus})


@pytest.mark.parametrize(
    ("spec", "nodes", "holds"),
    [
        ({}, ["8", "4"], 12),
        ({"gpu": {"count": 3}}, ["8", "4", "2"], 3),
        ({}, [], 1),  # its pod is what a cluster autoscaler sees
        ({}, None, None),
        ({"engine": {"device": "cpu"}}, ["8"], None),
        ({"gpu": {"claims": [{"name": "gpu", "resourceClaimName": "x"}]}}, ["8"], None),
        ({"scheduling": {"nodeSelector": {"pool": "b"}}}, ["8"], 1),
    ],
)
def test_how_many_engines_the_gpus_hold(spec: Any, nodes: list[str] | None, holds: int | None) -> None:
    parsed = Spec.model_validate(spec)
    index = None if nodes is None else NodeIndex(gpu_node(f"node-{i}", n) for i, n in enumerate(nodes))
    assert autoscaling.room(parsed, place(parsed, "0.33.0", index), index) == holds


def test_a_node_that_comes_is_counted_at_once() -> None:
    spec, index = Spec(), NodeIndex([gpu_node("node-1", "8")])
    assert autoscaling.room(spec, place(spec, "0.33.0", index), index) == 8
    index.put(gpu_node("node-2", "4"))
    assert autoscaling.room(spec, place(spec, "0.33.0", index), index) == 12


def test_the_gateways_have_room_for_all_engines_at_once() -> None:
    world = World()
    owner, config = Owner.of(world.resource()), world.renderer.config
    slots = [
        gateway_settings(Spec.model_validate(spec), owner, config, 1).slots
        for spec in ({"replicas": 40}, UPTO8 | {"replicas": 40}, {"autoscaling": {"maxReplicas": 40}})
    ]
    assert slots == [128, 32, 128], "a scale-up would reload them else"


def test_ready_stays_while_an_autoscaler_adds_and_removes() -> None:
    world = World(spec={"autoscaling": {"minReplicas": 2, "maxReplicas": 8}})
    world.step()
    world.roll_gateway()
    make_ready(world.add_pod(), world.now)
    world.answer()
    world.step()
    assert world.state("Ready")[0] == "False", "minReplicas have never served"
    world.serve()
    decided(world, 5)
    world.step()
    schedule(world.add_pod(), at(0))
    world.step()
    assert world.state("Ready") == ("True", "Ready")
    assert world.condition("Ready")["message"].startswith("2 of 5 pods ready.")
    assert world.state("Reconciling") == ("True", "Scaling")
    assert world.state("Available")[0] == "True"
    world.roll()
    world.answer()
    decided(world, 2)
    world.step()
    assert world.state("Ready") == ("True", "Ready"), "three leave"
    world.pods[:] = world.pods[:1]
    world.step()
    assert world.state("Ready")[0] == "False"


def test_scaled_to_zero_says_who_did_it_and_what_brings_engines_back() -> None:
    world = World(spec=ZERO).serve()
    decided(world, 0, "There was no request for 1800 s.")
    world.step()
    world.roll()
    world.settle()
    words = "No requests for 30m: no engine runs. The next request is held by the gateway and starts one."
    for kind in ("Ready", "Available", "Progressing"):
        condition = world.condition(kind)
        assert (condition["status"], condition["reason"]) == ("False", Reason.SCALED_TO_ZERO)
        assert condition["message"] == words
    assert world.state("Reconciling") == ("False", "Reconciled")
    assert world.state("Stalled") == ("False", "NotStalled")
    assert world.state("GatewayReady") == ("True", "GatewayReady")
    decided(world, 1, "A request waits.")
    world.step()
    assert live(world) == 1
    assert world.state("Ready")[0] == "False"
    world.roll()
    world.answer()
    world.settle()
    assert world.state("Ready") == ("True", "Ready")
