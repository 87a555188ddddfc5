"""The autoscaler's decision: what it does in the cases that people fear."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.autoscale_play import FULL, Play

from falcon_operator.api.reasons import Reason
from falcon_operator.decide.autoscale.decision import decide
from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import (
    Config,
    EngineSample,
    Fleet,
    GatewaySample,
    Limit,
    Signals,
)

CONFIG = Config(1, 16, cold_start=60.0)


def quiet(play: Play) -> None:
    """Let the operator know its engines and their requests."""
    play.run(120, 0.3 * FULL)


def test_a_step_is_answered_within_a_second_and_right_within_three() -> None:
    play = Play(CONFIG, look=0.5)
    quiet(play)
    moves = play.run(200, 8 * 0.3 * FULL)
    right = 3  # of which 2.4 would be busy all the time
    assert moves[0][0] <= 1.0
    assert next(at for at, replicas in moves if replicas >= right) <= 3.0


def test_a_step_takes_one_move_more_at_most_and_no_engine_too_many() -> None:
    play = Play(CONFIG)
    quiet(play)
    moves = play.run(400, 8 * 0.3 * FULL)
    assert len(moves) <= 4
    assert max(replicas for _, replicas in moves) <= 7, "what piles up during the start is not taken for load"


def test_engines_that_start_count_as_capacity() -> None:
    play = Play(CONFIG)
    quiet(play)
    play.run(5, 4 * FULL)
    play.run(50, 4 * FULL)
    assert play.replicas <= 9, "seven for the load and some for what waits, not seven more with each look"


def test_nothing_is_removed_before_the_window_has_passed_and_then_slowly() -> None:
    play = Play(CONFIG, replicas=6)
    play.run(1800, 5 * FULL)
    assert play.moves == []
    moves = play.run(4000, 0.5 * FULL)
    assert moves[0][0] > 500
    assert all(later - earlier >= 60 for (earlier, _), (later, _) in pairwise(moves))
    assert [replicas for _, replicas in moves] == sorted((replicas for _, replicas in moves), reverse=True)


def test_what_was_decided_and_not_done_is_decided_again() -> None:
    play = Play(CONFIG, replicas=6)
    play.run(1800, 5 * FULL)
    decided = []
    for _ in range(500):
        play.now += 2
        play.arrived += 0.5 * FULL * 2
        assert play.state is not None
        decision, play.state = decide(play.signals(0.5 * FULL), play.fleet, CONFIG, play.state, play.now)
        decided.append(decision.replicas)
    first = next(n for n, replicas in enumerate(decided) if replicas < 6)
    assert first * 2 > 500
    assert max(decided[first:]) < 6


def test_a_long_cold_start_makes_the_window_longer() -> None:
    play = Play(replace(CONFIG, cold_start=400.0), replicas=3)
    play.run(1500, 2.5 * FULL)
    moves = play.run(1190, 0.2 * FULL)
    assert [at for at, _ in moves if at < 1100] == []


def test_a_start_that_took_a_little_longer_than_the_last_one_forgets_nothing() -> None:
    play = Play(replace(CONFIG, cold_start=300.0), replicas=4)
    play.run(1800, 2.9 * FULL)
    for n in range(40):
        play.config = replace(CONFIG, cold_start=300.0 + n % 3)
        assert play.run(20, 0.2 * FULL) == []


def test_a_load_that_stays_moves_nothing() -> None:
    play = Play(CONFIG, replicas=4)
    play.run(700, 2.9 * FULL)
    assert play.run(3600, 2.9 * FULL) == []


def test_a_load_that_wavers_moves_little() -> None:
    play = Play(CONFIG, replicas=4)
    play.run(700, 2.9 * FULL)
    before = len(play.moves)
    for n in range(60):
        play.run(60, (2.7 if n % 2 else 3.1) * FULL)
    assert len(play.moves) - before <= 1


@pytest.mark.parametrize("signals", [Signals(gateways_expected=2), Signals()])
def test_nothing_known_freezes(signals: Signals) -> None:
    decision, _ = decide(signals, Fleet(5, 5), CONFIG, State(since=0.0), 10_000.0)
    assert decision.replicas == 5
    assert decision.limited_by is Limit.METRICS
    assert decision.unknown is not None
    assert decision.unknown[0] is Reason.METRICS_UNKNOWN
    assert "stays at 5" in decision.unknown[1]


def test_silence_is_not_idleness() -> None:
    play = Play(CONFIG, replicas=6)
    play.run(700, 4 * FULL)
    assert play.run(3000, 0.1, lambda signals: replace(signals, gateways={}, problem="connection refused")) == []
    assert play.last is not None
    assert play.last.unknown is not None
    assert "connection refused" in play.last.unknown[1]
    assert play.run(550, 0.1) == [], "the window begins anew"


def test_an_old_sample_is_no_sample() -> None:
    play = Play(CONFIG, replicas=6)
    play.run(700, 4 * FULL)
    old = play.signals(4 * FULL)
    play.run(60, 0.1, lambda signals: replace(signals, gateways=old.gateways))
    assert play.last is not None
    assert play.last.unknown is not None


def test_one_of_two_gateways_may_be_silent_one_of_three_may_speak() -> None:
    play = Play(CONFIG, replicas=6)
    play.run(700, 4 * FULL)

    def one(expected: int) -> list[tuple[float, int]]:
        return play.run(
            1500,
            1.0 * FULL,
            lambda signals: replace(signals, gateways={"a": signals.gateways["a"]}, gateways_expected=expected),
        )

    assert one(3) == []
    assert play.last is not None
    assert play.last.limited_by is Limit.METRICS
    assert one(2) != []


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_jumps_moves_nothing(jump: float) -> None:
    play = Play(replace(CONFIG, min_replicas=0), replicas=6)
    play.run(700, 4 * FULL)
    play.run(120, 0.5 * FULL)
    play.now += jump
    play.started = [-1e9] * play.replicas
    assert play.run(550, 0.5 * FULL) == []


def test_a_restart_moves_nothing() -> None:
    play = Play(CONFIG, replicas=6)
    play.run(700, 4 * FULL)
    assert play.state is not None
    play.state = State(since=play.now, learned=play.state.learned)
    assert play.run(590, 4 * FULL) == []


def test_a_restart_without_what_was_learned_moves_nothing_either() -> None:
    play = Play(CONFIG, replicas=6)
    play.run(700, 4 * FULL)
    play.state = State(since=play.now)
    assert play.run(590, 4 * FULL) == []


def test_a_rollout_pauses_and_a_request_at_zero_does_not_wait_for_it() -> None:
    paused = replace(CONFIG, min_replicas=0, paused="a rollout is going on")
    play = Play(paused, replicas=2)
    assert play.run(100, 8 * FULL) == []
    assert play.last is not None
    assert play.last.limited_by is Limit.ROLLOUT
    assert "a rollout is going on" in play.last.reason
    sleeping = Play(paused, replicas=0)
    assert sleeping.run(2, 4.0)[0] == (2.0, 1)


def test_gpus_bound_the_number_and_pending_pods_do() -> None:
    play = Play(replace(CONFIG, gpus=3))
    quiet(play)
    play.run(30, 8 * FULL)
    assert play.replicas == 3
    assert play.last is not None
    assert play.last.limited_by is Limit.CAPACITY
    assert "3" in play.last.reason
    pending = Play(CONFIG, replicas=2)
    quiet(pending)
    pending.unplaced = 1
    assert pending.run(30, 8 * FULL) == []
    assert pending.last is not None
    assert pending.last.limited_by is Limit.CAPACITY
    assert "find no GPU" in pending.last.reason


def test_nodes_that_vanish_remove_no_engine() -> None:
    play = Play(replace(CONFIG, gpus=1), replicas=4)
    assert play.run(500, 2 * FULL) == []


def test_the_maximum_bounds() -> None:
    play = Play(replace(CONFIG, max_replicas=2))
    quiet(play)
    play.run(30, 8 * FULL)
    assert play.replicas == 2
    assert play.last is not None
    assert play.last.limited_by is Limit.MAX_REPLICAS


def test_new_bounds_hold_at_once_even_where_nothing_is_known() -> None:
    decision, _ = decide(Signals(), Fleet(9, 9), replace(CONFIG, max_replicas=4), State(since=0.0), 1.0)
    assert decision.replicas == 4
    decision, _ = decide(Signals(), Fleet(1, 1), replace(CONFIG, min_replicas=3), State(since=0.0), 1.0)
    assert decision.replicas == 3


def test_to_zero_and_back() -> None:
    play = Play(replace(CONFIG, min_replicas=0, zero_after=300.0))
    play.run(120, 0.3 * FULL)
    moves = play.run(600, 0.0)
    assert [replicas for _, replicas in moves] == [0]
    assert 299 <= moves[0][0] <= 302
    assert play.run(2, 2.0)[0] == (2.0, 1)


def test_a_request_between_two_looks_counts() -> None:
    play = Play(replace(CONFIG, min_replicas=0, zero_after=300.0))
    play.run(290, 0.0)
    play.arrived += 1  # it came and went
    assert play.run(290, 0.0) == []


def test_a_new_resource_is_not_put_to_zero_before_it_served() -> None:
    config = replace(CONFIG, min_replicas=0, zero_after=10.0)
    state = State(since=0.0)
    for n in range(1000):
        signals = Signals({"a": GatewaySample(n * 1.0, 0, 0, 0)}, 1)
        decision, state = decide(signals, Fleet(1, 0, (n * 1.0,), has_served=False), config, state, n * 1.0)
        assert decision.replicas == 1


def test_what_has_never_served_is_not_multiplied() -> None:
    state = State(since=0.0)
    for n in range(200):
        signals = Signals({"a": GatewaySample(n * 1.0, 0, n * 10.0, n * 10.0)}, 1)
        decision, state = decide(signals, Fleet(1, 0, (), has_served=False), CONFIG, state, n * 1.0)
        assert decision.replicas == 1


def test_without_a_gateway_engines_are_the_signal() -> None:
    config, state, replicas = replace(CONFIG, gateway=False), State(since=0.0), 1
    finished = 0.0
    for n in range(240):
        rate = (0.3 if n < 120 else 3.0) * FULL
        finished += rate
        sample = EngineSample(n * 1.0, 20.0, 0.0, finished * 1000, finished * 200, finished)
        decision, state = decide(Signals(engines={"e": sample}, engines_expected=1),
                                 Fleet(replicas, 1, tuple([1.0] * (replicas - 1))), config, state, n * 1.0)  # fmt: skip
        replicas = decision.replicas
    assert 3 <= replicas <= 6


def test_until_an_answer_has_ended_those_that_are_written_are_counted_within_seconds() -> None:
    """Nothing is held yet, and an engine has 256 sequences: the next one is there before this one is full."""
    state = State(since=0.0)
    for n in range(200):
        came = 3.0 * n  # and none ends
        signals = Signals({"a": GatewaySample(n * 1.0, came, 0, came)}, 1)
        decision, state = decide(signals, Fleet(1, 1), CONFIG, state, n * 1.0)
        if decision.replicas > 1:
            break
        assert came < 0.98 * CONFIG.per_engine
    assert decision.replicas == 2
    assert came > CONFIG.target * CONFIG.per_engine


counts = st.one_of(st.floats(0, 2.0**53), st.integers(0, 300).map(float))


@given(
    samples=st.lists(st.tuples(st.floats(-10, 40), counts, counts, counts), max_size=4),
    engines=st.lists(st.tuples(st.floats(-10, 40), counts, counts, counts, counts, counts), max_size=4),
    replicas=st.integers(0, 40),
    ready=st.integers(0, 40),
    starting=st.lists(st.floats(0, 1e6), max_size=3),
    unplaced=st.integers(0, 3),
    bounds=st.tuples(st.integers(0, 20), st.integers(1, 20)),
    gpus=st.one_of(st.none(), st.integers(0, 30)),
    cold=st.one_of(st.none(), st.floats(0, 1e5)),
    served=st.booleans(),
    gateway=st.booleans(),
    steps=st.lists(st.floats(-4000, 4000), min_size=1, max_size=6),
)
def test_whatever_comes_the_answer_is_within_bounds_and_the_same_twice(
    samples: list[tuple[float, ...]],
    engines: list[tuple[float, ...]],
    replicas: int,
    ready: int,
    starting: list[float],
    unplaced: int,
    bounds: tuple[int, int],
    gpus: int | None,
    cold: float | None,
    served: bool,
    gateway: bool,
    steps: list[float],
) -> None:
    low, high = min(bounds), max(bounds)
    config = Config(low, high, gpus=gpus, cold_start=cold, gateway=gateway)
    state, now = State(since=0.0), 0.0
    fleet = Fleet(replicas, ready, tuple(starting), unplaced, served)
    for step in steps:
        now += step
        signals = Signals(
            {str(n): GatewaySample(now - age, a, b, c) for n, (age, a, b, c) in enumerate(samples)},
            len(samples),
            {str(n): EngineSample(now - age, *rest) for n, (age, *rest) in enumerate(engines)},
            len(engines),
        )
        first = decide(signals, fleet, config, state, now)
        assert first == decide(signals, fleet, config, state, now)
        decision, state = first
        assert low <= decision.replicas <= high
        assert decision.reason.endswith(".")
