"""A name server of the tests: SRV records for the engines that are ready, as Kubernetes has for a headless Service."""

from __future__ import annotations

import asyncio
import socket
import struct

HOST = "falcon-engines.tests.svc.cluster.local"
_A, _SRV, _NXDOMAIN = 1, 33, 3


class NameServer(asyncio.DatagramProtocol):
    """Answers for `ports` on 127.0.0.1; no such name while there are none, and nothing at all while `silent`."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.silent = False
        self.asked = 0
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> str:
        """Return the address and port that it answers on."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        host, port = self._transport.get_extra_info("sockname")
        return f"{host}:{port}"

    def stop(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        if not self.silent and self._transport is not None:
            self._transport.sendto(self._answer(data), addr)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", 12) + 1
        name, (kind,) = query[12:end], struct.unpack("!H", query[end : end + 2])
        question = query[12 : end + 4]
        records = self._records(name, kind)
        flags = 0x8580 | (0 if records or self.ports else _NXDOMAIN)
        # As CoreDNS does: who asks for the engines is told their addresses, too.
        more = [record for port in self.ports for record in self._address(port)] if kind == _SRV and records else []
        counts = struct.pack("!HHHHH", flags, 1, len(records), 0, len(more))
        return query[:2] + counts + question + b"".join(records + more)

    def _records(self, name: bytes, kind: int) -> list[bytes]:
        if kind == _SRV and name == _encoded(f"_http._tcp.{HOST}"):
            return [
                _record(name, _SRV, struct.pack("!HHH", 0, 10, port) + _encoded(f"engine-{port}.{HOST}"))
                for port in self.ports
            ]
        if kind == _A:
            return [record for port in self.ports for record in self._address(port) if record.startswith(name)]
        return []

    def _address(self, port: int) -> list[bytes]:
        return [_record(_encoded(f"engine-{port}.{HOST}"), _A, socket.inet_aton("127.0.0.1"))]


def _encoded(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def _record(name: bytes, kind: int, data: bytes) -> bytes:
    return name + struct.pack("!HHIH", kind, 1, 1, len(data)) + data
