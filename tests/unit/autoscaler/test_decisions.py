"""What the autoscaler decides by, when it says so, and what must not disturb it."""

import logging
import time
from dataclasses import replace
from functools import partial

import pytest
from tests.unit.autoscaler.setting import FLEET, KEY, ONE, Pair, Setting, until_asked, watch
from tests.unit.load_pods import Gateway, running

from falcon_operator.api.reasons import Reason
from falcon_operator.decide.autoscale.engine_law import Learned
from falcon_operator.decide.autoscale.types import Decision, Fleet, Limit, Signals
from falcon_operator.runtime import sources, watched
from falcon_operator.runtime.watched import Figures


async def test_a_plan_is_asked_for_once_for_each_change(pair: Pair) -> None:
    first, _, setting = pair
    first.tell(in_flight=1)
    said = [Decision(2, "Enough.", "all")]
    setting.decision = lambda *_: said[0]
    setting.autoscaler.want(KEY, watch(first))
    await setting.until(lambda: setting.changed != [])
    assert (scaling := setting.autoscaler.scaling(KEY)) is not None
    assert scaling.decision == said[0]
    setting.changed.clear()
    await setting.looks_more(5)
    assert setting.changed == [], "the plan knows"
    said[0] = replace(said[0], reason="Other words.", demand=1.7)
    await setting.looks_more(5)
    assert setting.changed == [], "words alone are no change"
    said[0] = Decision(5, "More.", "all")
    await setting.looks_more(1)
    assert setting.changed == [KEY]
    setting.autoscaler.scaling(KEY)
    # What the API server refuses is tried again by the queue, in its own time.
    setting.autoscaler.want(KEY, watch(first))
    setting.changed.clear()
    await setting.looks_more(8)
    assert setting.changed == []


async def test_a_number_that_somebody_else_has_set_is_set_right(pair: Pair) -> None:
    first, _, setting = pair
    first.tell(in_flight=1)
    setting.decision = lambda *_: Decision(5, "More.", "all")
    setting.autoscaler.want(KEY, watch(first))
    await setting.until(lambda: setting.changed != [])
    assert (scaling := setting.autoscaler.scaling(KEY)) is not None
    assert (scaling.decision.replicas, scaling.seen) == (5, 2)
    setting.changed.clear()
    setting.autoscaler.want(KEY, watch(first, fleet=Fleet(5, 2)))  # as a plan that was carried out
    await setting.looks_more(3)
    assert setting.changed == []
    assert (scaling := setting.autoscaler.scaling(KEY)) is not None
    assert scaling.seen == 5
    setting.autoscaler.want(KEY, watch(first, fleet=Fleet(1, 1)))  # what it was told is of five, and says nothing here
    await setting.until(lambda: setting.changed != [])
    assert (scaling := setting.autoscaler.scaling(KEY)) is not None
    assert (scaling.decision.replicas, scaling.seen) == (5, 1)


async def test_words_that_change_all_the_time_ask_for_few_plans(pair: Pair) -> None:
    first, _, setting = pair
    first.tell(in_flight=1)
    setting.decision = lambda _, fleet: Decision(
        fleet.replicas, "Enough.", "all", (Limit.WINDOW, Limit.METRICS)[len(setting.looks) % 2]
    )
    setting.autoscaler.want(KEY, watch(first))
    await setting.until(lambda: setting.changed != [])
    setting.autoscaler.scaling(KEY)
    setting.changed.clear()
    begin = time.monotonic()
    asked = 0
    while len(setting.looks) < 30:
        await setting.looks_more(1)
        if setting.changed:
            asked += 1
            setting.changed.clear()
            setting.autoscaler.scaling(KEY)
    assert 1 <= asked <= 1 + (time.monotonic() - begin) / watched.WORDS_SECONDS


async def test_where_there_may_be_more_load_the_next_look_comes_soon_and_not_at_once_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, setting = pair
    monkeypatch.setattr(watched, "GATEWAY_SECONDS", 0.5)
    monkeypatch.setattr(watched, "DOUBT_AGAIN_SECONDS", 0.1)
    first.tell(in_flight=1)
    second.tell(in_flight=1)
    setting.decision = lambda _, fleet: Decision(fleet.replicas, "Enough.", "all", doubtful=len(setting.looks) > 10)
    setting.autoscaler.want(KEY, watch(first, second))
    await setting.looks_more(40)
    times = [now for _, _, now in setting.looks]
    calm, doubtful = ((len(part) - 1) / (part[-1] - part[0]) for part in (times[4:10], times[10:]))
    # Each of the two on its beat, and both once more for each doubt.
    assert 2 * calm < doubtful < 1.2 * 2 * (1 / 0.5 + 1 / 0.1)


async def test_what_somebody_else_scales_is_shown_and_not_planned(pair: Pair) -> None:
    first, _, setting = pair
    first.tell(in_flight=3, held=1)
    replicas = [2]
    setting.decision = lambda *_: Decision(replicas[0], "So many.", "all", demand=1.5)
    setting.autoscaler.want(KEY, watch(first, native=False))
    await setting.until(lambda: setting.changed != [])
    setting.autoscaler.scaling(KEY)
    setting.changed.clear()
    replicas[0] = 7
    await setting.looks_more(5)
    assert setting.changed == []
    assert dict(setting.autoscaler.figures()) == {KEY: Figures(7, 4, 1, 1.5)}


async def test_what_is_not_known_has_no_figure(pair: Pair) -> None:
    first, second, setting = pair
    first.tell(in_flight=3)
    setting.autoscaler.want(KEY, watch(first, second))
    assert dict(setting.autoscaler.figures()) == {KEY: Figures()}
    await setting.until(lambda: len(setting.looks) > 0)
    assert dict(setting.autoscaler.figures())[KEY] == Figures(2, 3, 0, None)
    second.stop()
    await setting.until(lambda: setting.signals.problem is not None)
    assert dict(setting.autoscaler.figures())[KEY] == Figures(2, None, None, None)
    setting.decision = lambda *_: Decision(2, "?", "none", Limit.METRICS, (Reason.METRICS_UNKNOWN, "?"), demand=1)
    await setting.looks_more(1)
    assert dict(setting.autoscaler.figures())[KEY] == Figures()


async def test_an_error_of_ours_freezes_its_resource_alone(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    first, second, setting = pair
    first.tell(in_flight=1)
    second.tell(in_flight=2)
    fails = [True]

    def fail(signals: Signals, fleet: Fleet) -> Decision:
        if ONE in signals.gateways and fails[0]:
            raise ZeroDivisionError("a test's")
        return Decision(6, "More.", "all")

    setting.decision = fail
    other = ("ns", "other")
    with caplog.at_level(logging.ERROR, "falcon_operator"):
        setting.autoscaler.want(KEY, watch(first))
        setting.autoscaler.want(other, watch(second))
        await setting.looks_more(10)
    frozen, free = setting.autoscaler.scaling(KEY), setting.autoscaler.scaling(other)
    assert frozen is not None
    assert free is not None
    assert free.decision.replicas == 6
    assert (frozen.decision.replicas, frozen.decision.limited_by) == (2, Limit.METRICS)
    assert frozen.decision.unknown is not None
    assert frozen.decision.unknown[0] is Reason.METRICS_UNKNOWN
    assert "ZeroDivisionError" in frozen.decision.unknown[1]
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1, "once, and not with each look"
    assert "ns/web" in errors[0].getMessage()
    assert errors[0].exc_info is not None
    fails[0] = False
    await setting.looks_more(4)
    assert (found := setting.autoscaler.scaling(KEY)) is not None
    assert found.decision.replicas == 6


async def test_the_day_s_clock_is_not_looked_at(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, setting = pair
    first.tell(in_flight=1)
    setting.autoscaler.want(KEY, watch(first))
    await setting.looks_more(2)
    for hours in (1, -2):
        real = time.time
        monkeypatch.setattr(time, "time", lambda real=real, hours=hours: real() + 3600 * hours)
        before = setting.looks[-1][2]
        await setting.looks_more(3)
        assert 0 < setting.looks[-1][2] - before < 20
        assert setting.signals.problem is None


async def test_a_monotonic_clock_that_jumps_costs_a_look_and_no_more(pair: Pair) -> None:
    first, _, setting = pair
    first.tell(in_flight=1)
    setting.autoscaler.want(KEY, watch(first))
    await setting.looks_more(2)
    for ahead in (3600.0, 0.0):
        setting.ahead = ahead
        await setting.looks_more(6)
        assert setting.signals.problem is None
        assert abs(setting.looks[-1][2] - setting.signals.gateways[ONE].at) < 5


async def test_pods_that_start_grow_older_between_two_plans(pair: Pair) -> None:
    first, _, setting = pair
    first.tell(in_flight=1)
    setting.autoscaler.want(KEY, watch(first, fleet=Fleet(2, 1, starting=(10.0, 3.0))))
    await setting.looks_more(3)
    (_, before, at), (_, after, later) = setting.looks[-2:]
    assert [new - old for old, new in zip(before.starting, after.starting, strict=True)] == pytest.approx(
        [later - at] * 2
    )
    assert before.starting[0] > 10


async def test_a_plan_s_new_figures_are_decided_by_soon_and_not_in_a_loop(pair: Pair) -> None:
    first, _, setting = pair
    setting.autoscaler.want(KEY, watch(first))
    await until_asked(first, lambda: first.polls > 0)  # so nothing else leads to a decision
    looks = len(setting.looks)
    setting.autoscaler.want(KEY, watch(first, fleet=replace(FLEET, replicas=5)))
    assert len(setting.looks) == looks, "the plan itself does not wait for it"
    await setting.until(lambda: len(setting.looks) > looks)
    assert setting.looks[-1][1].replicas == 5
    assert first.polls == 1, "which asks nobody"


async def test_what_was_learned_before_is_known_from_the_start(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    first, second, setting = pair
    before = Learned(prompt=700.0, answer=90.0)
    setting.autoscaler.want(KEY, watch(first, learned=before.manifest()))
    setting.autoscaler.want(("ns", "odd"), watch(second, learned={"promptTokens": "x", "answerTokens": "y"}))
    assert "ns/odd: status.autoscaling.learned cannot be read" in caplog.text
    await setting.until(lambda: len(setting.states) > 0 and setting.autoscaler.scaling(KEY) is not None)
    assert (scaling := setting.autoscaler.scaling(KEY)) is not None
    assert (scaling.learned.prompt, scaling.learned.answer) == (700, 90)


async def test_what_is_forgotten_is_not_asked_and_begins_anew(pair: Pair) -> None:
    first, second, setting = pair
    setting.autoscaler.want(KEY, watch(first, second))
    await until_asked(first, lambda: first.polls > 0)  # a wait for news is on its way
    setting.autoscaler.want(KEY, None)
    assert setting.autoscaler.scaling(KEY) is None
    assert dict(setting.autoscaler.figures()) == {}
    looks, states = len(setting.looks), len(setting.states)
    first.tell(held=1, arrived=1)
    second.tell()
    for gateway in (first, second):
        await until_asked(gateway, lambda gateway=gateway: not gateway.writers)  # type: ignore[misc]
    assert len(setting.looks) == looks
    setting.autoscaler.want(KEY, watch(first, second))
    await setting.until(lambda: len(setting.states) > states)
    assert setting.states[states].looked is None


async def test_a_process_that_was_late_itself_blames_nobody(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, setting = pair
    monkeypatch.setattr(watched, "IDLE_SECONDS", 60)
    for gateway in (first, second):
        gateway.tell(in_flight=1)
    setting.autoscaler.want(KEY, watch(first, second))
    await setting.looks_more(3)
    connections = first.connections, second.connections
    for _ in range(3):
        count = len(setting.looks)
        time.sleep(0.8)  # noqa: ASYNC251  # nothing runs meanwhile: that is what this test is of
        await setting.looks_more(2)
        assert {signals.problem for signals, _, _ in setting.looks[count:]} == {None}
    assert (first.connections, second.connections) == connections


async def test_many_resources_do_not_beat_at_once() -> None:
    gateways = [Gateway(f"127.0.1.{number}") for number in range(1, 21)]
    chance = iter(range(20))
    async with running(*gateways) as port:
        setting = Setting(port)
        setting.autoscaler._jitter = lambda: next(chance) / 20
        times: list[float] = []

        async def noted(gateway: Gateway, path: str) -> bytes:
            times.append(time.monotonic())
            return await gateway.answer(path)

        for gateway in gateways:
            gateway.instead = partial(noted, gateway)
            gateway.tell(in_flight=1)
            setting.autoscaler.want(("ns", gateway.address), watch(gateway))
        await setting.until(lambda: len(times) > 200)
        turns = {round(at * sources.TURNS) for at in times}
        assert len(turns) > 20, "their turns are spread"
        await setting.autoscaler.close()
