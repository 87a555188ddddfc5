"""Gateway, pods and GPU-hours of the simulator, by cases worked out by hand."""

from __future__ import annotations

import pytest
from benchmarks.autoscale.engine import EngineLaw
from benchmarks.autoscale.policy import View
from benchmarks.autoscale.simulation import Outcome, Setting, Simulation
from benchmarks.autoscale.trace import Load

# A step takes a second, whatever is in it; an engine takes two requests.
SLOW = EngineLaw(prompt_rate=1e9, step=1.0, each=0.0, most=2)
# A token takes 10 ms.
FAST = EngineLaw(prompt_rate=1e9, step=0.01, each=0.0, most=2)


class Script:
    """Asks for given numbers from given times on, and keeps what it saw."""

    name = "script"
    interval = 1.0

    def __init__(self, *steps: tuple[float, int]) -> None:
        self.steps = steps
        self.seen: list[View] = []

    def desired(self, view: View) -> int:
        self.seen.append(view)
        return [count for at, count in self.steps if at <= view.now][-1]

    def at(self, now: float) -> View:
        return next(view for view in self.seen if view.now == now)


def played(
    rows: list[tuple[float, int, int]], script: Script, law: EngineLaw = SLOW, cold: float = 10.0, initial: int = 1
) -> Outcome:
    """The first row is at 0."""
    return Simulation(Load.of(rows), Setting(law, cold, 1, 8, initial), script).run()


def hours(seconds: float) -> float:
    return seconds / 3600


def test_a_fleet_that_never_changes_counts_to_the_traces_end() -> None:
    found = played([(0, 1, 1), (100, 1, 500)], Script((0, 3)), initial=3)
    assert found.gpu_hours == pytest.approx(hours(3 * 100))
    assert found.scalings_per_hour == 0


def test_a_start_counts_from_the_decision_on() -> None:
    script = Script((0, 1), (20, 3))
    found = played([(0, 1, 1), (100, 1, 1)], script)
    assert found.gpu_hours == pytest.approx(hours(100 + 2 * 80))
    assert found.scalings_per_hour == pytest.approx(36)
    assert (script.at(20).ready, script.at(29).ready, script.at(30).ready) == (1, 1, 3)
    assert script.at(29).starting == (9.0, 9.0)
    assert script.at(30).starting == ()


def test_a_pod_that_still_starts_goes_first_and_at_once() -> None:
    script = Script((0, 1), (20, 2), (25, 1))
    assert played([(0, 1, 1), (100, 1, 1)], script).gpu_hours == pytest.approx(hours(100 + 5))
    assert script.at(50).ready == 1


def test_a_pod_with_requests_counts_until_they_are_answered() -> None:
    # Three requests of 40 s: two engines have them, the one with a single request goes at 10 and is gone at 40.
    rows = [(0.0, 1, 40), (0.1, 1, 40), (0.2, 1, 40), (100.0, 1, 1)]
    found = played(rows, Script((0, 2), (10, 1)), initial=2)
    gone = 0.1 + 40
    assert found.gpu_hours == pytest.approx(hours(100 + gone))
    assert found.failed == 0


def test_what_is_not_answered_in_the_time_to_drain_has_failed() -> None:
    rows = [(0.0, 1, 1000), (0.1, 1, 1000), (0.2, 1, 1000), (2000.0, 1, 1)]
    found = played(rows, Script((0, 2), (10, 1)), initial=2)
    assert found.failed == 1
    assert found.gpu_hours == pytest.approx(hours(2000 + 310))


def test_a_draining_engine_gets_no_request() -> None:
    script = Script((0, 2), (10, 1))
    rows = [(0.0, 1, 40), (0.1, 1, 40), (0.2, 1, 40), *[(12.0 + i, 1, 1) for i in range(5)], (100.0, 1, 1)]
    played(rows, script, initial=2)
    # The one that stays has two, its most, until 41; the others are held meanwhile.
    assert script.at(20).held == 5
    assert script.at(20).in_flight == 3
    assert script.at(50).held == 0


def test_requests_go_to_the_engine_with_the_fewest() -> None:
    script = Script((0, 3))
    rows = [(0.0, 1, 50), (0.1, 1, 50), (0.2, 1, 50), (0.3, 1, 50), (60.0, 1, 1)]
    played(rows, script, initial=3)
    assert sorted(e.running + e.waiting for e in script.at(5).engines) == [1, 1, 2]


def test_the_gateway_holds_what_engines_have_no_room_for_in_order() -> None:
    rows = [(0.0, 1, 10), (0.0, 1, 20), (1.0, 1, 1), (2.0, 1, 30), (60.0, 1, 1)]
    script = Script((0, 1))
    found = played(rows, script)
    assert script.at(5).held == 2
    assert script.at(5).waiting == 2
    assert found.ttft_p99 == pytest.approx(10.0, abs=1.01)  # the one of 1.0 waits until the first ends at 10


def test_a_request_that_was_held_ten_minutes_has_failed() -> None:
    rows = [(0.0, 1, 1000), (0.0, 1, 1000), (5.0, 1, 1), (2000.0, 1, 1)]
    found = played(rows, Script((0, 1)))
    assert found.failed == 1
    assert found.ttft_p99 == pytest.approx(600)


def test_the_objective_is_both_the_first_token_and_each_further_one() -> None:
    assert played([(0, 1, 100), (10, 1, 1)], Script((0, 1)), FAST).slo_attainment == 1.0
    # A second for a token is too slow; an answer of one token has no second one.
    assert played([(0, 1, 100), (10, 1, 1)], Script((0, 1)), SLOW).slo_attainment == 0.5
    # The third waits for a place for 2.5 s.
    rows = [(0.0, 1, 250), (0.0, 1, 250), (0.0, 1, 1), (10.0, 1, 1)]
    assert played(rows, Script((0, 1)), FAST).slo_attainment == 0.75


def test_bounds_hold_whatever_a_rule_asks_for() -> None:
    script = Script((0, 0), (20, 100))
    played([(0, 1, 1), (100, 1, 1)], script)
    assert {view.replicas for view in script.seen} == {1, 8}


def test_counters_and_means_of_a_view() -> None:
    script = Script((0, 1))
    played([(0, 7, 50), (100, 1, 1)], script, FAST)
    engine = script.at(1).engines[0]
    assert (engine.generated, engine.prompted, engine.finished) == (50, 7, 1)
    assert engine.ttft == pytest.approx(0.01, rel=1e-3)
    assert engine.itl == pytest.approx(0.01)
    later = script.at(2).engines[0]
    assert later.ttft is None
    assert later.itl is None
