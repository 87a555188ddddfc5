"""The whole way, without a cluster: what plans ask to be looked at, the real decision on it, and the next plan."""

import copy
from itertools import pairwise
from math import sin

import pytest
from tests.unit.world import NOW, World

from falcon_operator.decide.autoscale.decision import decide
from falcon_operator.decide.autoscale.engine_law import Learned
from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import GatewaySample, Signals
from falcon_operator.decide.types import Scaling

UPTO8 = {"autoscaling": {"maxReplicas": 8}, "engine": {"maxNumSeqs": 64}}
ZERO = {"autoscaling": {"minReplicas": 0, "maxReplicas": 8}}


class Operator:
    """One operator that looks at a world's gateways."""

    def __init__(self, world: World) -> None:
        self.world, self.arrived = world, 0.0
        self.state: State | None = None
        world.scaling = None

    def look(self, seconds: float = 1, in_flight: float = 0, held: float = 0, blind: bool = False) -> None:
        """Time passes; then gateways say so much, a decision is made of it, and a plan of that."""
        world = self.world
        watch = world.step(seconds).autoscale
        assert watch is not None
        now = (world.now - NOW).total_seconds()
        if self.state is None:
            self.state = State(since=now, learned=Learned.from_status(watch.learned))
        self.arrived += max(in_flight + held, 0) / 10
        count = len(watch.gateways)
        sample = GatewaySample(now, in_flight / max(count, 1), held / max(count, 1), self.arrived)
        known = {} if blind else {pod.uid: sample for pod in watch.gateways}
        signals = Signals(known, count, problem="nobody answers" if blind else None)
        decision, self.state = decide(signals, watch.fleet, watch.config, self.state, now)
        world.scaling = Scaling(decision, self.state.learned, watch.fleet.replicas)
        world.step(0)


def number(world: World) -> int:
    assert world.deployment is not None
    found: int = world.deployment["spec"]["replicas"]
    return found


def grown(world: World) -> None:
    """The Deployment's pods are made, start and answer."""
    world.roll()
    world.answer()
    world.step()


def test_a_step_of_load_moves_the_number_once_and_all_the_way() -> None:
    world = World(spec=UPTO8).serve()
    operator = Operator(world)
    for _ in range(30):
        operator.look(in_flight=20)
    assert number(world) == 1
    operator.look(in_flight=64, held=200)
    assert number(world) > 4
    grown(world)
    for _ in range(30):
        operator.look(in_flight=264)
    assert len(world.status["autoscaling"]["decisions"]) <= 2


def test_traffic_changes_the_status_a_few_times_and_not_with_every_look() -> None:
    world = World(spec=UPTO8).serve()
    operator = Operator(world)
    for _ in range(20):
        operator.look(in_flight=150)
    grown(world)
    written, before = 0, copy.deepcopy(world.status)
    for second in range(200):
        operator.look(in_flight=150 + 40 * sin(second / 7) + 20 * (second % 3))
        grown(world)
        written += world.status != before
        before = copy.deepcopy(world.status)
    moves = len(world.status["autoscaling"].get("decisions", []))
    assert written <= 5 + 4 * moves, f"{written} writes in 200 looks"


def test_a_new_resource_is_not_put_to_zero_before_it_was_ready_and_then_is() -> None:
    world = World(spec=ZERO)
    world.step()
    world.roll_gateway()
    operator = Operator(world)
    for _ in range(10):
        operator.look(seconds=1000)
    assert number(world) == 1
    grown(world)
    world.settle()
    for _ in range(90):
        operator.look(seconds=20)
    assert number(world) == 0
    grown(world)
    world.settle()
    assert world.state("Ready") == ("False", "ScaledToZero")
    assert world.status["autoscaling"]["decisions"][0]["reason"] == "There was no request for 1800 s."
    operator.look(held=1)
    assert number(world) == 1
    grown(world)
    assert world.state("Ready") == ("True", "Ready")


@pytest.mark.parametrize("replicas", [1, 4, 8])
def test_a_restart_under_load_moves_nothing_and_says_nothing(replicas: int) -> None:
    world = World(spec=UPTO8).serve()
    assert world.deployment is not None
    world.deployment["spec"]["replicas"] = replicas
    load = 64 * 0.6 * replicas
    operator = Operator(world)
    for _ in range(20):
        operator.look(in_flight=load)
        grown(world)
    world.settle()
    objects, status = copy.deepcopy(world.objects), copy.deepcopy(world.status)
    operator = Operator(world)
    for _ in range(10):
        operator.look(in_flight=load)
        assert world.objects == objects
        assert world.status == status


def test_who_sees_nothing_changes_nothing() -> None:
    world = World(spec=UPTO8).serve()
    operator = Operator(world)
    for _ in range(5):
        operator.look(in_flight=300)
    grown(world)
    before = number(world)
    assert before > 1
    for _ in range(20):
        operator.look(seconds=60, blind=True)
    assert number(world) == before
    assert world.state("AutoscalingActive") == ("False", "MetricsUnknown")


def test_two_operators_that_look_in_turn_do_not_fight() -> None:
    world = World(spec=UPTO8).serve()
    first, second = Operator(world), Operator(world)
    scalings: list[Scaling | None] = [None, None]
    seen = [number(world)]
    for turn in range(60):
        which = turn % 2
        world.scaling = scalings[which]
        (first, second)[which].look(seconds=0.5, in_flight=250)
        scalings[which] = world.scaling
        seen.append(number(world))
        grown(world)
    moves = sum(before != after for before, after in pairwise(seen))
    assert moves <= 2, seen
    assert seen == sorted(seen)
