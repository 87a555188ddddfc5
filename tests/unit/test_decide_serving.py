"""The way to Ready and what happens to a resource that is well."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.world import NOW, SERVED, World, at, conditions, container, make_ready, renderer, schedule

from falcon_operator.api import names
from falcon_operator.api.reasons import STANDING_CONDITIONS
from falcon_operator.api.status import UNSEEN_CONDITIONS, Status
from falcon_operator.decide.reconcile import decide
from falcon_operator.decide.types import EngineFacts

CPU: dict[str, Any] = {"engine": {"device": "cpu"}}


def test_the_first_plan_makes_the_children_and_every_condition() -> None:
    world = World(status={"conditions": UNSEEN_CONDITIONS})
    plan = world.step()
    assert [(b["kind"], b["metadata"]["name"]) for b in plan.apply] == [
        ("ConfigMap", world.renderer.launcher.name),
        ("Deployment", "demo"),
        ("NetworkPolicy", "demo"),
        ("Service", "demo"),
        ("Service", "demo-engines"),
        ("ConfigMap", "demo-gateway"),
        ("Deployment", "demo-gateway"),
        ("PodDisruptionBudget", "demo-gateway"),
        ("NetworkPolicy", "demo-gateway"),
        ("PodDisruptionBudget", "demo"),
    ]
    assert [c["type"] for c in world.status["conditions"]] == [*STANDING_CONDITIONS, "GatewayReady"]
    assert {c["lastTransitionTime"] for c in world.status["conditions"]} == {at(10)}, "the placeholders' times are gone"
    assert world.status["observedGeneration"] == 1
    assert world.status["url"] == "http://demo.team.svc.cluster.local/v1"
    assert world.status["selector"] == names.selector_string("demo")
    assert world.events == [], "nothing is said before something happened"
    Status.model_validate(world.status)


def test_a_resource_that_serves_says_so_in_every_condition() -> None:
    world = World().serve()
    states = {c["type"]: c["status"] for c in world.status["conditions"]}
    assert states == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "Available": "True",
        "Progressing": "True",
        "ModelServed": "True",
        "GPUCompatible": "True",
        "Fits": "True",
        "EngineSupported": "True",
        "UpToDate": "True",
        "GatewayReady": "True",
    }
    assert "node-1" in world.condition("GPUCompatible")["message"]
    assert "maxModelLen 65536" in world.condition("Fits")["message"]
    assert "vLLM 0.33.0" in world.condition("EngineSupported")["message"]
    assert SERVED in world.condition("Ready")["message"]
    assert world.status["model"] == {"name": SERVED, "maxModelLen": 65536}
    assert world.status["engine"] == {"version": "0.33.0"}
    assert (world.status["replicas"], world.status["readyReplicas"], world.status["updatedReplicas"]) == (1, 1, 1)
    assert world.status["coldStart"] == {"scheduled": 0, "pulled": 0, "ready": 0}
    assert [(e.type, e.reason) for e in world.events] == [("Normal", "Ready")]
    assert world.status["url"] in world.events[0].note
    Status.model_validate(world.status)


def test_a_resource_at_rest_is_left_alone_also_by_an_operator_that_starts_anew() -> None:
    world = World().serve()
    before = world.status
    for engines in (dict(world.engines), {}, {"pod-1": EngineFacts("pod-1", (), None, None, "no answer")}):
        world.engines = engines
        plan = world.step(seconds=86400)
        assert plan.status == before
        assert (plan.events, plan.delete, plan.requeue_after) == ((), (), None)
        assert all(b["kind"] != "ControllerRevision" for b in plan.apply), "it is on record"


def test_a_ready_pod_is_asked_once_and_ready_waits_for_the_answer() -> None:
    world = World()
    world.step()
    world.roll()
    plan = world.step()
    assert plan.observe == ("pod-1",)
    assert world.state("Available") == ("True", "MinimumReplicasAvailable")
    assert world.state("ModelServed") == ("Unknown", "NotObserved")
    assert world.state("Ready") == ("False", "NotObserved")
    assert world.state("Reconciling")[0] == "True"
    world.engines["pod-1"] = EngineFacts("pod-1", (), None, None, "http://10.0.0.1:8000/v1/models does not answer")
    world.step()
    assert "does not answer" in world.condition("ModelServed")["message"]
    world.answer()
    assert world.step().observe == ()
    assert world.state("Ready") == ("True", "Ready")


def test_an_engine_that_serves_under_another_name_is_not_ready() -> None:
    world = World(spec={"model": {"names": ["a", "b"]}})
    world.step()
    world.roll()
    world.answer("a", "c")
    world.settle()
    assert world.state("ModelServed") == ("False", "ModelMismatch")
    assert world.state("Ready") == ("False", "ModelMismatch")
    assert "serves a, c, and not b of spec.model.names" in world.condition("Ready")["message"]


def test_what_is_waited_for_is_said_and_no_clock_runs_in_it() -> None:
    world = World()
    world.step()
    pod = world.add_pod()
    world.step(seconds=6)
    assert "waiting for a node" in world.condition("Progressing")["message"]
    schedule(pod, at(0))
    container(pod, {"waiting": {"reason": "ContainerCreating"}})
    world.step(seconds=6)
    assert "pulling its image or mounting its volumes on node node-1" in world.condition("Progressing")["message"]
    assert world.state("GPUCompatible") == ("True", "PodsScheduled")
    container(pod, {"running": {"startedAt": at(0)}})
    world.step(seconds=6)
    assert "starting its engine on node node-1" in world.condition("Progressing")["message"]
    before = world.status
    for _ in range(3):
        assert world.step(seconds=600).status == before


def test_pods_that_move_are_reported_once_they_stay() -> None:
    world = World()
    world.step()
    first = world.status
    pod = world.add_pod()
    world.now += timedelta(seconds=1)
    plan = world.plan()
    assert (plan.status, plan.requeue_after) == (first, 4)
    world.now += timedelta(seconds=4)
    plan = world.plan()
    assert plan.status["replicas"] == 1
    assert plan.requeue_after is None
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}
    ]
    world.now -= timedelta(seconds=4)
    plan = world.plan()
    assert plan.status != first, "bad news does not wait"


def test_a_pod_that_is_quickly_ready_costs_one_more_status() -> None:
    world = World()
    world.step()
    written = [world.status]
    world.add_pod()
    world.roll_gateway()
    for _ in range(3):
        world.step(seconds=1)
        written += [world.status] if world.status != written[-1] else []
    make_ready(world.pods[0], world.now)
    world.step(seconds=1)
    written += [world.status] if world.status != written[-1] else []
    world.answer()
    world.step(seconds=1)
    written += [world.status] if world.status != written[-1] else []
    assert [next(c["status"] for c in s["conditions"] if c["type"] == "Ready") for s in written] == ["False", "True"]


def test_development_on_a_cpu_says_what_it_is() -> None:
    world = World(spec=CPU)
    world.step()
    assert world.state("GPUCompatible") == ("True", "DevelopmentDevice")
    assert world.state("EngineSupported") == ("True", "DevelopmentDevice")
    assert "no NVFP4 kernels" in world.condition("EngineSupported")["message"]
    assert world.state("Fits") == ("Unknown", "NotEvaluated")


@pytest.mark.parametrize(
    ("spec", "version", "state", "words"),
    [
        ({}, None, ("Unknown", "EngineVersionUnknown"), "spec.engine.version can state it"),
        ({"engine": {"version": "0.33.0"}}, None, ("True", "ProfileFound"), "vLLM 0.33.0"),
        ({"image": {"reference": "vllm/vllm-openai:v0.26.0"}}, None, ("True", "ProfileFound"), "vLLM 0.26.0"),
        ({"image": {"reference": "vllm/vllm-openai:v0.26.0"}}, "0.32.0", ("True", "ProfileFound"), "vLLM 0.32.0"),
        ({"engine": {"version": "0.33.0"}}, "0.99.1", ("Unknown", "NearestProfile"), "profile of 0.33"),
        ({"engine": {"version": "0.14"}}, None, ("Unknown", "NearestProfile"), "profile of 0.13"),
    ],
)
def test_the_engines_version_is_the_seen_one_then_the_stated_one(
    spec: dict[str, Any], version: str | None, state: tuple[str, str], words: str
) -> None:
    world = World(spec=spec)
    world.step()
    if version:
        world.roll()
        world.answer(version=version)
        world.settle()
    assert world.state("EngineSupported") == state
    assert words in world.condition("EngineSupported")["message"]


def test_more_replicas_are_not_ready_before_they_are_there() -> None:
    world = World().serve()
    world.change({"replicas": 3})
    world.settle()
    assert world.state("Ready") == ("False", "Scaling")
    assert world.state("Available")[0] == "True"
    assert "2 pods to be created" in world.condition("Ready")["message"]
    world.roll()
    world.settle()
    assert world.state("Ready") == ("True", "Ready")
    assert world.status["replicas"] == 3


@pytest.mark.parametrize(
    ("spec", "reason"), [({"suspend": True, "replicas": 2}, "Suspended"), ({"replicas": 0}, "ScaledToZero")]
)
def test_no_pods_wanted_is_neither_ready_nor_stalled_nor_going_on(spec: dict[str, Any], reason: str) -> None:
    world = World().serve()
    world.change(spec)
    world.settle()
    assert world.state("Reconciling") == ("True", "Scaling"), "a pod is still there"
    world.roll()
    world.settle()
    assert world.deployment is not None
    assert world.deployment["spec"]["replicas"] == 0
    assert world.state("Ready") == ("False", reason)
    assert world.state("Available") == ("False", reason)
    assert world.state("Reconciling")[0] == "False"
    assert world.state("Stalled")[0] == "False"
    assert world.of_kind("Service"), "everything else stays"
    world.change({})
    world.settle()
    world.roll()
    world.answer()
    world.settle()
    assert world.state("Ready") == ("True", "Ready")


def test_an_engine_that_stops_answering_is_not_ready_and_old_failures_are_not_blamed() -> None:
    world = World().serve()
    pod = world.pods[0]
    last = {"terminated": {"exitCode": 137, "finishedAt": at(-86400), "startedAt": at(-90000)}}
    container(pod, {"running": {"startedAt": at(-86000)}}, last, restarts=1, started=True)
    pod["status"]["conditions"] = conditions(PodScheduled=("True", "", at(0)), Ready=("False", "", at(20)))
    world.settle()
    assert world.state("Ready") == ("False", "Starting")
    assert "does not answer /health" in world.condition("Ready")["message"]


def test_times_move_with_the_status_alone() -> None:
    world = World().serve()
    before = {c["type"]: c["lastTransitionTime"] for c in world.status["conditions"]}
    world.change({"replicas": 2})
    world.step(seconds=100)
    after = {c["type"]: c["lastTransitionTime"] for c in world.status["conditions"]}
    changed = {kind for kind in before if before[kind] != after[kind]}
    assert changed == {"Ready", "Reconciling"}
    assert after["Ready"] == world.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert {c["observedGeneration"] for c in world.status["conditions"]} == {2}


def test_a_readiness_flap_does_not_rewrite_the_cold_start() -> None:
    world = World().serve()
    before = world.status["coldStart"]
    ready = next(c for c in world.pods[0]["status"]["conditions"] if c["type"] == "Ready")
    ready["lastTransitionTime"] = (NOW + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    world.step(seconds=4 * 86400)
    assert world.status["coldStart"] == before


def test_a_resource_that_leaves_gets_no_children() -> None:
    world = World().serve()
    snapshot = world.snapshot()
    leaving = {**snapshot.resource, "metadata": {**snapshot.resource["metadata"], "deletionTimestamp": at(0)}}
    plan = decide(replace(snapshot, resource=leaving), renderer(), world.now)
    assert (plan.apply, plan.delete, plan.events, plan.status) == ((), (), (), world.status)


def test_pods_and_children_of_an_earlier_resource_of_the_same_name_count_for_nothing() -> None:
    world = World()
    world.step()
    world.roll()
    world.pods[0]["metadata"]["labels"][names.LABEL_UID] = "another"
    assert world.deployment is not None
    world.deployment["metadata"]["ownerReferences"][0]["uid"] = "another"
    plan = world.plan()
    assert plan.status["replicas"] == 0
    assert plan.observe == ()
    assert plan.apply[0]["metadata"]["ownerReferences"][0]["uid"] != "another"


def test_a_launcher_that_is_there_is_not_applied_again() -> None:
    world = World()
    world.step()
    assert world.renderer.launcher.name not in {b["metadata"]["name"] for b in world.plan().apply}


def test_two_pods_whose_queue_holds_them_wait_for_a_gate() -> None:
    world = World(spec={"replicas": 2, "scheduling": {"queueName": "gpus"}})
    world.step()
    for _ in range(2):
        pod = world.add_pod()
        pod["status"]["conditions"] = conditions(PodScheduled=("False", "SchedulingGated", at(10)))
    world.settle()
    assert world.state("GPUCompatible") == ("Unknown", "NodesNotReadable")
    assert "held back by a scheduling gate" in world.condition("Progressing")["message"]
