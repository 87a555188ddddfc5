"""The client against endpoints that break in each way, and against one that does not."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.gateway.gateway import until
from tests.load.client import Ask, Client, Outcome
from tests.load.engine.server import Connection, Engine
from tests.load.engine.settings import Settings
from tests.load.run import Group, Load, group_of
from tests.load.tally import Tally
from tests.unit.ports import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@contextlib.asynccontextmanager
async def endpoint(handle: Handler) -> AsyncIterator[int]:
    """Something on loopback that reads one request's head and does what it is told."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await handle(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def engine(**settings: float) -> AsyncIterator[tuple[Engine, int]]:
    running = Engine(Settings(prefill=0.0, **settings))  # type: ignore[arg-type]
    server = await asyncio.get_running_loop().create_server(lambda: Connection(running), "127.0.0.1", 0)
    async with server:
        yield running, server.sockets[0].getsockname()[1]


def token(index: int) -> bytes:
    choice = {"delta": {"content": f"{index} "}, "finish_reason": None}
    data = f"data: {json.dumps({'choices': [choice]})}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


async def asked(handle: Handler) -> Outcome:
    async with endpoint(handle) as port:
        return await Client("127.0.0.1", port).ask(Ask(5, limit=10))


async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + token(0) + token(1))
    await writer.drain()


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + token(0))
    await writer.drain()
    writer.transport.abort()


async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    return


async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 503 No\r\ncontent-length: 6\r\n\r\nno way")


async def wrong_type(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n")


async def no_http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\r\n\r\n")


@pytest.mark.parametrize(
    ("handle", "kind", "detail"),
    [
        (cut, "truncated", "after 2 of 5 tokens"),
        (reset, "truncated", "after 1 of 5 tokens"),
        (close, "connect", "closed before an answer"),
        (refuse, "status", "503: no way"),
        (wrong_type, "wrong", "text/html"),
        (no_http, "wrong", "no status line"),
    ],
)
async def test_what_came_of_a_request_is_named(handle: Handler, kind: str, detail: str) -> None:
    outcome = await asked(handle)
    assert outcome.kind == kind
    assert detail in outcome.detail


async def test_a_stream_that_stands_still_is_given_up() -> None:
    async with engine() as (running, port):
        outcome = await Client("127.0.0.1", port).ask(Ask(10, pace=60, limit=0.3))
        assert (outcome.kind, outcome.tokens) == ("truncated", 1)
        await asyncio.wait_for(running.work.idle.wait(), 10)
    assert (running.work.running, running.work.aborted) == (0, 1)


async def test_a_refused_connection_is_tried_again_only_if_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.load.client.RETRY_SECONDS", 0.01)
    port = free_port()
    once = await Client("127.0.0.1", port).ask(Ask(5))
    thrice = await Client("127.0.0.1", port, retry=True).ask(Ask(5))
    assert [(o.kind, o.retried) for o in (once, thrice)] == [("connect", 0), ("connect", 2)]


async def test_a_connection_is_kept_for_the_next_request_if_wanted() -> None:
    seen = []
    async with engine() as (running, port):
        for keep in (True, False):
            client = Client("127.0.0.1", port, keep=keep)
            for _ in range(3):
                assert (await client.ask(Ask(3, pace=0.001))).kind == "ok"
                seen.append(len(running.connections))
            client.close()
            await until(lambda: not running.connections)
    assert seen[:3] == [1, 1, 1]


async def test_a_kept_connection_that_was_closed_is_replaced_at_once() -> None:
    async with engine() as (running, port):
        client = Client("127.0.0.1", port, keep=True, retry=True)
        assert (await client.ask(Ask(3, pace=0.001))).kind == "ok"
        running.close_idle()
        outcome = await client.ask(Ask(3, pace=0.001))
    assert outcome.kind == "ok"


async def test_a_load_is_what_its_groups_ask_for() -> None:
    group = group_of('{"clients": 5, "count": 3, "ramp": 0.01, "ask": {"tokens": 4, "pace": 0.001}}')
    assert group == Group(5, Ask(4, 0.001), 3, 0.01)
    async with engine() as (running, port):
        tally = await Load([("127.0.0.1", port)], [group]).run()
        assert running.work.finished == 15
    assert (tally.requests, tally.ok, tally.chunks) == (15, 15, 15 * 6)
    assert (tally.refused, tally.cut) == (0, 0)


async def test_a_load_ends_after_it_was_told_to_and_there_were_enough() -> None:
    async with engine() as (_, port):
        load = Load([("127.0.0.1", port)], [Group(4, Ask(2, pace=0.001), ramp=0.0)], least=40)
        load.stop()
        tally = await load.run()
    assert 40 <= tally.requests <= 44


def test_a_tally_tells_requests_that_got_no_stream_from_those_that_were_cut() -> None:
    tally, other = Tally(), Tally()
    for kind in ("ok", "connect", "status", "truncated", "gap", "duplicate", "error", "wrong"):
        tally.add(Outcome(0.0, kind, first=1.0))
    other.add(Outcome(0.0, "truncated", "after 2 of 5 tokens", server="engine-1", first=3.0))
    tally.merge(other)
    summary = tally.summary()
    assert [summary[key] for key in ("requests", "ok", "failed", "truncated")] == [9, 1, 2, 6]
    assert summary["first_max"] == 3.0
    assert summary["examples"][-1].startswith("truncated from engine-1")
