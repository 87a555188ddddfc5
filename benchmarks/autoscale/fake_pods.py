"""Gateways and engines in a process of their own: they answer as the real ones do, and have traffic at all times.

One server on all of loopback: every address of 127.0.0.0/8 is another pod.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import cast

# As long as a real engine's page.
_FILLING = "".join(
    f'vllm:request_time_seconds_bucket{{engine="0",le="{n % 40}",model_name="falcon",part="{n // 40}"}} {n}.0\n'
    for n in range(600)
)
_LABELS = '{engine="0",model_name="falcon"}'


class _Pod(asyncio.Protocol):
    """One connection: a gateway's that stays open, or an engine's."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        number = sum(self._transport.get_extra_info("sockname")[0].encode())
        self._swing = 4.0 + number % 7  # seconds

    def data_received(self, data: bytes) -> None:
        now = monotonic()
        load = 20 + 15 * math.sin(now / self._swing)
        if data.startswith(b"GET /metrics"):
            self._transport.write(_response(_engine(load, now), closes=True))
            self._transport.close()
        else:
            self._transport.write(_response(_gateway(load, now)))


def _gateway(load: float, now: float) -> str:
    """As gateway.lua writes it."""
    figures = (
        ("falcon_gateway_in_flight_requests", "gauge", f"{load:.0f}"),
        ("falcon_gateway_held_requests", "gauge", "0"),
        ("falcon_gateway_held_oldest_seconds", "gauge", "0.000"),
        ("falcon_gateway_arrived_requests_total", "counter", f"{now * 10:.0f}"),
        ("falcon_gateway_waited_seconds", "gauge", "0.000"),
        ("falcon_gateway_keys", "gauge", "0"),
    )
    return "".join(f"# TYPE {name} {kind}\n{name} {value}\n" for name, kind, value in figures)


def _engine(load: float, now: float) -> str:
    return (
        f"vllm:num_requests_running{_LABELS} {load:.1f}\nvllm:num_requests_waiting{_LABELS} 0.0\n{_FILLING}"
        f"vllm:prompt_tokens_total{_LABELS} {now * 9000:.1f}\nvllm:generation_tokens_total{_LABELS} {now * 2000:.1f}\n"
        f"vllm:inter_token_latency_seconds_sum{_LABELS} {now * load:.3f}\n"
        f"vllm:request_success_total{_LABELS} {now * 10:.1f}\n"
    )


def _response(page: str, *, closes: bool = False) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {len(page)}\r\n"
    return f"{head}{'connection: close' + chr(13) + chr(10) if closes else ''}\r\n{page}".encode()


@contextmanager
def serving() -> Iterator[int]:
    """The port on which all pods answer, for as long as the context lasts."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield int(ours.recv())
    finally:
        process.terminate()
        process.join()


def _serve(pipe: multiprocessing.connection.Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Pod, "0.0.0.0", 0, backlog=4096)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())
