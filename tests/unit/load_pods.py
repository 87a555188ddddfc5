"""Gateways and engines of the autoscaler's tests: real servers on addresses of loopback, all on one port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from falcon_operator.decide.pods import Pod

# In place of an answer of its own.
Instead = Callable[[str], Awaitable[bytes | None]]


def pod(uid: str, address: str) -> Pod:
    return Pod({"metadata": {"uid": uid, "name": uid}, "status": {"podIP": address}})


def response(body: bytes | str, status: str = "200 OK", headers: str = "") -> bytes:
    text = body.encode() if isinstance(body, str) else body
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(text)}\r\n{headers}\r\n".encode() + text


@dataclass
class Server:
    """One pod. `asked` has every path in order; `instead` may answer in its place, or hang up (None)."""

    address: str
    port: int = 0
    asked: list[str] = field(default_factory=list)
    connections: int = 0
    instead: Instead | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    server: asyncio.Server | None = None

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, self.address, self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """As a process that is killed."""
        if self.server is not None:
            self.server.close()
            self.server = None
        for writer in self.writers:
            writer.transport.abort()

    def hang_up(self) -> None:
        """Close what is open, and serve on."""
        for writer in self.writers:
            writer.close()

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(20):
            while len(self.asked) < times:
                self.news.clear()
                await self.news.wait()

    async def answer(self, path: str) -> bytes:
        raise NotImplementedError

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ")[1].decode()
                self.asked.append(path)
                self.news.set()
                said = await (self.instead or self.answer)(path)
                if said is None:
                    break
                writer.write(said)
                await writer.drain()
        self.writers.discard(writer)
        self.news.set()
        writer.close()


@dataclass
class Gateway(Server):
    """A gateway with figures that a test sets; it answers who waits for news when `tell` is called."""

    in_flight: Any = 0
    held: Any = 0
    arrived: Any = 0
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, **figures: Any) -> None:
        for name, value in figures.items():
            setattr(self, name, value)
        self.told.set()
        self.told = asyncio.Event()

    def page(self, waited: float = 0.0) -> str:
        return (
            f"# TYPE falcon_gateway_in_flight_requests gauge\nfalcon_gateway_in_flight_requests {self.in_flight}\n"
            f"falcon_gateway_held_requests {self.held}\nfalcon_gateway_held_oldest_seconds 0.000\n"
            f"falcon_gateway_arrived_requests_total {self.arrived}\nfalcon_gateway_waited_seconds {waited:.3f}\n"
            "falcon_gateway_keys 0\n"
        )

    async def answer(self, path: str) -> bytes:
        begin, waited = asyncio.get_running_loop().time(), 0.0
        known = path.partition("?arrived=")[2]
        if known and float(known) == self.arrived and not self.held:
            await self.told.wait()
            waited = asyncio.get_running_loop().time() - begin
        return response(self.page(waited))

    @property
    def polls(self) -> int:
        """How many questions were to be answered with news."""
        return len([path for path in self.asked if "?" in path])


@dataclass
class Engine(Server):
    """An engine with figures that a test sets."""

    running: Any = 0
    waiting: Any = 0
    finished: Any = 0

    async def answer(self, path: str) -> bytes:
        labels = '{engine="0",model_name="falcon"}'
        return response(
            f"vllm:num_requests_running{labels} {self.running}\nvllm:num_requests_waiting{labels} {self.waiting}\n"
            f"vllm:prompt_tokens_total{labels} 100.0\nvllm:generation_tokens_total{labels} 10.0\n"
            f"vllm:request_success_total{labels} {self.finished}\n",
            headers="connection: close\r\n",
        )


@contextlib.asynccontextmanager
async def running(*servers: Server) -> AsyncIterator[int]:
    """Start them on one port, the first one's choice, and end them."""
    port = 0
    try:
        for server in servers:
            server.port = port
            await server.start()
            port = server.port
        yield port
    finally:
        for server in servers:
            server.stop()
            if isinstance(server, Gateway):
                server.told.set()
