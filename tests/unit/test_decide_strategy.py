"""Whether a new pod starts first: only where a GPU is free for it, and never changed while pods are replaced."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_decide_nodes import H200, WORKER, world
from tests.unit.world import Json, World

from falcon_operator.decide.free_gpus import Free, Wanted, left, requested
from falcon_operator.decide.reconcile import decide
from falcon_operator.decide.strategy import cost
from falcon_operator.decide.types import Plan

SURGE, IN_PLACE = {"maxSurge": 1, "maxUnavailable": 0}, {"maxSurge": 0, "maxUnavailable": 1}
RESOURCE = "nvidia.com/gpu"


def changed(w: World, free: Free | None, **spec: Any) -> Plan:
    w.change({**w.spec, "podMetadata": {"annotations": {"example.com/new": "1"}}, **spec})
    return decide(replace(w.snapshot(), free=free), w.renderer, w.now)


def strategy(plan: Plan) -> Json:
    found: Json = next(b for b in plan.apply if b["metadata"]["name"] == "demo" and b["kind"] == "Deployment")
    rolling: Json = found["spec"]["strategy"]["rollingUpdate"]
    return rolling


def test_what_is_free_is_looked_for_only_when_pods_are_about_to_be_replaced() -> None:
    w = world(H200, WORKER)
    assert w.step().look is None
    assert w.serve().plan().look is None
    assert changed(w, None).look == Wanted(RESOURCE, 1, (("h200", 8),), 1)


@pytest.mark.parametrize(
    ("free", "asked", "rolling", "words"),
    [
        (Free("h200"), {}, SURGE, "a new pod starts first, and an old one leaves once it is ready (a GPU is free on"),
        (Free(), {}, IN_PLACE, "are held by the gateway"),
        (Free(), {}, IN_PLACE, "(no GPU is free on the node that can run an engine)"),
        (Free(error="no right"), {}, IN_PLACE, "(no right)"),
        (Free("h200"), {"cache": {"size": "1Gi"}}, IN_PLACE, "(its claim may be mounted on one node at a time)"),
        (Free(), {"rollout": {"strategy": "Surge"}}, SURGE, "spec.rollout.strategy is Surge"),
        (Free("h200"), {"rollout": {"strategy": "InPlace"}}, IN_PLACE, "spec.rollout.strategy is InPlace"),
    ],
)
def test_the_event_of_a_change_says_beforehand_what_it_costs(
    free: Free, asked: Json, rolling: Json, words: str
) -> None:
    plan = changed(world(H200).serve(), free, **asked)
    assert strategy(plan) == rolling
    (event,) = [e for e in plan.events if e.action == "Rollout"]
    assert words in event.note


def test_where_nodes_may_not_be_read_pods_are_replaced_in_place() -> None:
    w = World().serve()
    plan = changed(w, None)
    assert plan.look is None
    assert strategy(plan) == IN_PLACE
    assert any("may not read nodes" in e.note for e in plan.events)


@pytest.mark.parametrize("begun", [True, False])
def test_a_rollout_stays_as_it_has_begun(begun: bool) -> None:
    w = world(H200).serve()
    plan = changed(w, Free("h200") if begun else Free())
    one, none, unknown = Free("h200"), Free(), None
    # Each after each, itself too.
    for free in (one, one, none, none, unknown, unknown, one, unknown, none, one):
        for body in plan.apply:
            w.objects[body["kind"], body["metadata"]["name"]].update(body)
        plan = decide(replace(w.snapshot(), free=free), w.renderer, w.now)
        assert strategy(plan) == (SURGE if begun else IN_PLACE)
        assert plan.look is None


def test_a_surge_whose_gpu_was_taken_goes_on_in_place() -> None:
    w = world(H200).serve()
    for body in changed(w, Free("h200")).apply:
        w.objects[body["kind"], body["metadata"]["name"]].update(body)
    assert strategy(w.plan()) == SURGE
    refusal = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    w.add_pod()["status"]["conditions"] = [{**refusal, "message": "0/1 nodes: 1 Insufficient nvidia.com/gpu."}]
    plan = w.step()
    assert strategy(plan) == IN_PLACE
    progressing = next(c for c in plan.status["conditions"] if c["type"] == "Progressing")
    assert "are held by the gateway" in progressing["message"]
    w.pods[:] = w.pods[1:]
    assert strategy(w.plan()) == IN_PLACE, "it stays so"


def container(asks: int | None, **fields: Any) -> Json:
    return {"resources": {} if asks is None else {"limits": {RESOURCE: str(asks)}}, **fields}


ASKS = st.none() | st.integers(0, 8)


@given(
    asks=st.lists(ASKS, min_size=1, max_size=4), before=st.lists(ASKS, max_size=3), beside=st.lists(ASKS, max_size=2)
)
def test_a_pod_holds_what_its_containers_ask_for_together_or_one_before_them(
    asks: list[int | None], before: list[int | None], beside: list[int | None]
) -> None:
    sidecars = [container(a, restartPolicy="Always") for a in beside]
    pod = {"spec": {"containers": [container(a) for a in asks],
                    "initContainers": [*(container(a) for a in before), *sidecars]}}  # fmt: skip
    together = sum(a or 0 for a in (*asks, *beside))
    assert requested(pod, RESOURCE) == max([together, *(a or 0 for a in before)])
    assert requested({**pod, "status": {"phase": "Succeeded"}}, RESOURCE) == 0
    wanted = Wanted(RESOURCE, 1, (("n", 8),), 1)
    assert left(wanted, "n", [requested(pod, RESOURCE)]) == 8 - requested(pod, RESOURCE)


def test_a_request_that_cannot_be_read_is_not_taken_for_none() -> None:
    pod = {"spec": {"containers": [{"resources": {"requests": {RESOURCE: "many"}}}]}}
    assert left(Wanted(RESOURCE, 1, (("n", 8),), 1), "n", [requested(pod, RESOURCE)]) < 1


def test_the_cost_names_who_waits_and_for_how_long() -> None:
    assert cost(False, 1, True, 91.6).endswith("new requests are held by the gateway for about 92 s")
    assert cost(False, 1, False, None).endswith("new requests find no pod until the new pod is ready")
    assert cost(False, 3, True, 60.0) == "in place, one pod at a time, each missing for about 60 s"
