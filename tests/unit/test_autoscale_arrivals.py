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


def looks(
    seed: int, pieces: Pieces, crowd: int = 1, idle: float = 0.0, start: float = 240.0
) -> Iterator[tuple[float, Arrivals]]:
    """Each look at requests of which `crowd` come together at a time, the first after `idle` seconds."""
    random, moments, end = Random(seed), list[float](), idle
    for rate, seconds in pieces:
        at, end = end, end + seconds
        while (at := at + random.expovariate(rate / crowd)) < end:
            moments.append(at)
    arrivals, came = Arrivals(), 0
    for look in range(int(end / LOOK) + 1):
        while came < len(moments) and moments[came] <= look * LOOK:
            came += 1
        arrivals = arrivals.seen({"gateway": (look * LOOK, float(came * crowd))}, look * LOOK, start)
        yield look * LOOK, arrivals


def last(seed: int, pieces: Pieces, crowd: int = 1, **more: float) -> Arrivals:
    """After all of them."""
    return list(looks(seed, pieces, crowd, **more))[-1][1]


def known_after(seed: int, pieces: Pieces) -> float:
    """Seconds from the last change until four fifths of its rate are known."""
    change = sum(seconds for _, seconds in pieces[:-1])
    rate = pieces[-1][0]
    return next(now - change for now, seen in looks(seed, pieces) if now > change and seen.pace(now).rate >= 0.8 * rate)


@pytest.mark.parametrize("crowd", [1, 5, 20])
def test_crowds_are_known_by_how_many_come_together(crowd: int) -> None:
    found = [last(seed, ((40.0, 300.0),), crowd) for seed in SEEDS]
    assert mean(seen.crowds.dispersion for seen in found) == pytest.approx(crowd, rel=0.2)
    assert mean(seen.swings.dispersion for seen in found) == pytest.approx(crowd, rel=0.2)


def test_a_step_of_the_load_is_a_swing_and_no_crowd() -> None:
    found = [last(seed, ((4.0, 60.0), (20.0, 50.0))) for seed in SEEDS]
    assert mean(seen.crowds.dispersion for seen in found) < 2.0
    assert mean(seen.swings.dispersion for seen in found) > 6.0


def test_what_comes_after_nothing_is_no_crowd() -> None:
    found = [last(seed, ((20.0, 60.0),), idle=10.0).crowds.dispersion for seed in SEEDS]
    assert mean(found) < 1.5


def test_load_that_rises_more_slowly_than_engines_start_is_no_swing() -> None:
    pieces = ((4.0, 60.0), (20.0, 50.0))
    quick = mean(last(seed, pieces, start=6.0).swings.dispersion for seed in SEEDS)
    slow = mean(last(seed, pieces, start=120.0).swings.dispersion for seed in SEEDS)
    assert quick < 2.0 < slow


def test_a_step_to_eight_times_is_nearly_known_in_two_seconds() -> None:
    found = [known_after(seed, ((8.0, 60.0), (64.0, 30.0))) for seed in SEEDS]
    assert median(found) <= 1.5
    assert max(found) <= 3.0


def test_what_has_just_changed_is_known_to_have() -> None:
    seen = dict(looks(1, ((8.0, 60.0), (64.0, 240.0))))
    assert not seen[60.0].pace(60.0).changed
    assert seen[62.0].pace(62.0).changed
    assert not seen[300.0].pace(300.0).changed  # it is what is usual by then


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
    most = [
        max(seen.pace(now).rate for now, seen in looks(seed, ((40.0, 600.0),), crowd) if now > 30.0) for seed in SEEDS
    ]
    assert max(most) <= 1.2 * 40.0


def test_luck_is_not_taken_for_load() -> None:
    """The highest of a minute's looks after a step."""
    most = [
        max(seen.pace(now).rate for now, seen in looks(seed, ((9.0, 120.0), (54.0, 60.0))) if now > 120.0)
        for seed in SEEDS
    ]
    assert mean(most) <= 1.1 * 54.0


@pytest.mark.parametrize("counts", ["when it is asked", "when it answers"])
def test_what_comes_together_because_an_answer_was_late_is_no_more_load(counts: str) -> None:
    """400 requests a second, asked each half second; one answer is 0.4 s late."""
    arrivals, most = Arrivals(), 0.0
    for look in range(240):
        asked = look * LOOK
        answered = asked + (0.4 if look == 200 else 0.01)
        count = 400.0 * (asked if counts == "when it is asked" else answered)
        arrivals = arrivals.seen({"gateway": (asked, count)}, answered, 60.0)
        most = max(most, arrivals.pace(answered).rate if look > 100 else 0.0)
    assert most <= 404.0


def test_a_gateway_that_is_always_late_counts_as_any_other() -> None:
    late, other = Arrivals(), Arrivals()
    for look in range(126):
        asked = look * LOOK
        count = 20.0 * min(asked, 60.0) + 160.0 * max(asked - 60.0, 0.0)
        late = late.seen({"gateway": (asked, count)}, asked + 1.0, 60.0)
        other = other.seen({"gateway": (asked, count)}, asked, 60.0)
    assert late.pace(63.5).rate == pytest.approx(other.pace(62.5).rate)
    assert late.pace(63.5).rate > 100.0


def test_each_gateway_is_counted_until_its_own_last_look() -> None:
    """Two in turn, each with half of 20 requests a second, and then of 160: none is missed for not being asked yet."""
    arrivals, at = Arrivals(), 0.0
    for look in range(248):
        at, gateway = look * LOOK, ("a", "b")[look % 2]
        count = (20.0 * min(at, 120.0) + 160.0 * max(at - 120.0, 0.0)) / 2
        arrivals = arrivals.seen({gateway: (at, count)}, at, 60.0)
    assert arrivals.pace(at).rate == pytest.approx(160.0, rel=0.1)


def test_a_gateway_that_has_gone_silent_counts_less_and_less() -> None:
    arrivals = Arrivals()
    for look in range(240):
        arrivals = arrivals.seen({"a": (look * LOOK, 10.0 * look)}, look * LOOK, 60.0)
    found = [arrivals.pace(120.0 + seconds).rate for seconds in (0.0, 1.5, 30.0, 150.0)]
    assert found[:2] == [pytest.approx(20.0, rel=0.01)] * 2
    assert found[1] > found[2] > found[3] == 0.0
