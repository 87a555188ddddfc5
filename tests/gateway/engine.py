"""An engine of the tests: an HTTP server that answers when the test says so, and knows who hung up."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tests.gateway.wire import Message, read_body, read_head


@dataclass
class Taken:
    """One request that arrived at an engine. It is answered with `chunks` chunks, each after a permit of `more`."""

    head: Message
    body: dict[str, Any]
    more: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    aborted: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    strange: bytes = b""  # what came behind the request

    @property
    def name(self) -> str:
        """What the test called the request."""
        return str(self.body.get("name", ""))

    def release(self) -> None:
        """Let the whole answer go."""
        for _ in range(int(self.body.get("chunks", 1))):
            self.more.release()


@dataclass
class Engine:
    """`taken` has every request in the order of arrival; with `automatic` answers go at once."""

    port: int
    automatic: bool = True
    healthy: bool = True
    taken: list[Taken] = field(default_factory=list)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Reset every connection, as the kernel does for a process that is killed."""
        for writer in self.writers:
            writer.transport.abort()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, request by request."""
        self.writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._serve(reader, writer):
                pass
        self.writers.discard(writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await read_head(reader)
        if head.first.startswith("GET /health"):
            status = "200 OK" if self.healthy else "503 Service Unavailable"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            return True
        data = await read_body(reader, head)
        taken = Taken(head, json.loads(data) if data else {})
        self.taken.append(taken)
        if self.automatic:
            taken.release()
        await self._answer(taken, reader, writer)
        return head.header("connection") != "close"

    async def _answer(self, taken: Taken, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        watch = asyncio.create_task(self._watch(taken, reader, writer))
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n")
            writer.write(f"X-Engine: {self.port}\r\n\r\n".encode())
            for number in range(int(taken.body.get("chunks", 1))):
                await taken.more.acquire()
                text = f"data: {number} {'x' * int(taken.body.get('size', 0))}\n\n".encode()
                writer.write(b"%x\r\n%s\r\n" % (len(text), text))
                await writer.drain()
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            await writer.drain()
            taken.done.set()
        finally:
            watch.cancel()

    async def _watch(self, taken: Taken, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The gateway sends nothing while it waits for an answer: an end can only be an abort."""
        with contextlib.suppress(ConnectionError):
            taken.strange = await reader.read(1)
        taken.aborted.set()
        taken.release()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Engine]:
    """An engine on a port of its own on loopback; it is gone at the end, its connections cut."""
    engine = Engine(0, **options)
    server = await asyncio.start_server(engine.handle, "127.0.0.1", engine.port, backlog=4096)
    engine.port = server.sockets[0].getsockname()[1]
    try:
        yield engine
    finally:
        server.close()
        engine.cut()
        for taken in engine.taken:
            taken.release()
