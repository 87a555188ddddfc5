"""What one request may be, and what becomes of it."""

from __future__ import annotations

import asyncio
import re
from functools import partial

import pytest
from tests.gateway.conftest import Start, StartEngine
from tests.gateway.engine import Engine
from tests.gateway.gateway import CHAT, KEY, Gateway, until

LIMIT = 500_000


async def served(start: Start, start_engine: StartEngine, **options: bool) -> tuple[Gateway, Engine]:
    """A gateway with one engine that it knows."""
    gateway = await start(body_bytes=LIMIT, keys=options.pop("keys", False))
    engine = await start_engine(**options)
    gateway.names.ports = [engine.port]
    await until(partial(gateway.knows, 1))
    return gateway, engine


async def test_answers_come_whole_and_chunk_by_chunk(start: Start, start_engine: StartEngine) -> None:
    gateway, engine = await served(start, start_engine, automatic=False)
    for path in (CHAT, "/v1/completions", "/v1/responses"):
        asked = await gateway.ask(path, path=path, chunks=3)
        await asked.begin()
        assert asked.status == 200
        for number in range(2):  # each is there before the next one is sent
            engine.taken[-1].more.release()
            assert await asked.chunk() == f"data: {number} \n\n".encode()
        engine.taken[-1].more.release()  # the end follows the last one at once
        assert await asked.rest() == b"data: 2 \n\ndata: [DONE]\n\n"
        assert engine.taken[-1].head.first == f"POST {path} HTTP/1.1"


async def test_a_connection_serves_many_requests_and_each_gets_the_engine_anew(
    start: Start, start_engine: StartEngine
) -> None:
    gateway, engine = await served(start, start_engine)
    connection = await gateway.connect()
    for number in range(3):
        connection.send(str(number))
        assert (await connection.answer()).endswith(b"[DONE]\n\n")
    assert [taken.name for taken in engine.taken] == ["0", "1", "2"]
    assert all(taken.head.header("connection") == "close" for taken in engine.taken)


async def test_only_what_is_meant_to_be_open_is_open(start: Start, start_engine: StartEngine) -> None:
    gateway, engine = await served(start, start_engine)
    for path in ("/invocations", "/metrics", "/tokenize", f"{CHAT}/", "/v1/embeddings", "/", "//v1/models", "/healthz"):
        for asked in (await gateway.get(path), await gateway.ask(path=path)):
            assert (await asked.error())["code"] == "unknown_url"
            assert asked.status == 404
    for path, method, allowed in (
        (CHAT, "GET", "POST"),
        (CHAT, "OPTIONS", "POST"),
        ("/v1/responses", "DELETE", "POST"),
        ("/v1/models", "PUT", "GET,HEAD"),
        ("/health", "TRACE", "GET,HEAD"),
    ):
        asked = await gateway.get(path, method=method)
        assert (await asked.error())["code"] == "method_not_allowed"
        assert (asked.status, asked.head.header("allow")) == (405, allowed)
    assert engine.taken == []
    models = await gateway.get("/v1/models?limit=1")
    await models.answer()
    assert [taken.head.first for taken in engine.taken] == ["GET /v1/models?limit=1 HTTP/1.1"]


async def test_health_is_that_of_the_endpoint(start: Start, start_engine: StartEngine) -> None:
    gateway = await start(keys=True)
    none = await gateway.get("/health")
    assert (await none.error())["code"] == "no_engine_ready"
    assert (none.status, none.head.header("retry-after")) == (503, "5")
    engine = await start_engine()
    gateway.names.ports = [engine.port]
    await until(partial(gateway.knows, 1))
    some = await gateway.get("/health")
    assert (await some.answer(), some.status) == (b"", 200)
    engine.healthy = False  # while the API still calls it ready
    await until(partial(gateway.knows, 0))
    none = await gateway.get("/health")
    await none.error()
    assert none.status == 503


async def test_without_the_right_key_nothing_is_reached(start: Start, start_engine: StartEngine) -> None:
    gateway, engine = await served(start, start_engine, keys=True)
    right = f"Authorization: Bearer {KEY}"
    wrong = [
        (),
        ("Authorization: ",),
        ("Authorization: Bearer ",),
        (f"Authorization: Bearer {KEY}x",),
        (f"Authorization: Bearer {KEY[:-1]}",),
        (f"Authorization: Bearer {KEY.upper()}",),
        (f"Authorization: Basic {KEY}",),
        (f"Authorization: {KEY}",),
        (f"X-Api-Key: {KEY}",),
        (right, "Authorization: Bearer other"),
        (f"Authorization: Bearer {KEY}, Bearer other",),
        ("Authorization: Bearer " + "x" * 20_000,),
    ]
    for headers in wrong:
        for asked in (await gateway.ask(headers=headers), await gateway.get("/v1/models", *headers)):
            assert (await asked.error())["code"] == "invalid_api_key"
            assert (asked.status, asked.head.header("www-authenticate")) == (401, "Bearer")
    assert engine.taken == []
    for headers in ((right,), (right.replace("Bearer", "bearer"),)):
        asked = await gateway.ask(headers=headers)
        await asked.answer()
        assert asked.status == 200
        assert engine.taken[-1].head.header("authorization") is None, "the engine sees the client's key"


async def test_a_body_that_is_too_large_is_refused(start: Start, start_engine: StartEngine) -> None:
    gateway, engine = await served(start, start_engine)
    large = await gateway.connect()
    large.writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {LIMIT + 1}\r\n\r\n".encode())
    error = await large.error()
    assert (large.status, error["code"]) == (413, "request_too_large")
    assert str(LIMIT) in error["message"]
    chunked = await gateway.connect()
    chunked.writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for _ in range(4):
        chunked.writer.write(b"7000\r\n" + b"x" * 0x7000 + b"\r\n")
    error = await chunked.error()
    assert (chunked.status, error["code"]) == (413, "request_too_large")
    assert "Content-Length" in error["message"]
    assert engine.taken == []


async def test_bodies_up_to_the_limit_arrive(start: Start, start_engine: StartEngine) -> None:
    gateway, engine = await served(start, start_engine)
    for size in (0, 1, 100_000, 300_000, LIMIT - 100):
        asked = await gateway.ask(pad="x" * size)
        await asked.answer()
        assert asked.status == 200
        assert len(engine.taken[-1].body["pad"]) == size
    chunked = await gateway.connect()
    chunked.writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for part in (b'{"name": ', b'"chunked"', b"}"):
        chunked.writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        await chunked.writer.drain()
    chunked.writer.write(b"0\r\n\r\n")
    await chunked.answer()
    assert engine.taken[-1].name == "chunked"
    patient = await gateway.connect()
    patient.writer.write(
        f"POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    await patient.begin()
    assert patient.status == 100
    patient.writer.write(b"{}")
    await patient.answer()
    assert patient.status == 200


async def test_requests_have_an_id_that_goes_on_and_back(start: Start, start_engine: StartEngine) -> None:
    gateway, engine = await served(start, start_engine)
    kept = await gateway.ask(headers=("X-Request-Id: abc-1.2_3",))
    await kept.answer()
    assert kept.head.header("x-request-id") == engine.taken[-1].head.header("x-request-id") == "abc-1.2_3"
    seen = set()
    for headers in (
        (),
        ("X-Request-Id: a b",),
        ("X-Request-Id: " + "x" * 129,),
        ("X-Request-Id: a", "X-Request-Id: b c"),
    ):
        made = await gateway.ask(headers=headers)
        await made.answer()
        given = made.head.header("x-request-id")
        assert given is not None
        assert re.fullmatch(r"[0-9a-f-]{36}", given)
        assert engine.taken[-1].head.header("x-request-id") == given
        seen.add(given)
    assert len(seen) == 4
    refused = await gateway.get("/nothing", "X-Request-Id: mine")
    await refused.error()
    assert refused.head.header("x-request-id") == "mine"
    assert "id=abc-1.2_3 engine=engine1" in gateway.log


async def test_headers_for_one_connection_go_no_further(start: Start, start_engine: StartEngine) -> None:
    gateway, engine = await served(start, start_engine)
    asked = await gateway.ask(
        headers=(
            "Authorization: Bearer whatever",
            "Proxy-Authorization: Basic x",
            "Proxy-Connection: keep-alive",
            "Keep-Alive: timeout=5",
            "TE: trailers",
            "Upgrade: h2c",
            "X-Forwarded-For: 192.0.2.1",
            "X-Forwarded-Proto: https",
            "X-Mine: stays",
        )
    )
    await asked.answer()
    head = engine.taken[-1].head
    for name in ("authorization", "proxy-authorization", "proxy-connection", "keep-alive", "te", "upgrade"):
        assert head.header(name) is None
    assert head.header("x-mine") == "stays"
    assert (head.header("x-forwarded-for"), head.header("x-forwarded-proto")) == ("127.0.0.1", "http")


async def test_a_request_goes_to_another_engine_only_where_the_first_cannot_have_begun(
    start: Start, start_engine: StartEngine
) -> None:
    gateway, engine = await served(start, start_engine)
    deaf = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    closed: int = deaf.sockets[0].getsockname()[1]
    deaf.close()
    await deaf.wait_closed()
    gateway.names.ports = [engine.port, closed]  # nobody listens there: an engine that drains
    await until(partial(gateway.knows, 2))
    answers = [await gateway.ask() for _ in range(20)]
    for asked in answers:
        assert (await asked.answer()).endswith(b"[DONE]\n\n")
    assert len(engine.taken) == 20


async def test_an_engine_that_ends_before_it_answers_is_a_502_and_asked_once(start: Start) -> None:
    gateway = await start()
    requests = 0

    async def begin_and_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        first = await reader.readuntil(b"\r\n")
        if b"/health" in first:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        else:
            requests += 1
            await reader.readuntil(b"}")
        writer.close()

    server = await asyncio.start_server(begin_and_end, "127.0.0.1", 0)
    gateway.names.ports = [server.sockets[0].getsockname()[1]]
    asked = await gateway.ask()
    assert (await asked.error())["code"] == "engine_failed"
    assert (asked.status, requests) == (502, 1)
    server.close()


@pytest.mark.parametrize("page", ["/metrics", "/held", "/load", "/healthz"])
async def test_probes_and_figures_are_not_open_to_clients(start: Start, page: str) -> None:
    gateway = await start()
    assert await gateway.fetch(page)
    closed = await gateway.get(page)
    await closed.error()
    assert closed.status == 404
