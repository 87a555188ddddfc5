"""Asks one gateway for its load over a connection that stays open.

Not with the client that asks engines: a thousand answers a second took that one 0.37 of a core, and this one 0.14.
What a gateway answers is our own: a status, a length and a small body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from falcon_operator.decide.autoscale.types import GatewaySample
from falcon_operator.observe.http import Unreadable, url_of, why
from falcon_operator.observe.load import gateway_sample

ANSWER_BYTES = 16 * 1024

Answered = Callable[[GatewaySample | Unreadable], None]


class GatewayLink:
    """One gateway; `answered` gets what it says, or why it says nothing, once for each question.

    How long an answer may take is the caller's to say: there is no timer here.
    """

    def __init__(self, address: str, port: int, answered: Answered, clock: Callable[[], float]) -> None:
        self._address, self._port, self._answered, self._clock = address, port, answered, clock
        self.url = f"{url_of(address, port)}/load"
        self._host = f"Host: {self.url.split('/')[2]}\r\n\r\n"
        self._plain = f"GET /load HTTP/1.1\r\n{self._host}".encode()
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._question: bytes | None = None
        self.asked = 0.0  # when the question that is open was asked
        self.waits = False  # whether that one may be answered late, with the next news

    @property
    def open(self) -> bool:
        """Whether a question waits for its answer."""
        return self._question is not None

    @property
    def connected(self) -> bool:
        """Whether the question has been sent."""
        return self._connection is not None

    def ask(self, arrived: float | None = None) -> None:
        """Ask how it is; with `arrived`, its counter as last seen, it answers when there is news. One at a time."""
        waits = arrived is not None
        self._question = f"GET /load?arrived={arrived:.0f} HTTP/1.1\r\n{self._host}".encode() if waits else self._plain
        self.asked, self.waits = self._clock(), waits
        self._send()

    def drop(self) -> None:
        """Forget the question that is open: its answer would come late, before that of the next one."""
        self._question = None
        self._disconnect()

    def give_up(self) -> None:
        """The answer has taken too long."""
        self._fail("does not answer: no answer in time")

    def close(self) -> None:
        """Nothing more is asked or said."""
        self.drop()

    def _send(self) -> None:
        connection, question = self._connection, self._question
        if question is None:
            return
        if connection is not None:
            connection.ask(question)
        elif self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name=f"connect to {self.url}")

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        made: _Connection | None = None
        try:
            _, made = await loop.create_connection(lambda: _Connection(self), self._address, self._port)
        except OSError as error:
            self._connecting = None
            self._fail(f"does not answer: {why(error)}")
            return
        except asyncio.CancelledError:
            if made is not None:
                made.abort()
            raise
        self._connecting, self._connection = None, made
        self._send()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        connecting, self._connecting = self._connecting, None
        if connection is not None:
            connection.abort()
        if connecting is not None:
            connecting.cancel()

    def _fail(self, words: str) -> None:
        self._disconnect()
        if self._question is not None:
            self._question = None
            self._answered(Unreadable(f"{self.url} {words}"))

    def lost(self, connection: _Connection, fresh: bool) -> None:
        """The other side has closed; an idle connection may be closed any time, also just as it is asked."""
        if connection is not self._connection:
            return
        self._connection = None
        if fresh:
            self._fail("does not answer: connection closed")
        else:
            self._send()

    def heard(self, connection: _Connection, status: int, body: bytes, last: bool) -> None:
        """A whole answer."""
        if connection is not self._connection:
            return
        if last or not self.open:
            self._disconnect()
        if not self.open:
            return
        if status != 200:
            self._fail(f"answered with status {status}")
            return
        try:
            sample = gateway_sample(body, self.asked, self._clock())
        except Unreadable as problem:
            self._fail(str(problem))
            return
        self._question = None
        self._answered(sample)

    def garbled(self, connection: _Connection, words: str) -> None:
        """What comes is no answer of a gateway."""
        if connection is self._connection:
            self._fail(words)


class _Connection(asyncio.Protocol):
    """Cuts what comes into answers."""

    def __init__(self, link: GatewayLink) -> None:
        self._link = link
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, question: bytes) -> None:
        """Send one question."""
        if self._transport is not None:
            self._transport.write(question)

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        # Where an answer had begun, the same question may be cut again.
        self._link.lost(self, fresh=self._answers == 0 or bool(self._buffer))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if len(buffer) > ANSWER_BYTES:
            self._link.garbled(self, f"answered with more than {ANSWER_BYTES // 1024} KiB")
        elif end < 0:
            if buffer[:7] != b"HTTP/1."[: len(buffer)]:
                self._link.garbled(self, "answered with something that is not HTTP")
        else:
            self._take(buffer, end)

    def _take(self, buffer: bytes, end: int) -> None:
        first, *headers = buffer[:end].lower().split(b"\r\n")
        words = first.split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"http/1.") or len(words[1]) != 3 or not words[1].isdigit():
            self._link.garbled(self, "answered with something that is not HTTP")
            return
        found = {name.strip(): value.strip() for name, _, value in (line.partition(b":") for line in headers)}
        length = found.get(b"content-length", b"")
        if b"transfer-encoding" in found or not length.isdigit() or len(length) > 9:
            self._link.garbled(self, "answered without a length")
            return
        if int(length) > ANSWER_BYTES:
            self._link.garbled(self, f"answered with more than {ANSWER_BYTES // 1024} KiB")
            return
        whole = end + 4 + int(length)
        if len(buffer) < whole:
            return
        self._answers += 1
        self._buffer = b""
        last = found.get(b"connection") == b"close" or len(buffer) > whole
        self._link.heard(self, int(words[1]), buffer[end + 4 : whole], last)
