"""Asks an OpenAI endpoint for a stream and says what came of it. No library: one process carries thousands."""

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

from tests.load.check import CONNECT, STATUS, TRUNCATED, WRONG, Stream
from tests.load.wire import Message, WireError

CONNECT_SECONDS = 5.0
# As OpenAI's clients do: two more tries, after half a second and twice that, less up to a quarter by chance.
RETRIES, RETRY_SECONDS, RETRY_LIMIT_SECONDS = 2, 0.5, 8.0


@dataclass(frozen=True)
class Ask:
    """One request for `tokens` tokens. `pace` is the seconds between two of them, which only the fake engine heeds."""

    tokens: int
    pace: float | None = None
    model: str = "falcon-h1r-7b-nvfp4"
    key: str | None = None
    prompt: str = "Count."
    numbered: bool = True
    # What the client waits for at most, from the first byte sent to the last one received.
    limit: float = 900.0

    def body(self) -> bytes:
        """The request's JSON."""
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": self.prompt}],
            "max_tokens": self.tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,
        }
        if self.pace is not None:
            asked["vllm_xargs"] = {"pace": self.pace}
        if not self.numbered:
            asked["return_token_ids"] = True
        return json.dumps(asked).encode()

    def request(self, host: str) -> bytes:
        """The whole request."""
        body = self.body()
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            f"Host: {host}",
            "Content-Type: application/json",
            "Accept: text/event-stream",
            f"Content-Length: {len(body)}",
        ]
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(slots=True)
class Outcome:
    """What came of one request; `kind` is "ok" or one of the faults. Times are of the monotonic clock, in seconds."""

    began: float
    kind: str = "ok"
    detail: str = ""
    status: int | None = None
    ended: float = 0.0
    first: float | None = None
    longest_gap: float = 0.0
    tokens: int = 0
    chunks: int = 0
    retried: int = 0
    server: str = ""  # which engine answered, if it says so
    lags: list[float] = field(default_factory=list)


# All connections of a process read into it, one after another: a buffer for each reading costs more than what is read.
_BUFFER = memoryview(bytearray(64 * 1024))


class Connection(asyncio.BufferedProtocol):
    """One connection, for one request after another."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._message: Message | None = None
        self._stream: Stream | None = None
        self._over: asyncio.Future[None] | None = None
        self._text = b""
        self.broken: Exception | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, ask: Ask, host: str) -> Stream:
        """Send a request; its answer is over when `over` is."""
        self._stream = Stream(ask.tokens, ask.numbered, time.monotonic())
        self._text = b""
        self._message = Message(self._take, is_response=True)
        self._over = asyncio.get_running_loop().create_future()
        assert self.transport is not None
        self.transport.write(ask.request(host))
        return self._stream

    async def over(self) -> None:
        """Wait for the end of the answer, or of the connection."""
        assert self._over is not None
        await self._over

    @property
    def answer(self) -> Message:
        """The answer so far."""
        assert self._message is not None
        return self._message

    @property
    def text(self) -> str:
        """The body of an answer that is no stream."""
        return self._text.decode("utf-8", "replace")

    @property
    def reusable(self) -> bool:
        """Whether the next request may go over this connection."""
        return not self.closed and self.answer.complete and self.answer.headers.get("connection") != "close"

    def _take(self, piece: bytes) -> None:
        assert self._message is not None
        assert self._stream is not None
        if self._message.start.startswith("HTTP/1.1 200 "):
            self._stream.feed(piece, time.monotonic())
        else:
            self._text += piece

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self._message is None:
            return
        try:
            self._message.feed(bytes(_BUFFER[:nbytes]))
        except WireError as error:
            self.broken = error
            self.close()
        if self._message.complete:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.broken = self.broken or exc
        if self._message is not None:
            self._message.end()
        self._end()

    def close(self) -> None:
        """Hang up."""
        self.closed = True
        if self.transport is not None:
            self.transport.abort()

    def _end(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


class Client:
    """One client; it keeps its connection for the next request if `keep`, and tries again if `retry`.

    Sent again is what got no connection, and what went into a kept one that was being closed. Of any other request the
    engine may have begun the work.
    """

    def __init__(self, host: str, port: int, *, keep: bool = False, retry: bool = False) -> None:
        self._host, self._port, self._keep, self._retry = host, port, keep, retry
        self._connection: Connection | None = None

    async def ask(self, ask: Ask) -> Outcome:
        """One request, to its end."""
        outcome = Outcome(time.monotonic())
        while True:
            old = self._connection
            connection = await self._connected(outcome)
            if connection is None:
                return outcome
            stream = connection.send(ask, self._host)
            stream.began = outcome.began
            try:
                await asyncio.wait_for(connection.over(), ask.limit)
            except TimeoutError:
                outcome.kind, outcome.detail = TRUNCATED, f"no end within {ask.limit:.0f} s, {stream.tokens} tokens"
            if connection is not old or connection.answer.start or outcome.kind != "ok" or not self._retry:
                break
            outcome.retried += 1  # a kept connection was closed as the request went out: a new one, at once
        judge(outcome, connection, stream)
        if self._keep and connection.reusable:
            self._connection = connection
        else:
            connection.close()
        return outcome

    def close(self) -> None:
        """Close the connection that was kept."""
        if self._connection is not None:
            self._connection.close()

    async def _connected(self, outcome: Outcome) -> Connection | None:
        kept, self._connection = self._connection, None
        if kept is not None and not kept.closed:
            return kept
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    _, connection = await loop.create_connection(Connection, self._host, self._port)
                return connection
            except (OSError, TimeoutError) as error:
                if not self._retry or outcome.retried == RETRIES:
                    outcome.ended = time.monotonic()
                    outcome.kind, outcome.detail = CONNECT, repr(error)
                    return None
            pause = min(RETRY_SECONDS * 2**outcome.retried, RETRY_LIMIT_SECONDS)
            outcome.retried += 1
            await asyncio.sleep(pause * (1 - 0.25 * random.random()))


def judge(outcome: Outcome, connection: Connection, stream: Stream) -> None:
    """Say what came of it, unless that is said already."""
    answer = connection.answer
    outcome.ended = time.monotonic()
    outcome.first, outcome.longest_gap = stream.first, stream.longest_gap
    outcome.tokens, outcome.chunks, outcome.lags = stream.tokens, stream.chunks, stream.lags
    if answer.headed:
        outcome.server = answer.headers.get("x-engine", "")
    if outcome.kind != "ok":
        return
    if isinstance(connection.broken, WireError):
        outcome.kind, outcome.detail = WRONG, str(connection.broken)
        return
    if not answer.headed:
        outcome.kind, outcome.detail = CONNECT, f"closed before an answer: {connection.broken!r}"
        return
    outcome.status = answer.status
    if answer.status != 200:
        outcome.kind, outcome.detail = STATUS, f"{answer.status}: {connection.text[:200]}"
        return
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        outcome.kind, outcome.detail = WRONG, f"content-type is {answer.headers.get('content-type')!r}"
        return
    stream.end(answer.complete)
    if stream.fault:
        outcome.kind, outcome.detail = stream.fault
