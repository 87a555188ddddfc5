"""What is said of the autoscaler: once for each move, and nothing for load that comes and goes."""

import copy
from typing import Any

import pytest
from tests.unit.test_decide_autoscaling import UPTO8, ZERO, decided, live, scale_by_hand
from tests.unit.world import NOW, World

from falcon_operator.api.reasons import Reason
from falcon_operator.decide.autoscale.engine_law import DEFAULT, Learned
from falcon_operator.decide.autoscale.types import Limit
from falcon_operator.decide.status import timestamp


def moved(world: World, replicas: int, reason: str = "The load needs it.", limit: Limit | None = None) -> None:
    """Decided and carried out, to the last pod."""
    decided(world, replicas, reason, limit)
    world.step()
    world.roll()
    world.answer()
    world.settle()


def test_a_move_is_told_once_with_its_reason() -> None:
    world = World(spec=UPTO8).serve()
    told = len(world.events)
    decided(world, 5, "The load needs 3.3 engines at full use; targetUtilization is 0.7.", Limit.CAPACITY)
    world.step()
    when = timestamp(world.now)
    reason = "The load needs 3.3 engines at full use; targetUtilization is 0.7."
    assert world.status["autoscaling"] == {
        "desiredReplicas": 5,
        "signal": "2 of 2 gateways",
        "reason": reason,
        "limitedBy": "capacity",
        "lastScaleTime": when,
        "decisions": [{"time": when, "fromReplicas": 1, "toReplicas": 5, "reason": reason}],
    }
    event = next(e for e in world.events[told:] if e.action == "Scale")
    assert (event.type, event.reason, event.note) == ("Normal", "Scaling", f"Scaled from 1 to 5: {reason}")
    condition = world.condition("AutoscalingActive")
    assert (condition["status"], condition["reason"]) == ("True", "ScalingActive")
    assert condition["message"] == (
        "The requests at the gateways are looked at, and there are 1 to 8 engines. "
        f"Last from 1 to 5 at {when}: {reason} "
        "The load has asked for more than the GPUs of the compatible nodes hold."
    )
    world.step()
    assert sum(e.action == "Scale" for e in world.events[told:]) == 1


def test_the_reason_is_the_moves_own_though_the_status_comes_later() -> None:
    world = World(spec=ZERO).serve()
    decided(world, 0, "There was no request for 1800 s.")
    status = copy.deepcopy(world.status)
    world.step()
    world.status = status  # it could not be written
    decided(world, 0, "The load needs 0.0 engines.")
    world.step()
    assert world.status["autoscaling"]["decisions"][0]["reason"] == "There was no request for 1800 s."


def test_the_last_five_moves_are_kept_newest_first() -> None:
    world = World(spec=UPTO8).serve()
    for number in (2, 3, 4, 5, 6, 7, 8):
        decided(world, number, f"To {number}.")
        world.step()
    said = world.status["autoscaling"]["decisions"]
    assert [d["toReplicas"] for d in said] == [8, 7, 6, 5, 4]
    assert [d["fromReplicas"] for d in said] == [7, 6, 5, 4, 3]


def test_traffic_writes_nothing() -> None:
    world = World(spec=UPTO8).serve()
    moved(world, 3)
    status = copy.deepcopy(world.status)
    for tenth in range(10, 30):
        decided(world, 3, f"The load needs {tenth / 10} engines.", demand=tenth / 10)
        world.step()
        assert world.status == status


def test_a_limit_that_comes_and_goes_is_written_once() -> None:
    world = World(spec=UPTO8).serve()
    moved(world, 3)
    for limit in (None, Limit.WINDOW, None, Limit.CAPACITY, Limit.WINDOW, None, Limit.CAPACITY):
        decided(world, 3, f"Because of {limit}.", limit)
        world.step()
    assert world.status["autoscaling"]["limitedBy"] == "capacity"
    assert world.status["autoscaling"]["reason"] == "Because of capacity."
    moved(world, 4)
    assert "limitedBy" not in world.status["autoscaling"]


@pytest.mark.parametrize("limit", [Limit.METRICS, Limit.ROLLOUT])
def test_a_limit_that_ends_by_itself_is_not_kept(limit: Limit) -> None:
    world = World(spec=UPTO8).serve()
    moved(world, 3)
    decided(world, 3, "Held.", limit)
    world.step()
    assert world.status["autoscaling"]["limitedBy"] == limit
    decided(world, 3)
    world.step()
    assert "limitedBy" not in world.status["autoscaling"]


def test_what_is_not_known_is_said_and_freezes() -> None:
    world = World(spec=UPTO8).serve()
    moved(world, 3)
    words = "The load is not known: no gateway is ready. The number of engines stays at 3 until it is."
    decided(world, 3, "Kept at 3.", Limit.METRICS, unknown=(Reason.METRICS_UNKNOWN, words))
    world.step()
    condition = world.condition("AutoscalingActive")
    assert (condition["status"], condition["reason"], condition["message"]) == ("False", "MetricsUnknown", words)
    assert world.state("Ready")[0] == "True"
    status = copy.deepcopy(world.status)
    world.scaling = None  # another operator
    world.step()
    assert world.status == status
    decided(world, 3)
    world.step()
    assert world.state("AutoscalingActive") == ("True", "ScalingActive")


def test_before_anything_was_decided_that_is_said() -> None:
    world = World(spec=UPTO8).serve()
    condition = world.condition("AutoscalingActive")
    assert (condition["status"], condition["reason"]) == ("Unknown", "NotObserved")
    assert condition["message"] == "The load has not been read yet. There is 1 engine until it is."


def test_a_rollout_pauses_and_says_so() -> None:
    world = World(spec=UPTO8).serve()
    moved(world, 2)
    decided(world, 2, "Kept while a rollout replaces pods.", Limit.ROLLOUT)
    world.step()
    assert world.state("AutoscalingActive") == ("True", "ScalingPaused")
    assert "There are 2 engines until it is through." in world.condition("AutoscalingActive")["message"]


def test_a_number_in_spec_replicas_is_ignored_and_that_is_said() -> None:
    world = World(spec=UPTO8 | {"replicas": 4}).serve()
    decided(world, 2)
    world.step()
    assert live(world) == 2
    message = world.condition("AutoscalingActive")["message"]
    assert message.endswith("spec.replicas is 4 and ignored, since spec.autoscaling.mode is Native: remove it.")


def test_a_number_that_somebody_else_has_set_is_said_to_be_theirs() -> None:
    world = World(spec=UPTO8).serve()
    moved(world, 3)
    scale_by_hand(world, 6)
    world.step()
    assert world.status["autoscaling"]["decisions"][0] == {
        "time": timestamp(world.now),
        "fromReplicas": 3,
        "toReplicas": 6,
        "reason": "Somebody else has changed the Deployment.",
    }


def learned(**parts: float) -> Learned:
    return Learned(DEFAULT.scaled(1, parts.get("step", 1.0), 1), parts.get("prompt", 100), parts.get("answer", 50))


def test_what_is_learned_is_written_once_it_has_moved_or_with_something_else() -> None:
    world = World(spec=UPTO8).serve()
    decided(world, 1)
    world.step()
    assert "learned" not in world.status["autoscaling"], "the defaults are nobody's own"
    decided(world, 1, learned=learned())
    world.step()
    first = world.status["autoscaling"]["learned"]
    assert first == {**learned().manifest()}
    decided(world, 1, learned=learned(prompt=115))
    world.step()
    assert world.status["autoscaling"]["learned"] == first
    decided(world, 2, learned=learned(prompt=116))
    world.step()
    assert world.status["autoscaling"]["learned"]["promptTokens"] == 116
    decided(world, 2, learned=learned(prompt=116, step=1.3))
    world.step()
    assert world.status["autoscaling"]["learned"]["stepMilliseconds"] == pytest.approx(5.4 * 1.3)


def test_a_new_operator_goes_on_with_what_was_learned() -> None:
    world = World(spec=UPTO8).serve()
    decided(world, 1, learned=learned(prompt=321))
    world.step()
    world.scaling = None
    found = world.plan().autoscale
    assert found is not None
    assert Learned.from_status(found.learned).prompt == 321


def test_a_spec_that_is_not_acted_on_is_not_scaled_and_keeps_what_was_known() -> None:
    world = World(spec=UPTO8).serve()
    moved(world, 3)
    before = copy.deepcopy(world.status["autoscaling"])
    world.change(UPTO8 | {"monitoring": {"podMonitor": "Off"}})
    decided(world, 5)
    plan = world.step()
    assert plan.autoscale is None
    assert (live(world), world.status["autoscaling"]) == (3, before)
    assert world.state("AutoscalingActive") == ("False", "NotYetImplemented")
    assert world.status["desiredReplicas"] == 3


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"from": "x", "to": 1, "reason": ""}', "nonsense"])
def test_an_annotation_that_makes_no_sense_is_no_move(text: str) -> None:
    world = World(spec=UPTO8).serve()
    assert world.deployment is not None
    world.deployment["metadata"]["annotations"]["serving.falcon-operator.io/scaled"] = text
    decided(world, 2, "More.")
    world.step()
    assert world.status["autoscaling"]["decisions"][0]["reason"] == "More."


def test_the_status_of_a_move_is_not_held_back_while_pods_move() -> None:
    world = World(spec=UPTO8).serve()
    decided(world, 5)
    world.step()
    world.add_pod()
    decided(world, 8)
    plan: Any = world.step(seconds=0)
    assert plan.status["autoscaling"]["desiredReplicas"] == 8
    assert world.now > NOW
