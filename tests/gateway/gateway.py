"""A gateway on loopback, started as the image starts it, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.gateway.haproxies import HAProxy
from tests.gateway.nameserver import HOST, NameServer
from tests.gateway.wire import Message, read_body, read_chunk, read_head
from tests.unit.ports import free_port

from falcon_operator.desired.gateway.config import GatewaySettings, Places, beside, haproxy_cfg

IMAGE = Path(__file__).parents[2] / "images/gateway"
CHAT = "/v1/chat/completions"
KEY = "sk-first"


async def until(what: Callable[[], bool | Awaitable[bool]], limit: float = 60) -> float:
    """Wait for a condition; return the seconds that it took."""
    start = time.monotonic()
    while True:
        said = what()
        if said if isinstance(said, bool) else await said:
            return time.monotonic() - start
        assert time.monotonic() - start < limit, "the condition did not come true in time"
        await asyncio.sleep(0.01)


def settings(**changes: Any) -> GatewaySettings:
    """Settings that a test changes a part of."""
    usual: dict[str, Any] = {
        "host": HOST,
        "replicas": 1,
        "per_server": 100,
        "hold_seconds": 60,
        "max_held": 100,
        "keys": False,
        "drain_seconds": 60,
        "slots": 8,
    }
    return GatewaySettings(**(usual | changes))


def edited(config: str, edits: dict[str, str]) -> str:
    """Other figures in lines that are there, where the real ones would take minutes."""
    for old, new in edits.items():
        assert config.count(f"  {old}\n") == 1, f"{old} is not once in the configuration"
        config = config.replace(f"  {old}\n", f"  {new}\n")
    return config


@dataclass
class Connection:
    """One connection of a client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: Message = field(default_factory=lambda: Message(""))

    @property
    def status(self) -> int:
        return int(self.head.first.split()[1])

    def send(self, name: str = "", *, path: str = CHAT, headers: tuple[str, ...] = (), **body: Any) -> None:
        """Ask for a completion; `name` is how the engine tells requests apart."""
        data = json.dumps({"name": name, **body}).encode()
        lines = ["Host: gateway", f"Content-Length: {len(data)}", *headers]
        self.writer.write("\r\n".join([f"POST {path} HTTP/1.1", *lines, "", ""]).encode() + data)

    async def answer(self) -> bytes:
        """Read one answer to its end."""
        self.head = await asyncio.wait_for(read_head(self.reader), 60)
        return await asyncio.wait_for(read_body(self.reader, self.head), 60)

    async def error(self) -> dict[str, Any]:
        """Read an answer that is an error as OpenAI's clients take it."""
        body = json.loads(await self.answer())
        assert self.head.header("content-type") == "application/json"
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return dict(body["error"])

    async def begin(self) -> None:
        """Read the head of an answer that is streamed."""
        self.head = await asyncio.wait_for(read_head(self.reader), 60)

    async def chunk(self) -> bytes:
        return await asyncio.wait_for(read_chunk(self.reader), 60)

    async def rest(self) -> bytes:
        """Read a streamed answer to its end, however its chunks are cut."""
        parts = []
        while part := await self.chunk():
            parts.append(part)
        return b"".join(parts)

    def reset(self) -> None:
        """End it so that the gateway is sent a reset, and none of what is still to be sent."""
        at_once = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


@dataclass
class Gateway:
    """One gateway process tree and its folders."""

    haproxy: HAProxy
    folder: Path
    places: Places
    names: NameServer
    process: subprocess.Popen[bytes] | None = None
    connections: list[Connection] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.places.listen.rpartition(":")[2])

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def configure(self, given: GatewaySettings, edits: dict[str, str] | None = None) -> None:
        """Write what the ConfigMap would hold."""
        self.write(edited(haproxy_cfg(given, self.places), edits or {}))

    def write(self, config: str) -> None:
        for name, text in beside().items():
            (self.folder / "config" / name).write_text(text)
        fresh = self.folder / "fresh"
        fresh.write_text(config)
        fresh.rename(self.folder / "config/haproxy.cfg")

    def write_keys(self, **files: str) -> None:
        """Write what the Secret would hold."""
        for old in (self.folder / "keys").iterdir():
            if old.name not in files:
                old.unlink()
        for name, text in files.items():
            (self.folder / "keys" / name).write_text(text)

    def environment(self) -> dict[str, str]:
        return self.haproxy.environment | {
            "FALCON_GATEWAY_CONFIG": str(self.folder / "config"),
            "FALCON_GATEWAY_KEYS": str(self.folder / "keys"),
            "FALCON_GATEWAY_RUN": self.places.run,
            "FALCON_GATEWAY_METRICS": self.places.metrics.rpartition(":")[2],
        }

    async def start(self) -> None:
        """Start it and wait until it serves."""
        with (self.folder / "log").open("ab") as log:
            self.process = self._spawn(log)
        await until(self._serves)

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen([IMAGE / "entrypoint"], env=self.environment(), stdout=log, stderr=subprocess.STDOUT)

    async def _serves(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        with contextlib.suppress(OSError):
            return await self.fetch("/healthz") == "ok"
        return False

    def tell(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def worker(self) -> int:
        """The process that does the work."""
        return int(re.findall(r"[Nn]ew worker \((\d+)\)", self.log)[-1])

    async def stop(self) -> None:
        """End it as a test ends: at once."""
        for connection in self.connections:
            connection.close()
        if self.process is not None and self.process.poll() is None:
            self.tell(signal.SIGTERM)
            await asyncio.to_thread(self.process.wait, 30)

    async def connect(self) -> Connection:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", self.port))
        self.connections.append(connection)
        return connection

    async def ask(self, name: str = "", **options: Any) -> Connection:
        """Send a request on a connection of its own."""
        connection = await self.connect()
        connection.send(name, **options)
        return connection

    async def get(self, path: str, *headers: str, method: str = "GET") -> Connection:
        """Send a request without a body."""
        connection = await self.connect()
        connection.writer.write("\r\n".join([f"{method} {path} HTTP/1.1", "Host: gateway", *headers, "", ""]).encode())
        return connection

    async def fetch(self, path: str) -> str:
        """Read a page of the port for probes and metrics."""
        port = int(self.places.metrics.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n".encode())
        connection = Connection(reader, writer)
        try:
            return (await connection.answer()).decode()
        finally:
            writer.close()

    async def figure(self, name: str) -> float:
        """Read one figure of /load."""
        match = re.search(rf"^{name} (\S+)$", await self.fetch("/load"), re.MULTILINE)
        assert match is not None
        return float(match[1])

    async def holds(self, count: int) -> bool:
        return await self.figure("falcon_gateway_held_requests") == count

    async def knows(self, count: int) -> bool:
        """Whether it has this many engines."""
        page = await self.fetch("/metrics")
        match = re.search(r'^haproxy_backend_active_servers\{proxy="engines"\} (\S+)$', page, re.MULTILINE)
        assert match is not None
        return float(match[1]) == count


@contextlib.asynccontextmanager
async def running(
    haproxy: HAProxy, folder: Path, given: GatewaySettings, edits: dict[str, str] | None = None
) -> AsyncIterator[Gateway]:
    """A gateway that serves, with a name server of its own; nothing of it is left at the end."""
    names = NameServer()
    nameserver = await names.start()
    for part in ("config", "keys", "run"):
        (folder / part).mkdir(parents=True)
    listen = f"127.0.0.1:{free_port()}"
    places = Places(listen, f"127.0.0.1:{free_port()}", listen, str(folder / "run"), nameserver)
    gateway = Gateway(haproxy, folder, places, names)
    gateway.configure(given, edits)
    gateway.write_keys(main=f"{KEY}\n")
    try:
        await gateway.start()
        yield gateway
    finally:
        ended = gateway.process.poll() if gateway.process else None
        try:
            await gateway.stop()
        finally:
            names.stop()
            print(f"the gateway, ended with {ended}, said:", gateway.log[-6000:], sep="\n")  # shown where a test fails
