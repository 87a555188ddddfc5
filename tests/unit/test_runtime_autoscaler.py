"""The autoscaler's looking: whom it asks when, what it decides by, and when it says so."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from tests.unit.load_pods import Engine, Gateway, pod, response, running

from falcon_operator.api.reasons import Reason
from falcon_operator.decide.autoscale.engine_law import Learned
from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import Config, Decision, Fleet, Limit, Signals
from falcon_operator.decide.types import Watch
from falcon_operator.runtime import sources, watched
from falcon_operator.runtime.autoscaler import Autoscaler
from falcon_operator.runtime.watched import Figures

KEY = ("ns", "web")
CONFIG = Config(min_replicas=0, max_replicas=8)
FLEET = Fleet(replicas=2, ready=2)
ONE, TWO = "127.0.0.1", "127.0.0.2"


def watch(*gateways: Gateway, engines: tuple[Engine, ...] = (), config: Config = CONFIG, **more: Any) -> Watch:
    """Pods that are called as their addresses."""
    pods = [tuple(pod(server.address, server.address) for server in servers) for servers in (gateways, engines)]
    return Watch(**{"config": config, "fleet": FLEET, "gateways": pods[0], "engines": pods[1], **more})


class Setting:
    """An autoscaler whose decision the test makes, and everything that it did."""

    def __init__(self, port: int) -> None:
        self.decision: Callable[[Signals, Fleet], Decision] = lambda _, fleet: Decision(
            fleet.replicas, "Enough.", "all"
        )
        self.looks: list[tuple[Signals, Fleet, float]] = []
        self.states: list[State] = []
        self.changed: list[tuple[str, str]] = []
        self.ahead = 0.0  # of the monotonic clock
        self.looked = asyncio.Event()
        self.autoscaler = Autoscaler(
            self.changed.append,
            gateway_port=port,
            engine_port=port,
            decision=self._decide,
            clock=lambda: time.monotonic() + self.ahead,
            jitter=lambda: 0.3,
        )

    def _decide(
        self, signals: Signals, fleet: Fleet, config: Config, state: State, now: float
    ) -> tuple[Decision, State]:
        self.looks.append((signals, fleet, now))
        self.states.append(state)
        self.looked.set()
        return self.decision(signals, fleet), replace(state, looked=now)

    @property
    def signals(self) -> Signals:
        return self.looks[-1][0]

    async def until(self, reached: Callable[[], bool], seconds: float = 20.0) -> None:
        """Look until something is so."""
        async with asyncio.timeout(seconds):
            while not reached():
                self.looked.clear()
                await self.looked.wait()

    async def looks_more(self, times: int) -> None:
        count = len(self.looks) + times
        await self.until(lambda: len(self.looks) >= count)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All periods are a tenth, and a turn a hundredth of a second."""
    for module, name, value in (
        (watched, "GATEWAY_SECONDS", 0.1),
        (watched, "IDLE_SECONDS", 0.5),
        (watched, "ENGINE_SECONDS", 0.5),
        (watched, "LOAD_SECONDS", 0.1),
        (watched, "NO_LOAD_SECONDS", 0.5),
        (watched, "PLAN_SECONDS", 0.02),
        (watched, "GATHER_SECONDS", 0.02),
        (watched, "WORDS_SECONDS", 0.3),
        (sources, "LOOK_SECONDS", 0.45),
        (sources, "NEWS_SECONDS", 2.5),
        (sources, "AGAIN_SECONDS", 0.1),
        (sources, "PATIENT_SECONDS", 0.5),
        (sources, "TURNS", 100),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Gateway, Gateway, Setting]]:
    first, second = Gateway(ONE), Gateway(TWO)
    async with running(first, second) as port:
        setting = Setting(port)
        yield first, second, setting
        await setting.autoscaler.close()
        names = [task.get_name() for task in asyncio.all_tasks() if not task.cancelling()]
        assert [name for name in names if name.startswith(("connect to", "load of"))] == []


Pair = tuple[Gateway, Gateway, Setting]


async def test_two_gateways_are_asked_in_turn(pair: Pair) -> None:
    first, second, setting = pair
    first.tell(in_flight=3, arrived=30)
    second.tell(in_flight=1, held=2, arrived=7)
    order: list[str] = []
    for gateway in (first, second):
        gateway.instead = partial(_noted, gateway, order)
    setting.autoscaler.want(KEY, watch(first, second))
    await setting.until(lambda: len(order) >= 12)
    assert order[:12] in ([ONE, TWO] * 6, [TWO, ONE] * 6), "each once in a period, one half way between the other's"
    assert (first.connections, second.connections) == (1, 1)
    signals = setting.signals
    assert {uid: (s.in_flight, s.held, s.arrived) for uid, s in signals.gateways.items()} == {
        ONE: (3, 0, 30),
        TWO: (1, 2, 7),
    }
    assert (signals.gateways_expected, signals.engines_expected, signals.problem) == (2, 0, None)
    assert len(setting.looks) >= 11, "each answer is decided by"


async def _noted(gateway: Gateway, order: list[str], path: str) -> bytes:
    order.append(gateway.address)
    return await gateway.answer(path)


async def test_nothing_is_decided_before_all_have_been_asked(pair: Pair) -> None:
    first, second, setting = pair
    late = asyncio.Event()

    async def waits(path: str) -> bytes:
        await late.wait()
        return await second.answer(path)

    second.instead = waits
    setting.autoscaler.want(KEY, watch(first, second))
    await first.until_asked(2)
    assert setting.looks == []
    assert setting.autoscaler.scaling(KEY) is None
    late.set()
    await setting.until(lambda: len(setting.looks) > 0)
    assert sorted(setting.looks[0][0].gateways) == [ONE, TWO]


async def test_one_gateway_that_never_answers_is_a_problem_and_the_other_is_read_on(pair: Pair) -> None:
    first, second, setting = pair

    async def never(_: str) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    second.instead = never
    setting.autoscaler.want(KEY, watch(first, second))
    await setting.until(lambda: len(setting.looks) > 3 and setting.signals.problem is not None)
    signals = setting.signals
    assert sorted(signals.gateways) == [ONE]
    assert signals.gateways_expected == 2
    assert signals.problem == f"http://{TWO}:{second.port}/load does not answer: no answer in time"
    second.instead = None
    await setting.until(lambda: setting.signals.problem is None and len(setting.signals.gateways) == 2)


async def test_a_gateway_that_is_late_each_time_is_still_read(pair: Pair) -> None:
    first, _, setting = pair

    async def late(path: str) -> bytes:
        await asyncio.sleep(0.15)  # a beat and a half late is what this gateway is
        return await first.answer(path)

    first.instead = late
    first.tell(in_flight=4)
    setting.autoscaler.want(KEY, watch(first))
    await setting.looks_more(8)
    for signals, _, now in setting.looks:
        assert signals.problem is None
        assert signals.gateways[ONE].in_flight == 4
        assert now - signals.gateways[ONE].at >= 0.15, "a sample is as old as the question"
    assert first.connections == 1


async def test_a_sample_that_could_not_be_renewed_is_kept_and_ages(pair: Pair) -> None:
    first, second, setting = pair
    second.tell(in_flight=9)
    setting.autoscaler.want(KEY, watch(first, second))
    await setting.until(lambda: len(setting.looks) > 0)
    second.stop()
    await setting.until(lambda: setting.signals.problem is not None)
    await setting.looks_more(3)
    assert setting.signals.problem == f"http://{TWO}:{second.port}/load does not answer: connection refused"
    kept = setting.signals.gateways[TWO]
    assert kept.in_flight == 9
    await setting.looks_more(3)
    assert setting.signals.gateways[TWO] is kept
    await second.start()
    await setting.until(lambda: setting.signals.problem is None)
    assert setting.signals.gateways[TWO] is not kept


async def test_a_process_that_began_anew_counts_from_zero(pair: Pair) -> None:
    first, _, setting = pair
    first.tell(arrived=500, in_flight=1)
    setting.autoscaler.want(KEY, watch(first))
    await setting.until(lambda: len(setting.looks) > 0)
    first.stop()
    first.tell(arrived=2)
    await first.start()
    await setting.until(lambda: setting.signals.gateways[ONE].arrived == 2)


async def test_a_pod_that_was_replaced_is_another_source(pair: Pair) -> None:
    first, second, setting = pair
    setting.autoscaler.want(KEY, watch(first, second))
    await setting.until(lambda: len(setting.looks) > 0)
    asked = len(second.asked)
    other = replace(watch(first), gateways=(pod(ONE, ONE), pod("new", TWO)))
    setting.autoscaler.want(KEY, other)
    await setting.until(lambda: sorted(setting.signals.gateways) == [ONE, "new"])
    assert second.connections == 2
    assert len(second.asked) > asked
    # The same pod with another address, as after its node's restart.
    setting.autoscaler.want(KEY, replace(watch(first), gateways=(pod("new", ONE),)))
    await setting.until(lambda: list(setting.signals.gateways) == ["new"] and first.connections == 2)
    assert setting.signals.gateways_expected == 1


async def test_an_idle_resource_waits_for_news_and_wakes_at_once(pair: Pair) -> None:
    first, second, setting = pair
    setting.autoscaler.want(KEY, watch(first, second))
    for gateway in (first, second):
        await _until_asked(gateway, lambda gateway=gateway: gateway.polls > 0)  # type: ignore[misc]
    assert first.asked[-1] == "/load?arrived=0"
    count, asked = len(setting.looks), len(second.asked)
    first.tell(held=1, arrived=1)
    await setting.until(lambda: len(setting.looks) > count)
    assert setting.signals.gateways[ONE].held == 1, "the first look after the news has them"
    await second.until_asked(asked + 2)
    assert second.asked[-1] == "/load", "the other one is asked on each beat again"
    assert setting.signals.problem is None
    first.tell(held=0, in_flight=0)
    polls = first.polls
    await _until_asked(first, lambda: first.polls > polls)
    assert first.asked[-1] == "/load?arrived=1"


async def test_a_wait_without_news_goes_on(pair: Pair) -> None:
    first, _, setting = pair
    setting.autoscaler.want(KEY, watch(first))
    for polls in (1, 2, 3):
        await _until_asked(first, lambda polls=polls: first.polls == polls)  # type: ignore[misc]
        first.tell()  # its time is over
    await _until_asked(first, lambda: first.polls == 4)
    looks, asked = len(setting.looks), len(first.asked)
    assert first.asked[-3:] == ["/load?arrived=0"] * 3
    assert first.connections == 1
    assert (looks, asked) == (len(setting.looks), len(first.asked)), "and nothing is asked meanwhile"


async def _until_asked(gateway: Gateway, reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not reached():
            gateway.news.clear()
            await gateway.news.wait()


async def test_a_wait_that_never_ends_is_a_problem(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, setting = pair
    monkeypatch.setattr(sources, "NEWS_SECONDS", 0.4)
    setting.autoscaler.want(KEY, watch(first))
    await setting.until(lambda: bool(setting.looks) and setting.signals.problem is not None)
    assert setting.signals.problem == f"http://{ONE}:{first.port}/load does not answer: no answer in time"
    await setting.until(lambda: setting.signals.problem is None)


async def test_one_that_answers_a_wait_at_once_is_not_asked_in_a_loop(pair: Pair) -> None:
    first, _, setting = pair
    times: list[float] = []

    async def at_once(path: str) -> bytes:
        if "?" in path:
            times.append(time.monotonic())
        return response(first.page())

    first.instead = at_once
    setting.autoscaler.want(KEY, watch(first))
    await setting.until(lambda: len(times) > 4)
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) > 0.05, gaps


async def test_without_a_gateway_engines_are_asked_for_everything() -> None:
    engines = (Engine(ONE, running=3, waiting=1, finished=10), Engine(TWO, running=2))
    async with running(*engines) as port:
        setting = Setting(port)
        config = replace(CONFIG, gateway=False)
        setting.autoscaler.want(KEY, watch(engines=engines, config=config))
        await setting.until(lambda: len(setting.looks) > 0 and len(setting.signals.engines) == 2)
        assert {uid: (s.running, s.waiting, s.finished) for uid, s in setting.signals.engines.items()} == {
            ONE: (3, 1, 10),
            TWO: (2, 0, 0),
        }
        assert dict(setting.autoscaler.figures())[KEY] == Figures(2, 6, None, None)
        engines[1].running = "NaN"
        await setting.until(lambda: setting.signals.problem is not None)
        url = f"http://{TWO}:{port}/metrics"
        assert setting.signals.problem == f"{url} says something that is no number for vllm:num_requests_running"
        assert dict(setting.autoscaler.figures())[KEY].requests is None
        engines[1].running = 0
        await setting.until(lambda: setting.signals.engines[TWO].running == 0)
        await setting.autoscaler.close()


async def test_engines_behind_gateways_are_asked_while_there_is_load(pair: Pair) -> None:
    first, _, setting = pair
    engine = Engine("127.0.0.3", running=1, port=first.port)
    await engine.start()
    first.tell(in_flight=1)
    setting.autoscaler.want(KEY, watch(first, engines=(engine,)))
    await setting.until(lambda: bool(setting.looks) and len(setting.signals.engines) == 1)
    assert setting.signals.engines_expected == 1
    first.tell(in_flight=0)
    await _until_asked(first, lambda: first.polls > 0)
    asked = len(engine.asked)
    first.tell(in_flight=1, arrived=1)
    await engine.until_asked(asked + 1)
    engine.stop()


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
    await _until_asked(first, lambda: first.polls > 0)  # so nothing else leads to a decision
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
    await _until_asked(first, lambda: first.polls > 0)  # a wait for news is on its way
    setting.autoscaler.want(KEY, None)
    assert setting.autoscaler.scaling(KEY) is None
    assert dict(setting.autoscaler.figures()) == {}
    looks, states = len(setting.looks), len(setting.states)
    first.tell(held=1, arrived=1)
    second.tell()
    for gateway in (first, second):
        await _until_asked(gateway, lambda gateway=gateway: not gateway.writers)  # type: ignore[misc]
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
