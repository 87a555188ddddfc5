"""The measurements: CPU of a chunk, the first token, chunks that are held back, memory, hang-ups, overtakings."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.gateway.gateway import Connection, Gateway, until
from tests.gateway.haproxies import HAProxy
from tests.load.client import Ask, Client, Outcome
from tests.load.clients import Clients

from benchmarks.gateway.processes import cpu, engine, memory
from benchmarks.gateway.proxies import PLENTY, Proxy, nginx, proxy_of, the_gateway

Numbers = dict[str, Any]
STREAMS = 100
LONG_STREAM = 60_000


async def chunks(haproxy: HAProxy, folder: Path, rate: int, seconds: float, rounds: int) -> Numbers:
    """CPU of a streamed chunk at `rate` chunks a second: direct, through the gateway, through nginx, in turn.

    CPU is of the whole tree of processes, from before the first request to after the last token. Of several rounds the
    cheapest counts, for each alike: what else runs on the machine makes the same work dearer, and never cheaper. The
    median is told beside it, and says how far that is so.
    """
    async with (
        engine() as port,
        the_gateway(haproxy, folder / "gateway", [port]) as running,
        nginx(folder / "nginx", port) as n,
    ):
        proxies = [Proxy("direct", port, None), proxy_of(running), *([n] if n else [])]
        seen: dict[str, list[Numbers]] = {proxy.name: [] for proxy in proxies}
        for _ in range(rounds):
            for proxy in proxies:
                seen[proxy.name].append(await _one_rate(proxy, rate, seconds))
    return {name: _cheapest(found) for name, found in seen.items()}


def _cheapest(rounds: list[Numbers]) -> Numbers:
    best = min(rounds, key=lambda one: (one["us_a_chunk"], one["lag_p99_ms"]))
    return best | {"median_us_a_chunk": statistics.median(one["us_a_chunk"] for one in rounds)}


async def _one_rate(proxy: Proxy, rate: int, seconds: float) -> Numbers:
    pace = STREAMS / rate
    tokens = int(seconds / pace)
    before, begun = cpu(proxy.pid) if proxy.pid else 0.0, time.monotonic()
    group = {"clients": STREAMS, "count": 1, "ramp": pace, "ask": {"tokens": tokens, "pace": pace}}
    tally = await (await Clients.begin([f"127.0.0.1:{proxy.port}"], group)).end()
    took = time.monotonic() - begun
    used = (cpu(proxy.pid) - before) if proxy.pid else 0.0
    if tally["ok"] != STREAMS:
        raise RuntimeError(f"{proxy.name}: streams failed: {tally['examples']}")
    return {
        "us_a_chunk": used / tally["chunks"] * 1e6,
        "client_us_a_chunk": tally["cpu"] / tally["chunks"] * 1e6,
        "rate": tally["chunks"] / took,
        **{f"lag_{part}_ms": tally[f"lag_{part}"] * 1e3 for part in ("p50", "p99", "max")},
    }


async def first_token(haproxy: HAProxy, folder: Path, requests: int) -> Numbers:
    """Milliseconds to the first token of single requests, direct and through the gateway in turn."""
    async with engine() as port, the_gateway(haproxy, folder, [port]) as running:
        clients = {"direct": Client("127.0.0.1", port), "gateway": Client("127.0.0.1", running.port)}
        seen: dict[str, list[float]] = {name: [] for name in clients}
        for _ in range(requests):
            for name, client in clients.items():
                outcome = await client.ask(Ask(2, pace=0.001))
                assert outcome.first is not None, outcome.detail
                seen[name].append(outcome.first * 1e3)
    return {
        name: {"p50": statistics.median(times), "p99": statistics.quantiles(times, n=100)[98]}
        for name, times in seen.items()
    }


async def open_streams(haproxy: HAProxy, folder: Path, count: int) -> Numbers:
    """Memory of the gateway with so many streams open, each with a chunk every 5 s."""
    async with engine() as port, the_gateway(haproxy, folder, [port]) as running:
        pid = proxy_of(running).pid
        assert pid is not None
        empty = memory(pid)
        group = {"clients": count, "count": 1, "ramp": 15.0, "ask": {"tokens": 8, "pace": 5.0}}
        clients = await Clients.begin([f"127.0.0.1:{running.port}"], group)
        most, largest, at_most = 0.0, 0.0, 0
        ended = asyncio.create_task(clients.end())
        while not ended.done():
            # Only what is in full counts: all are open at once.
            most, largest = max(most, memory(pid)[0]), max(largest, memory(pid)[1])
            at_most = max(at_most, await sessions(running))
            await asyncio.wait([ended], timeout=1)
        tally = await ended
    return {
        "open": at_most,
        "ok": tally["ok"],
        "empty_mb": empty[0],
        "mb": most,
        "largest_process_mb": largest,
        "lag_max_ms": tally["lag_max"] * 1e3,
    }


async def sessions(running: Gateway) -> int:
    """Requests that are in the gateway now."""
    name = 'haproxy_frontend_current_sessions{proxy="openai"}'
    line = next(line for line in (await running.fetch("/metrics")).splitlines() if line.startswith(name))
    return int(line.split()[-1])


async def hang_ups(haproxy: HAProxy, folder: Path, clients: int) -> Numbers:
    """Seconds from the hang-up of some clients until the gateway, or the engine, has nothing of them any more."""
    found: Numbers = {}
    endings: dict[str, Callable[[Connection], None]] = {"FIN": Connection.close, "RST": Connection.reset}
    async with the_gateway(haproxy, folder / "held", []) as running:
        for name, end in endings.items():
            asked = [await running.ask(str(n)) for n in range(clients)]
            await until(partial(running.holds, clients))
            await until(partial(_only, running, clients))
            found[f"held, {name}"] = await _gone(asked, end, partial(_only, running, 0))
    async with engine() as port, the_gateway(haproxy, folder / "full", [port], per_server=1) as running:
        for name, end in endings.items():
            first = await running.ask(model=MODEL, max_tokens=LONG_STREAM, stream=True, vllm_xargs={"pace": 0.1})
            await first.begin()
            asked = [await running.ask(str(n)) for n in range(clients)]
            await until(partial(running.holds, clients))
            await until(partial(_only, running, clients + 1))
            found[f"queued, {name}"] = await _gone(asked, end, partial(_only, running, 1))
            found[f"streaming, {name}"] = await _gone([first], end, partial(_idle, port))
            await until(partial(_only, running, 0))
    return found


MODEL = "falcon-h1r-7b-nvfp4"


async def _gone(asked: list[Connection], end: Callable[[Connection], None], what: Callable[[], Any]) -> float:
    """Seconds until it is so; infinite if it does not come to be."""
    for connection in asked:
        end(connection)
    try:
        return await until(what)
    except AssertionError:
        return math.inf


async def _only(running: Gateway, count: int) -> bool:
    return await sessions(running) == count


async def _idle(port: int) -> bool:
    """Whether the engine makes no token."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    line = next(line for line in text.splitlines() if line.startswith("vllm:num_requests_running{"))
    return float(line.split()[-1]) == 0


async def overtakings(haproxy: HAProxy, folder: Path, requests: int) -> Numbers:
    """Pairs of requests of which the later one got its first token more than 50 ms before the earlier one.

    One engine takes four at a time, each for a second; twice as many come. After a third of them a second engine comes.
    """
    pace, tokens, every = 0.05, 20, 0.125
    async with engine() as one, engine() as two, the_gateway(haproxy, folder, [one], per_server=4) as running:
        asking: list[asyncio.Task[Outcome]] = []
        for number in range(requests):
            if number == requests // 3:
                running.names.ports = [one, two]
            client = Client("127.0.0.1", running.port)
            asking.append(asyncio.create_task(client.ask(Ask(tokens, pace=pace))))
            await asyncio.sleep(every)
        outcomes = await asyncio.gather(*asking)
    firsts = [o.began + (o.first if o.first is not None else math.inf) for o in outcomes]
    pairs = sum(later < earlier - 0.05 for n, earlier in enumerate(firsts) for later in firsts[n + 1 :])
    return {
        "requests": requests,
        "ok": sum(o.kind == "ok" for o in outcomes),
        "overtakings": pairs,
        "longest_wait_s": max(o.first or math.inf for o in outcomes),
    }


async def held_back(haproxy: HAProxy, folder: Path, streams: int, tokens: int) -> Numbers:
    """How late the chunks of few slow streams come, direct and through the gateway: each is alone in its packet."""
    group = {"clients": streams, "count": 1, "ramp": 0.5, "ask": {"tokens": tokens, "pace": 0.05}}
    found: Numbers = {}
    async with engine() as port, the_gateway(haproxy, folder, [port], per_server=PLENTY) as running:
        for name, where in (("direct", port), ("gateway", running.port)):
            tally = await (await Clients.begin([f"127.0.0.1:{where}"], group)).end()
            found[name] = {f"{part}_ms": tally[f"lag_{part}"] * 1e3 for part in ("p50", "p99", "max")}
    return found
