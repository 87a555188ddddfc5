"""The fake engine with a law for its time, and requests that come when they come."""

import asyncio
import itertools
from random import Random

import httpx
import pytest
from tests.load.arrivals import Arrival, Arrivals, poisson
from tests.load.client import Ask, Client, Outcome
from tests.load.engine.settings import Law, Settings, from_command_line
from tests.load.engine.work import Generation, LawfulWork
from tests.load.test_client import engine


class Clock:
    """A loop's clock that moves from timer to timer."""

    def __init__(self) -> None:
        self.now, self.timers = 0.0, list[tuple[float, int, asyncio.TimerHandle]]()
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, call: object, *arguments: object) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(due, call, arguments, asyncio.get_running_loop())  # type: ignore[arg-type]
        self.timers.append((due, next(self._numbers), handle))
        return handle

    def until(self, end: float) -> None:
        while self.timers and min(self.timers)[0] <= end:
            due = min(self.timers)
            self.timers.remove(due)
            self.now = due[0]
            if not due[2].cancelled():
                due[2]._run()
        self.now = end


class Timed:
    """Work under a law, with the times of all tokens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sequences: int, law: Law) -> None:
        self.clock = Clock()
        self.work = LawfulWork(sequences, law)
        monkeypatch.setattr(self.work, "_loop", self.clock)

    def ask(self, tokens: int, prompt: int) -> tuple[Generation, list[float]]:
        times: list[float] = []

        def token(_: int) -> None:
            times.append(round(self.clock.now, 6))

        generation = Generation(tokens, 0.0, token, lambda: None, prompt)
        self.work.add(generation)
        return generation, times


async def test_a_turn_takes_what_the_law_says(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch, 2, Law(step=0.1, each=0.01, prompt_rate=1000))
    _, first = timed.ask(4, prompt=100)
    timed.clock.until(0.05)
    _, second = timed.ask(2, prompt=50)
    _, third = timed.ask(1, prompt=10)
    assert (timed.work.running, timed.work.waiting) == (1, 2)
    timed.clock.until(10)
    # 0.1 + 100 / 1000, then 0.1 + 0.01 + 50 / 1000; two go on; one goes on, and the third prompt has room
    assert first == [0.2, 0.36, 0.48, 0.6]
    assert second == [0.36, 0.48]
    assert third == [0.6]
    assert (timed.work.finished, timed.work.prompt_tokens, timed.work.generated) == (3, 160, 7)
    assert timed.work.idle.is_set()


async def test_who_hangs_up_leaves_its_place_in_the_next_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch, 1, Law(step=0.1, each=0.0, prompt_rate=1000))
    gone, tokens = timed.ask(50, prompt=100)
    _, next_one = timed.ask(1, prompt=100)
    timed.clock.until(0.25)
    timed.work.abort(gone)
    timed.clock.until(10)
    assert tokens == [0.2]
    assert next_one == [0.5], "after the turn that was under way"
    assert (timed.work.finished, timed.work.aborted) == (1, 1)


async def test_nothing_more_comes_from_an_engine_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Timed(monkeypatch, 1, Law(step=0.1, each=0.0, prompt_rate=1000))
    _, tokens = timed.ask(50, prompt=100)
    timed.ask(1, prompt=1)
    timed.clock.until(0.35)
    assert len(timed.work.stop()) == 2
    timed.clock.until(10)
    assert tokens == [0.2, 0.3]


def test_the_law_is_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.32.0")
    arguments = ["serve", "m", "--max-num-seqs", "8"]
    assert from_command_line(arguments, {"FAKE_LAW": "0.02,0.0025,4000"}).law == Law(0.02, 0.0025, 4000)
    assert from_command_line(arguments, {}).law is None


def metrics(port: int) -> dict[str, float]:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("vllm:")]
    own = 'engine="0",model_name="falcon-h1r-7b-nvfp4"'
    return {name.replace(own, ""): float(number) for name, number in lines}


async def test_counters_are_those_of_vllm() -> None:
    async with engine(law=Law(0.001, 0.0, 100_000)) as (running, port):  # type: ignore[arg-type]
        client = Client("127.0.0.1", port)
        whole = await client.ask(Ask(7, prompt="one two three"))
        left = await Client("127.0.0.1", port).ask(Ask(60_000, prompt="one two", limit=0.2))
        await asyncio.wait_for(running.work.idle.wait(), 10)
        found = await asyncio.to_thread(metrics, port)
    assert (whole.kind, left.kind) == ("ok", "truncated")
    assert found["vllm:prompt_tokens_total{}"] == 5
    assert found["vllm:generation_tokens_total{}"] >= 7 + left.tokens
    others = found["vllm:generation_tokens_total{}"] - 2
    assert found["vllm:inter_token_latency_seconds_sum{}"] == pytest.approx(others * 0.001, rel=0.01)
    assert found['vllm:request_success_total{,finished_reason="length"}'] == 1
    assert found['vllm:request_success_total{,finished_reason="abort"}'] == 1


async def asked(port: int, *arrivals: Arrival) -> tuple[float, list[Outcome]]:
    clients = await Arrivals.begin([f"127.0.0.1:{port}"], arrivals)
    return clients.begun, await clients.end()


async def test_requests_come_at_their_times_whatever_became_of_those_before() -> None:
    async with engine(sequences=1, pace=0.05) as (running, port):
        begun, outcomes = await asked(port, Arrival(0.1, 20), Arrival(0.2, 3), Arrival(0.4, 1, prompt=30))
    assert [outcome.kind for outcome in outcomes] == ["ok"] * 3
    for outcome, at in zip(outcomes, (0.1, 0.2, 0.4), strict=True):
        assert outcome.began >= begun + at
    assert outcomes[2].began < outcomes[0].ended, "the first one is still under way"
    assert running.work.prompt_tokens == 32


def test_a_poisson_process_has_its_rate_and_is_the_same_again() -> None:
    found = poisson(Random(1), 5.0, 10.0, 1010.0, 7, 3)
    assert found == poisson(Random(1), 5.0, 10.0, 1010.0, 7, 3)
    assert 4700 < len(found) < 5300
    assert 10.0 < found[0].at < found[-1].at < 1010.0
    assert Settings().law is None
