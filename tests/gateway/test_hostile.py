"""Clients and engines that do not behave: each is bounded, and costs no engine more than it has to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial

import pytest
from tests.gateway.conftest import Start, StartEngine
from tests.gateway.engine import Engine
from tests.gateway.gateway import CHAT, Connection, Gateway, until
from tests.gateway.haproxies import HAProxy

from falcon_operator.desired.gateway import answers


async def served(start: Start, start_engine: StartEngine, **options: bool) -> tuple[Gateway, Engine]:
    gateway = await start(
        {
            "timeout http-request 10s": "timeout http-request 1s",
            "timeout client 60s": "timeout client 2s",
            "timeout http-keep-alive 60s": "timeout http-keep-alive 1s",
        }
    )
    engine = await start_engine(**options)
    gateway.names.ports = [engine.port]
    await until(partial(gateway.knows, 1))
    return gateway, engine


async def raw(gateway: Gateway, data: bytes) -> Connection:
    connection = await gateway.connect()
    connection.writer.write(data)
    return connection


async def everything(connection: Connection) -> bytes:
    """Read until the gateway closes, be it with a reset."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := await asyncio.wait_for(connection.reader.read(65536), 30):
            parts.append(part)
    return b"".join(parts)


MALFORMED = {
    "two lengths": b"POST %s HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\nContent-Length: 30\r\n\r\n{}",
    "two lengths in one": b"POST %s HTTP/1.1\r\nHost: g\r\nContent-Length: 2, 30\r\n\r\n{}",
    "a negative length": b"POST %s HTTP/1.1\r\nHost: g\r\nContent-Length: -2\r\n\r\n{}",
    "a length that is no number": b"POST %s HTTP/1.1\r\nHost: g\r\nContent-Length: 2x\r\n\r\n{}",
    "NUL in a value": b"POST %s HTTP/1.1\r\nHost: g\r\nX: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "NUL in a name": b"POST %s HTTP/1.1\r\nHost: g\r\nX\0: a\r\nContent-Length: 2\r\n\r\n{}",
    "a space before the colon": b"POST %s HTTP/1.1\r\nHost: g\r\nContent-Length : 2\r\n\r\n{}",
    "a chunk that is no number": (
        b"POST %s HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"
    ),
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00 %s \r\n\r\n",
    "clear-text HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n %s",
}


def assert_own_words(said: bytes, status: int, code: str, haproxy: HAProxy) -> None:
    """There is no request yet that could be answered: before 3.2 HAProxy has its own words for that."""
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), said
    if haproxy.version >= (3, 2):
        assert b"application/json" in head
        assert json.loads(body)["error"]["code"] == code


async def test_what_cannot_be_read_is_a_400_and_reaches_no_engine(
    haproxy: HAProxy, start: Start, start_engine: StartEngine
) -> None:
    gateway, engine = await served(start, start_engine)
    for name, data in MALFORMED.items():
        print(name)  # shown where it fails
        connection = await raw(gateway, data.replace(b"%s", CHAT.encode()))
        said = await everything(connection)
        if said or name != "two lengths":  # 3.2 closes without a word there
            assert_own_words(said, 400, "bad_request", haproxy)
    assert engine.taken == []


@pytest.mark.parametrize("name", answers.FILES)
def test_answers_in_files_are_whole(name: str) -> None:
    head, _, body = answers.FILES[name].partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {name.partition('.')[0]} ")
    assert f"Content-Length: {len(body.encode())}" in head.split("\r\n")
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


SMUGGLED = b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}"
AMBIGUOUS = {
    "length and chunks": (
        b"POST %s HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED
    ),
    "chunks and length": (
        b"POST %s HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n" + SMUGGLED
    ),
    "a folded line": (
        b"POST %s HTTP/1.1\r\nHost: g\r\nX: a\r\n Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n{}"
        + b" " * (len(SMUGGLED) + 3)
    ),
    "an odd encoding": (
        b"POST %s HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: xchunked\r\nContent-Length: %d\r\n\r\n{}"
        + b" " * (len(SMUGGLED) + 3)
    ),
    "HTTP/1.0 with chunks": (
        b"POST %s HTTP/1.0\r\nHost: g\r\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n" + SMUGGLED
    ),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_nothing_is_smuggled_behind_a_request(start: Start, start_engine: StartEngine, name: str) -> None:
    """The engine of the tests refuses two lengths and says so if anything comes behind a request."""
    gateway, engine = await served(start, start_engine)
    data = AMBIGUOUS[name].replace(b"%s", CHAT.encode()).replace(b"%d", str(len(SMUGGLED) + 5).encode())
    connection = await raw(gateway, data)
    said = await everything(connection)
    assert said.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400", b"HTTP/1.1 501", b"HTTP/1.1 422")), said[:200]
    assert len([taken for taken in engine.taken if "/v1/chat/completions" in taken.head.first]) <= 1
    for taken in engine.taken:
        lengths = {name for name, _ in taken.head.headers} & {"content-length", "transfer-encoding"}
        assert len(lengths) == 1, f"the engine got {lengths}"
        assert not taken.strange, "something came behind the request"


async def test_a_header_that_never_ends_is_ended(haproxy: HAProxy, start: Start, start_engine: StartEngine) -> None:
    gateway, engine = await served(start, start_engine)
    slow = await raw(gateway, f"POST {CHAT} HTTP/1.1\r\nHost: gateway\r\n".encode())

    async def drip() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                slow.writer.write(b"X: y\r\n")
                await slow.writer.drain()
                await asyncio.sleep(0.1)  # slow is what this client is

    dripping = asyncio.create_task(drip())
    assert_own_words(await everything(slow), 408, "request_timeout", haproxy)
    dripping.cancel()
    large = await raw(gateway, f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nX: {'y' * 40_000}\r\n\r\n".encode())
    assert (await large.error())["code"] == "bad_request"
    many = await raw(gateway, f"POST {CHAT} HTTP/1.1\r\nHost: g\r\n".encode() + b"X: y\r\n" * 200 + b"\r\n")
    assert_own_words(await everything(many), 400, "bad_request", haproxy)
    assert engine.taken == []


async def test_a_body_that_never_ends_takes_no_engine(start: Start, start_engine: StartEngine) -> None:
    gateway, engine = await served(start, start_engine)
    gateway_config = gateway.folder / "config/haproxy.cfg"
    assert "wait-for-body time 10s" in gateway_config.read_text()
    slow = await raw(gateway, f'POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nContent-Length: 100\r\n\r\n{{"a"'.encode())
    assert (await slow.error())["code"] == "request_timeout"
    assert slow.status == 408
    assert engine.taken == []


async def test_a_client_that_stops_reading_is_cut_and_its_work_ended(start: Start, start_engine: StartEngine) -> None:
    gateway, engine = await served(start, start_engine)
    # more than all buffers on the way take
    stalled = await gateway.ask("stalled", chunks=2000, size=20_000)
    stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]
    reading = await gateway.ask("reading", chunks=3)
    assert (await reading.answer()).endswith(b"[DONE]\n\n")
    await until(lambda: any(taken.name == "stalled" for taken in engine.taken))
    taken = next(taken for taken in engine.taken if taken.name == "stalled")
    await until(taken.aborted.is_set)
    assert not taken.done.is_set()


async def test_long_silence_of_the_engine_ends_neither_a_stream_nor_a_wait(
    start: Start, start_engine: StartEngine
) -> None:
    gateway, engine = await served(start, start_engine, automatic=False)  # a client may be silent for 2 s here
    asked = await gateway.ask(chunks=2)
    await asked.begin()
    gateway.names.ports = []
    await until(partial(gateway.knows, 0))
    waits = await gateway.ask("waits")
    for _ in range(4):  # one after the other: the gateway's clock cuts each off after its 1 s for a head
        await everything(await raw(gateway, b"POST "))
    engine.taken[0].release()
    assert await asked.rest() == b"data: 0 \n\ndata: 1 \n\ndata: [DONE]\n\n"
    gateway.names.ports = [engine.port]
    await until(lambda: len(engine.taken) == 2)
    engine.taken[1].release()
    assert (await waits.answer()).endswith(b"[DONE]\n\n")


async def test_an_engine_that_dies_ends_its_streams_with_an_error(start: Start, start_engine: StartEngine) -> None:
    gateway, engine = await served(start, start_engine, automatic=False)
    stream = await gateway.ask(chunks=2)
    await until(lambda: len(engine.taken) == 1)
    engine.taken[0].more.release()
    await stream.begin()
    assert await stream.chunk() == b"data: 0 \n\n"
    engine.cut()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await stream.rest()  # without the last chunk: no client takes it for a whole answer


async def test_an_ill_name_server_forgets_no_engine(start: Start, start_engine: StartEngine) -> None:
    gateway, engine = await served(start, start_engine)
    gateway.names.silent = True
    asked = gateway.names.asked
    await until(lambda: gateway.names.asked > asked + 3)
    answered = await gateway.ask()
    assert (await answered.answer()).endswith(b"[DONE]\n\n")
    assert len(engine.taken) == 1
