"""The autoscaler's looking: whom it asks when, and what an answer, or none, is taken for."""

import asyncio
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from statistics import median

import pytest
from tests.unit.autoscaler.setting import CONFIG, KEY, ONE, TWO, Pair, Setting, until_asked, watch
from tests.unit.load_pods import Engine, Gateway, pod, response, running

from falcon_operator.runtime import sources, watched
from falcon_operator.runtime.watched import Figures


async def test_two_gateways_are_asked_in_turn(pair: Pair) -> None:
    first, second, setting = pair
    first.tell(in_flight=3, arrived=30)
    second.tell(in_flight=1, held=2, arrived=7)
    asked: list[tuple[float, str]] = []
    for gateway in (first, second):
        gateway.instead = partial(_noted, gateway, asked)
    setting.autoscaler.want(KEY, watch(first, second))
    await setting.until(lambda: len(asked) >= 12)
    own = [at - before for (before, one), (at, other) in zip(asked, asked[2:], strict=False) if one == other]
    assert len(own) >= 6, "by turns, but where the machine stood still"
    assert median(own) == pytest.approx(watched.GATEWAY_SECONDS, rel=0.2)
    apart = median(at - before for (before, one), (at, other) in pairwise(asked) if one != other)
    assert apart == pytest.approx(watched.GATEWAY_SECONDS / 2, rel=0.4), "one half way between the other's"
    assert (first.connections, second.connections) == (1, 1)
    signals = setting.signals
    assert {uid: (s.in_flight, s.held, s.arrived) for uid, s in signals.gateways.items()} == {
        ONE: (3, 0, 30),
        TWO: (1, 2, 7),
    }
    assert (signals.gateways_expected, signals.engines_expected, signals.problem) == (2, 0, None)
    assert len(setting.looks) >= 11, "each answer is decided by"


async def _noted(gateway: Gateway, asked: list[tuple[float, str]], path: str) -> bytes:
    asked.append((time.monotonic(), gateway.address))
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
        await until_asked(gateway, lambda gateway=gateway: gateway.polls > 0)  # type: ignore[misc]
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
    await until_asked(first, lambda: first.polls > polls)
    assert first.asked[-1] == "/load?arrived=1"


async def test_a_wait_without_news_goes_on(pair: Pair) -> None:
    first, _, setting = pair
    setting.autoscaler.want(KEY, watch(first))
    for polls in (1, 2, 3):
        await until_asked(first, lambda polls=polls: first.polls == polls)  # type: ignore[misc]
        first.tell()  # its time is over
    await until_asked(first, lambda: first.polls == 4)
    looks, asked = len(setting.looks), len(first.asked)
    assert first.asked[-3:] == ["/load?arrived=0"] * 3
    assert first.connections == 1
    assert (looks, asked) == (len(setting.looks), len(first.asked)), "and nothing is asked meanwhile"


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
    await until_asked(first, lambda: first.polls > 0)
    asked = len(engine.asked)
    first.tell(in_flight=1, arrived=1)
    await engine.until_asked(asked + 1)
    engine.stop()
