"""How unevenly requests come, and what of it is more load: requests that come by chance, from several seeds."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from statistics import mean, median

import pytest

from falcon_operator.decide.autoscale.arrivals import Arrivals

LOOK = 0.5
SEEDS = range(20)
# Requests a second, for so many seconds, one after the other.
Pieces = tuple[tuple[float, float], ...]


def looks(seed: int, pieces: Pieces, crowd: int = 1) -> Iterator[tuple[float, Arrivals]]:
    """Each look at requests of which `crowd` come together at a time."""
    random, moments, end = Random(seed), list[float](), 0.0
    for rate, seconds in pieces:
        at, end = end, end + seconds
        while (at := at + random.expovariate(rate / crowd)) < end:
            moments.append(at)
    arrivals, came = Arrivals(), 0
    for look in range(int(end / LOOK) + 1):
        while came < len(moments) and moments[came] <= look * LOOK:
            came += 1
        arrivals = arrivals.seen({"gateway": float(came * crowd)}, look * LOOK)
        yield look * LOOK, arrivals


def last(seed: int, pieces: Pieces, crowd: int = 1) -> Arrivals:
    """After all of them."""
    return list(looks(seed, pieces, crowd))[-1][1]


def known_after(seed: int, pieces: Pieces) -> float:
    """Seconds from the last change until four fifths of its rate are known."""
    change = sum(seconds for _, seconds in pieces[:-1])
    rate = pieces[-1][0]
    return next(now - change for now, seen in looks(seed, pieces) if now > change and seen.rate(now) >= 0.8 * rate)


@pytest.mark.parametrize("crowd", [1, 5, 20])
def test_crowds_are_known_by_how_many_come_together(crowd: int) -> None:
    found = [last(seed, ((40.0, 300.0),), crowd) for seed in SEEDS]
    assert mean(seen.crowds.dispersion for seen in found) == pytest.approx(crowd, rel=0.2)
    assert mean(seen.swings.dispersion for seen in found) == pytest.approx(crowd, rel=0.2)


def test_a_step_of_the_load_is_a_swing_and_no_crowd() -> None:
    found = [last(seed, ((4.0, 60.0), (20.0, 50.0))) for seed in SEEDS]
    assert mean(seen.crowds.dispersion for seen in found) < 2.0
    assert mean(seen.swings.dispersion for seen in found) > 6.0


def test_a_step_soon_after_another_is_known_as_soon() -> None:
    alone = [known_after(seed, ((20.0, 60.0), (44.0, 60.0))) for seed in SEEDS]
    after = [known_after(seed, ((4.0, 40.0), (20.0, 50.0), (44.0, 60.0))) for seed in SEEDS]
    assert median(after) <= median(alone) + 2.0 <= 8.0
    assert max(after) <= 15.0


def test_a_load_that_doubles_is_known_within_half_a_minute() -> None:
    found = [known_after(seed, ((8.0, 60.0), (16.0, 90.0))) for seed in SEEDS]
    assert max(found) <= 30.0


@pytest.mark.parametrize("crowd", [1, 5])
def test_a_load_that_stays_is_not_taken_for_more(crowd: int) -> None:
    most = [max(seen.rate(now) for now, seen in looks(seed, ((40.0, 600.0),), crowd) if now > 30.0) for seed in SEEDS]
    assert max(most) <= 1.2 * 40.0


def test_luck_is_not_taken_for_load() -> None:
    """The highest of a minute's looks after a step."""
    most = [
        max(seen.rate(now) for now, seen in looks(seed, ((9.0, 120.0), (54.0, 60.0))) if now > 120.0) for seed in SEEDS
    ]
    assert mean(most) <= 1.1 * 54.0
