"""How much room engines are to have, for a load that is there and for one that has just come."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from tests.unit.autoscale_play import FULL, Play

from falcon_operator.decide.autoscale import decision, headroom
from falcon_operator.decide.autoscale.demand import Demand
from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import Config

CONFIG = Config(1, 16, cold_start=6.0)


def served(use: float) -> State:
    """What is known after two minutes of one engine that is used so much."""
    play = Play(CONFIG, look=0.5)
    play.run(120, use * FULL)
    assert play.state is not None
    return play.state


def test_many_requests_need_a_smaller_share_for_crowds() -> None:
    few, many = (replace(served(0.3), in_flight=float(n)) for n in (10, 1000))
    limits = [headroom.limit(CONFIG, state, state.used) for state in (few, many)]
    assert CONFIG.target <= limits[0] < limits[1] < 1.0


def test_the_room_for_a_load_that_has_just_come_is_that_of_its_own_crowds() -> None:
    state = served(0.3)
    before, after = (headroom.limit(CONFIG, state, times * state.used) for times in (1, 8))
    eight = replace(state, in_flight=8 * state.in_flight)
    assert before < after == pytest.approx(headroom.limit(CONFIG, eight, eight.used))


def test_less_load_needs_no_more_room_than_there_was() -> None:
    state = served(0.6)
    assert headroom.limit(CONFIG, state, 0.0) == headroom.limit(CONFIG, state, state.used)


@pytest.mark.parametrize(("start", "least", "most"), [(2.0, 15.0, 20.0), (30.0, 30.0, 32.0), (600.0, 60.0, 62.0)])
def test_a_removal_is_looked_at_for_as_long_as_it_takes_to_undo(start: float, least: float, most: float) -> None:
    play = Play(replace(CONFIG, cold_start=start), replicas=8, look=0.5)
    play.run(600, 6 * FULL)
    moves = play.run(4000, 0.3 * FULL)
    assert [replicas for _, replicas in moves][-1] == 1
    gaps = [later - sooner for (sooner, _), (later, _) in pairwise(moves)]
    assert min(gaps) >= least
    assert min(gaps) <= most


def test_what_waits_uses_the_room_for_crowds() -> None:
    """Six engines have room for 5.3 at full use and 0.4 that wait: a seventh would only be there for both at once."""
    assert decision._engines(Demand(5.34, 0.44), 0.91) == 6
    assert decision._engines(Demand(5.34, 0.7), 0.91) == 7
