"""What a gateway says of its load: to whom looks, and to whom waits for the first request."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from functools import partial

import pytest
from tests.gateway.conftest import Start, StartEngine
from tests.gateway.engine import Engine
from tests.gateway.gateway import Connection, Gateway, settings, until
from tests.gateway.haproxies import HAProxy
from tests.gateway.test_chunks import has_had_a_client
from tests.gateway.test_life import reloaded

from falcon_operator.decide.autoscale.types import GatewaySample
from falcon_operator.observe.gateway import GatewayLink
from falcon_operator.observe.http import Unreadable

IN_FLIGHT = "falcon_gateway_in_flight_requests"
HELD = "falcon_gateway_held_requests"
OLDEST = "falcon_gateway_held_oldest_seconds"
ARRIVED = "falcon_gateway_arrived_requests_total"
WAITED = "falcon_gateway_waited_seconds"
# The wait for news where there are none: what it says must come through all other bounds.
LONGEST = 20.0
# This machine may be busy, with the tests of two gateways on two cores.
LAG = 0.2


async def load(gateway: Gateway, query: str = "") -> dict[str, float]:
    """All figures of /load."""
    page = await gateway.fetch(f"/load{query}")
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", page, re.MULTILINE)}


async def says(gateway: Gateway, **figures: float) -> bool:
    found = await load(gateway)
    names = {"in_flight": IN_FLIGHT, "held": HELD, "arrived": ARRIVED}
    return all(found[names[name]] == value for name, value in figures.items())


async def with_an_engine(gateway: Gateway, start_engine: StartEngine) -> Engine:
    engine = await start_engine(automatic=False)
    gateway.names.ports = [engine.port]
    await until(partial(gateway.knows, 1))
    return engine


async def poll(gateway: Gateway, arrived: float) -> Connection:
    """Begin to wait for news; what it says is read later."""
    port = int(gateway.places.metrics.rpartition(":")[2])
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
    gateway.connections.append(connection)
    again(connection, arrived)
    return connection


def again(connection: Connection, arrived: float) -> None:
    connection.writer.write(f"GET /load?arrived={arrived:.0f} HTTP/1.1\r\nHost: gateway\r\n\r\n".encode())


def figure(page: bytes, name: str) -> float:
    match = re.search(rf"^{name} (\S+)$", page.decode(), re.MULTILINE)
    assert match is not None
    return float(match[1])


async def test_in_flight_is_what_engines_work_on_and_held_is_what_waits(
    start: Start, start_engine: StartEngine
) -> None:
    gateway = await start(per_server=2)
    assert await says(gateway, in_flight=0, held=0, arrived=0)
    engine = await with_an_engine(gateway, start_engine)
    asked = [await gateway.ask(str(number), chunks=2) for number in range(5)]
    await until(partial(says, gateway, in_flight=2, held=3, arrived=5))
    assert (await load(gateway))[OLDEST] > 0
    for end in range(1, 6):
        await until(lambda end=end: len(engine.taken) >= end)  # type: ignore[misc]
        engine.taken[end - 1].release()
    for one in asked:
        assert (await one.answer()).endswith(b"[DONE]\n\n")
    await until(partial(says, gateway, in_flight=0, held=0, arrived=5))


async def test_a_stream_is_in_flight_until_its_client_hangs_up(start: Start, start_engine: StartEngine) -> None:
    gateway = await start()
    engine = await with_an_engine(gateway, start_engine)
    stream = await gateway.ask(chunks=9)
    await until(lambda: len(engine.taken) == 1)
    engine.taken[0].more.release()
    await stream.begin()
    await stream.chunk()
    assert await says(gateway, in_flight=1, arrived=1)
    stream.reset()
    await until(partial(says, gateway, in_flight=0, held=0, arrived=1))


async def test_what_is_refused_for_lack_of_room_has_arrived_all_the_same(start: Start) -> None:
    gateway = await start(max_held=1)
    await gateway.ask("waits")
    await until(partial(gateway.holds, 1))
    for number in range(3):
        refused = await gateway.ask(f"refused {number}")
        await refused.error()
        assert refused.status == 503
    assert await says(gateway, in_flight=0, held=1, arrived=4)


async def test_what_asks_no_engine_to_compute_has_not_arrived(start: Start, start_engine: StartEngine) -> None:
    gateway = await start(keys=True, body_bytes=100)
    engine = await with_an_engine(gateway, start_engine)
    key = "Authorization: Bearer sk-first"
    wrong = await gateway.ask("wrong", headers=("Authorization: Bearer nobody",))
    assert (await wrong.error())["code"] == "invalid_api_key"
    large = await gateway.ask("large", headers=(key,), pad="x" * 200)
    assert (await large.error())["code"] == "request_too_large"
    listed = await gateway.get("/v1/models", key)
    await until(lambda: len(engine.taken) == 1)
    engine.taken[0].release()
    await listed.answer()
    assert listed.status == 200
    assert await says(gateway, in_flight=0, held=0, arrived=0)


async def test_who_waits_is_told_of_the_first_request_at_once(start: Start, start_engine: StartEngine) -> None:
    gateway = await start()
    waits = await poll(gateway, 0)
    await until(partial(waits_long, gateway))
    await gateway.ask("first")
    sent = time.monotonic()
    page = await waits.answer()
    after = time.monotonic() - sent
    assert (figure(page, HELD), figure(page, ARRIVED)) == (1, 1)
    assert after < 0.1 + LAG, f"it took {after:.3f} s"
    assert 0 < figure(page, WAITED) < LONGEST
    again(waits, 1)  # on the same connection, and there is still one held
    page = await waits.answer()
    assert (figure(page, HELD), figure(page, WAITED)) == (1, 0)


async def waits_long(gateway: Gateway) -> bool:
    """Whether it has turned to others since it was asked to wait."""
    return await gateway.fetch("/healthz") == "ok"


async def test_a_request_that_has_come_and_gone_meanwhile_is_told(start: Start, start_engine: StartEngine) -> None:
    gateway = await start()
    engine = await with_an_engine(gateway, start_engine)
    engine.automatic = True
    assert (await (await gateway.ask()).answer()).endswith(b"[DONE]\n\n")
    await until(partial(says, gateway, in_flight=0, arrived=1))
    page = await (await poll(gateway, 0)).answer()
    assert (figure(page, ARRIVED), figure(page, WAITED)) == (1, 0)


async def test_without_news_the_wait_ends_after_its_time_and_the_connection_goes_on(start: Start) -> None:
    gateway = await start()
    waits = await poll(gateway, 0)
    begin = time.monotonic()
    page = await waits.answer()
    assert time.monotonic() - begin >= LONGEST - 0.1
    assert (figure(page, HELD), figure(page, ARRIVED)) == (0, 0)
    assert figure(page, WAITED) == pytest.approx(LONGEST, abs=0.5)
    again(waits, 7)
    assert figure(await waits.answer(), WAITED) == 0


async def test_a_reload_ends_the_wait_and_begins_to_count_anew(start: Start, start_engine: StartEngine) -> None:
    gateway = await start(per_server=1)
    engine = await with_an_engine(gateway, start_engine)
    stream = await gateway.ask("stream", chunks=2)
    await until(partial(says, gateway, in_flight=1, arrived=1))
    waits = await poll(gateway, 1)
    gateway.configure(settings(per_server=1, body_bytes=10_000))
    await until(partial(reloaded, gateway))
    page = await asyncio.wait_for(waits.answer(), 10)
    assert (figure(page, IN_FLIGHT), figure(page, ARRIVED)) == (1, 1), "the old process says what it has"
    await until(partial(says, gateway, in_flight=0, held=0, arrived=0))
    engine.taken[0].release()
    assert (await stream.answer()).endswith(b"[DONE]\n\n")


async def test_the_operator_s_own_look_goes_on_over_a_reload(start: Start, start_engine: StartEngine) -> None:
    gateway = await start()
    engine = await with_an_engine(gateway, start_engine)
    stream = await gateway.ask("stream", chunks=2)
    await until(lambda: len(engine.taken) == 1)
    said: asyncio.Queue[GatewaySample | Unreadable] = asyncio.Queue()
    port = int(gateway.places.metrics.rpartition(":")[2])
    link = GatewayLink("127.0.0.1", port, said.put_nowait, time.monotonic)

    async def look(arrived: float | None = None) -> GatewaySample:
        link.ask(arrived)
        found = await asyncio.wait_for(said.get(), 30)
        assert isinstance(found, GatewaySample), found
        return found

    for _ in range(3):
        found = await look()
        assert (found.in_flight, found.held, found.arrived) == (1, 0, 1)
    link.ask(1)
    await until(partial(waits_long, gateway))
    gateway.configure(settings(body_bytes=10_000))
    await until(partial(reloaded, gateway))
    told = await asyncio.wait_for(said.get(), 30)
    assert isinstance(told, GatewaySample)
    assert (told.in_flight, told.arrived) == (1, 1), "the old process, before it goes"
    for _ in range(3):
        found = await look()
        assert (found.in_flight, found.held, found.arrived) == (0, 0, 0), "the new one, on a connection of its own"
    link.close()
    engine.taken[0].release()
    assert (await stream.answer()).endswith(b"[DONE]\n\n")


async def test_a_process_that_is_told_to_stop_ends_the_wait(start: Start) -> None:
    gateway = await start({"timeout http-keep-alive 60s": "timeout http-keep-alive 1s"})
    waits = await poll(gateway, 0)
    await until(partial(has_had_a_client, gateway))  # before its own has come 3.0 may not hear a signal
    gateway.tell(signal.SIGUSR1)
    page = await asyncio.wait_for(waits.answer(), 10)
    assert figure(page, WAITED) < LONGEST - 1
    waits.close()
    assert gateway.process is not None
    assert await asyncio.to_thread(gateway.process.wait, 30) == 0


async def test_hundreds_may_wait_and_the_gateway_serves_on(
    haproxy: HAProxy, start: Start, start_engine: StartEngine
) -> None:
    gateway = await start()
    engine = await with_an_engine(gateway, start_engine)
    engine.automatic = True
    waiting = [await poll(gateway, 0) for _ in range(300)]
    for connection in waiting[50:100]:
        connection.reset()  # its wait must not count for ever
    assert await gateway.fetch("/healthz") == "ok"
    for _ in range(20):
        assert (await (await gateway.ask()).answer()).endswith(b"[DONE]\n\n")
    pages = await asyncio.gather(*(one.answer() for one in (*waiting[:50], *waiting[100:])))
    told = [figure(page, ARRIVED) for page in pages]
    assert len([count for count in told if count == 0]) >= 100, "beyond a number nobody waits"
    assert len([count for count in told if count > 0]) >= 50
    # Nobody waits now, so the next one may.
    fresh = await poll(gateway, 20)
    await until(partial(waits_long, gateway))
    await (await gateway.ask()).answer()
    assert figure(await fresh.answer(), ARRIVED) == 21


@pytest.mark.parametrize(
    "query", ["?arrived=", "?arrived=x", "?arrived=-1", "?arrived=1e400", "?other=0", "?" + "a" * 4000]
)
async def test_an_odd_question_is_answered_at_once(start: Start, query: str) -> None:
    gateway = await start()
    assert (await load(gateway, query))[WAITED] == 0
