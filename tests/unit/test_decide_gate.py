"""Specs that are not acted on: what is there stays, and the field is named."""

from typing import Any

import pytest
from tests.unit.world import World, renderer

from falcon_operator.api.config import OperatorConfig
from falcon_operator.api.reasons import STANDING_CONDITIONS
from falcon_operator.api.status import Status

CASES: list[Any] = [
    pytest.param(
        {"monitoring": {"podMonitor": "Off"}},
        "NotYetImplemented",
        ("spec.monitoring.podMonitor",),
        id="not-implemented",
    ),
    pytest.param({"engine": {"maxModelLen": "many"}}, "InvalidSpec", ("spec.engine.maxModelLen", "many"), id="type"),
    pytest.param({"startup": {"budget": "soon"}}, "InvalidSpec", ("spec.startup.budget", "soon"), id="duration"),
    pytest.param({"rollout": {"strategy": "Magic"}}, "InvalidSpec", ("spec.rollout.strategy", "Magic"), id="enum"),
    pytest.param({"replicas": None}, "InvalidSpec", ("spec.replicas",), id="null"),
    pytest.param(
        {"engine": {"extraArgs": ["--trust-remote-code"]}},
        "PolicyRefused",
        ("spec.engine.extraArgs", "--trust-remote-code"),
        id="policy",
    ),
]


@pytest.mark.parametrize(("spec", "reason", "words"), CASES)
def test_nothing_is_made_and_the_field_is_named(spec: dict[str, Any], reason: str, words: tuple[str, ...]) -> None:
    world = World(spec=spec)
    plan = world.step()
    assert (plan.apply, plan.delete) == ((), ())
    assert world.state("Stalled") == ("True", reason)
    assert world.state("Ready") == ("False", reason)
    assert world.state("Reconciling")[0] == "False"
    for word in words:
        assert word in world.condition("Stalled")["message"]
    assert world.status["observedGeneration"] == 1
    assert [c["type"] for c in world.status["conditions"]] == list(STANDING_CONDITIONS)
    assert [(e.type, e.reason) for e in world.events] == [("Warning", reason)]
    Status.model_validate(world.status)
    world.settle()
    assert len(world.events) == 1


@pytest.mark.parametrize(("spec", "reason", "words"), CASES)
def test_what_serves_goes_on_serving_and_the_correction_is_taken(
    spec: dict[str, Any], reason: str, words: tuple[str, ...]
) -> None:
    world = World().serve()
    objects, before = dict(world.objects), world.status
    world.change(spec)
    world.settle()
    assert world.objects == objects
    assert world.state("Stalled") == ("True", reason)
    assert world.state("Available")[0] == "True", "that is still true"
    assert world.state("ModelServed") == ("True", "ModelServed")
    assert world.state("GPUCompatible")[0] == "True"
    assert (world.status["model"], world.status["revision"]) == (before["model"], before["revision"])
    assert world.status["observedGeneration"] == 2
    Status.model_validate(world.status)
    world.change({})
    world.settle()
    assert world.state("Ready") == ("True", "Ready")
    assert world.objects == objects, "and nothing was restarted"


def test_the_administrator_can_allow_remote_code() -> None:
    world = World(
        spec={"engine": {"extraArgs": ["--trust-remote-code"]}},
        renderer=renderer(config=OperatorConfig(allow_trust_remote_code=True)),
    )
    world.step()
    assert world.deployment is not None
