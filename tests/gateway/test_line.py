"""Requests that no engine can take yet: who waits, in which order, for how long, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from tests.gateway.conftest import Start, StartEngine
from tests.gateway.engine import Engine, Taken
from tests.gateway.gateway import Connection, until

from falcon_operator.desired.gateway.config import BUFFER_BYTES
from falcon_operator.desired.gateway.settings import BODY_BYTES

# Far below all other bounds; how soon it is, `make bench-gateway` measures.
NOTICED = 50.0
# The kernel keeps the rest, and the client's end behind it: up to 64 KiB it does so for any connection.
LARGE = "x" * (BUFFER_BYTES + 50_000)


async def test_requests_wait_for_the_first_engine(start: Start, start_engine: StartEngine) -> None:
    gateway = await start()
    asked = [await gateway.ask(str(number), chunks=2) for number in range(5)]
    await until(partial(gateway.holds, 5))
    gateway.names.ports = [(await start_engine()).port]
    for one in asked:
        assert (await one.answer()).endswith(b"data: [DONE]\n\n")
        assert one.status == 200
    assert await gateway.holds(0)


async def test_the_line_is_bounded_in_number(start: Start) -> None:
    gateway = await start(max_held=2)
    waiting = [await gateway.ask(str(number)) for number in range(2)]
    await until(partial(gateway.holds, 2))
    refused = await gateway.ask("one too many")
    assert (await refused.error())["code"] == "no_engine_ready"
    assert (refused.status, refused.head.header("retry-after")) == (503, "5")
    assert await gateway.holds(2)
    waiting[0].close()
    await until(partial(gateway.holds, 1))


async def test_the_line_is_bounded_in_time(start: Start) -> None:
    gateway = await start(hold_seconds=1)
    asked = await gateway.ask()
    assert (await asked.error())["code"] == "no_engine_ready"
    assert (asked.status, asked.head.header("retry-after")) == (503, "5")


async def test_nothing_is_held_where_nothing_may_be(start: Start) -> None:
    gateway = await start(hold_seconds=0, max_held=0)
    asked = await gateway.ask()
    assert (await asked.error())["code"] == "no_engine_ready"


async def test_busy_engines_answer_429_when_the_line_is_full(start: Start, start_engine: StartEngine) -> None:
    gateway = await start(per_server=1, max_held=1)
    engine = await start_engine(automatic=False)
    gateway.names.ports = [engine.port]
    await gateway.ask("runs")
    await until(lambda: len(engine.taken) == 1)
    await gateway.ask("waits")
    await until(partial(gateway.holds, 1))
    refused = await gateway.ask("refused")
    assert (await refused.error())["code"] == "engines_busy"
    assert (refused.status, refused.head.header("retry-after")) == (429, "5")


async def test_busy_engines_answer_429_when_the_wait_is_over(start: Start, start_engine: StartEngine) -> None:
    gateway = await start(per_server=1, hold_seconds=1)
    engine = await start_engine(automatic=False)
    gateway.names.ports = [engine.port]
    await until(partial(gateway.knows, 1))
    await gateway.ask("runs")
    await until(lambda: len(engine.taken) == 1)
    refused = await gateway.ask("waits")
    assert (await refused.error())["code"] == "engines_busy"
    assert refused.status == 429


async def test_nobody_overtakes_and_no_engine_gets_more_than_its_share(start: Start, start_engine: StartEngine) -> None:
    gateway = await start(per_server=2)
    first, second = await start_engine(automatic=False), await start_engine(automatic=False)
    gateway.names.ports = [first.port]
    await until(partial(gateway.knows, 1))  # from here on what it holds tells which ones have come
    asked: list[Connection] = []
    for number in range(20):
        asked.append(await gateway.ask(str(number)))
        await until(lambda: gateway.holds(max(0, len(asked) - 2)))

    def taken() -> list[int]:
        return sorted(int(one.name) for one in first.taken + second.taken)

    async def the_oldest_comes(count: int) -> None:
        await until(lambda: len(taken()) == count)
        assert taken() == list(range(count))

    def running(engine: Engine) -> list[Taken]:
        return [one for one in engine.taken if not one.done.is_set()]

    for end in range(2, 8):  # one goes, one comes: the oldest
        running(first)[0].release()
        await the_oldest_comes(end + 1)
    gateway.names.ports = [first.port, second.port]
    await until(lambda: len(second.taken) == 2)
    for end in range(10, 20):
        running((first, second)[end % 2])[0].release()
        await the_oldest_comes(end + 1)
        assert [len(running(engine)) for engine in (first, second)] == [2, 2]
    for one in running(first) + running(second):
        one.release()
    for connection in asked:
        assert (await connection.answer()).endswith(b"[DONE]\n\n")


@pytest.mark.parametrize("body", ["", LARGE], ids=["small", "larger than the buffer"])
@pytest.mark.parametrize("end", [Connection.close, Connection.reset], ids=["closed", "reset"])
@pytest.mark.parametrize("busy", [False, True], ids=["none ready", "all full"])
async def test_who_hangs_up_while_waiting_is_gone_from_the_line(
    start: Start, start_engine: StartEngine, body: str, end: Callable[[Connection], None], busy: bool
) -> None:
    gateway = await start(per_server=1)
    engine = await start_engine(automatic=False)
    if busy:
        gateway.names.ports = [engine.port]
        await gateway.ask("runs")
        await until(lambda: len(engine.taken) == 1)
    stays = await gateway.ask("stays")
    await until(partial(gateway.holds, 1))

    gone = [await gateway.ask("gone", pad=body) for _ in range(3)]
    await until(partial(gateway.holds, 4))
    for one in gone:
        end(one)
    await until(partial(gateway.holds, 1), limit=NOTICED)
    gateway.names.ports = [engine.port]
    for taken in list(engine.taken):
        taken.release()
    await until(lambda: engine.taken[-1:] != [] and engine.taken[-1].name == "stays")
    engine.taken[-1].release()
    assert (await stays.answer()).endswith(b"[DONE]\n\n")
    assert [taken.name for taken in engine.taken] == (["runs"] if busy else []) + ["stays"]


async def test_whose_end_is_stuck_behind_a_large_body_costs_an_engine_nothing_but_a_moment(
    start: Start, start_engine: StartEngine
) -> None:
    """The gateway cannot know before it is the one's turn: the client's kernel sends the end behind all of the body."""
    gateway = await start(per_server=1)
    engine = await start_engine(automatic=False)
    gone = await gateway.ask("gone", pad="x" * (BODY_BYTES - 1000))
    await until(partial(gateway.holds, 1))
    stays = await gateway.ask("stays")
    await until(partial(gateway.holds, 2))
    gone.close()
    gateway.names.ports = [engine.port]
    await until(lambda: engine.taken[-1:] != [] and engine.taken[-1].name == "stays")
    assert all(taken.aborted.is_set() for taken in engine.taken[:-1])
    engine.taken[-1].release()
    assert (await stays.answer()).endswith(b"[DONE]\n\n")


@pytest.mark.parametrize("end", [Connection.close, Connection.reset], ids=["closed", "reset"])
@pytest.mark.parametrize("chunks", [0, 1], ids=["before the first token", "in the stream"])
async def test_who_hangs_up_frees_the_engine(
    start: Start, start_engine: StartEngine, end: Callable[[Connection], None], chunks: int
) -> None:
    gateway = await start(per_server=1)
    engine = await start_engine(automatic=False)
    gateway.names.ports = [engine.port]

    asked = await gateway.ask("gone", chunks=9)
    await until(lambda: len(engine.taken) == 1)
    for _ in range(chunks):
        engine.taken[0].more.release()
        await asked.begin()
        await asked.chunk()
    end(asked)
    await until(engine.taken[0].aborted.is_set, limit=NOTICED)
    await until(lambda: len(engine.writers) <= 1)  # a health check may be there


async def test_a_long_line_loses_nobody(start: Start, start_engine: StartEngine) -> None:
    gateway = await start(max_held=1000)
    asked = [await gateway.ask(str(number)) for number in range(1000)]
    await until(partial(gateway.holds, 1000))
    gateway.names.ports = [(await start_engine()).port]
    answers = await asyncio.gather(*(one.answer() for one in asked))
    assert all(answer.endswith(b"[DONE]\n\n") for answer in answers)
