"""A load on an engine, from several processes: so many streams at once, each asking for so many tokens."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

# One process reads some thousands of chunks a second; more streams than this get another one.
STREAMS_OF_A_PROCESS = 32
MOST_PROCESSES = 12
REQUEST_SECONDS = 300.0
# Words of benchmarks.gpu.model's tokenizer that are not its special tokens.
_WORDS = (100, 130_000)
# Of a chunk that has tokens; the last one, with the usage, has no choices.
_CHUNK = b'"choices":[{'


@dataclass(frozen=True)
class Load:
    """`concurrency` streams at once until `requests` have ended, `prompt` tokens in and `answer` tokens out.

    `sampled` takes tokens by chance, as users of a reasoning model do, and not the most likely one. `shared` tokens at
    the beginning are the same in all prompts.
    """

    concurrency: int
    requests: int
    prompt: int
    answer: int
    sampled: bool = False
    shared: int = 0

    @property
    def name(self) -> str:
        """As in tables, such as 250 x 128/128."""
        more = (" sampled" if self.sampled else "") + (f", {self.shared} alike" if self.shared else "")
        return f"{self.concurrency} x {self.prompt}/{self.answer}{more}"


@dataclass
class Stream:
    """One request's times in seconds of the clock that all processes share; `gaps` lie between its chunks."""

    began: float
    first: float = 0.0
    last: float = 0.0
    tokens: int = 0
    error: str = ""
    gaps: list[float] = field(default_factory=list)


def run(port: int, model: str, load: Load, seed: int, words: tuple[int, int] = _WORDS) -> dict[str, Any]:
    """Run a load; the result is a row of numbers (times in ms, rates in tokens/s)."""
    count = max(1, min(MOST_PROCESSES, -(-load.concurrency // STREAMS_OF_A_PROCESS)))
    shares = [(_share(load.concurrency, count, i), _share(load.requests, count, i)) for i in range(count)]
    jobs = [(port, model, c, r, load, f"{seed}-{i}", words) for i, (c, r) in enumerate(shares)]
    if count == 1:
        streams = _process(*jobs[0], time.monotonic())
    else:
        # Spawned, since threads run here; all are up before the load's first second.
        with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(_nothing, range(count * 4)))
            start = time.monotonic() + 0.2
            streams = [s for part in [pool.submit(_process, *job, start) for job in jobs] for s in part.result()]
    return {**asdict(load), **summary(streams)}


def summary(streams: Sequence[Stream]) -> dict[str, Any]:
    """The row's figures. TPOT is an answer's mean time between tokens."""
    good = [s for s in streams if not s.error]
    row: dict[str, Any] = {"completed": len(good), "failed": len(streams) - len(good)}
    errors = sorted({s.error for s in streams if s.error})
    if errors:
        row["errors"] = errors[:5]
    if not good:
        return row
    seconds = max(s.last for s in good) - min(s.began for s in good)
    tokens = sum(s.tokens for s in good)
    row |= {"seconds": round(seconds, 3), "output_tokens": tokens, "tokens_per_second": round(tokens / seconds, 1)}
    for name, values in (
        ("ttft_ms", [s.first - s.began for s in good]),
        ("tpot_ms", [(s.last - s.first) / (s.tokens - 1) for s in good if s.tokens > 1]),
        ("gap_ms", [gap for s in good for gap in s.gaps]),
        ("e2e_ms", [s.last - s.began for s in good]),
    ):
        ordered = sorted(values)
        for percent in (50, 99):
            if ordered:
                row[f"{name}_p{percent}"] = round(
                    ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1e3, 2
                )
    return row


def _share(whole: int, parts: int, index: int) -> int:
    return whole // parts + (index < whole % parts)


def _nothing(_: int) -> None:
    """Keeps a new process busy until all are there."""
    time.sleep(0.02)


def _process(
    port: int, model: str, concurrency: int, requests: int, load: Load, seed: str, words: tuple[int, int], start: float
) -> list[Stream]:
    """One process's streams."""
    chance = random.Random(seed)
    alike = _words(random.Random(load.name), load.shared, words)
    bodies = [_body(model, [*alike, *_words(chance, load.prompt - load.shared, words)], load) for _ in range(requests)]
    time.sleep(max(0.0, start - time.monotonic()))
    return asyncio.run(_streams(port, bodies, concurrency))


def _words(chance: random.Random, count: int, words: tuple[int, int]) -> list[str]:
    return [f"w{chance.randrange(*words)}" for _ in range(count)]


def _body(model: str, prompt: list[str], load: Load) -> bytes:
    asked = {
        "model": model,
        "prompt": " ".join(prompt),
        "max_tokens": load.answer,
        **({"temperature": 0.6, "top_p": 0.95} if load.sampled else {"temperature": 0}),
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(asked).encode()


async def _streams(port: int, bodies: list[bytes], concurrency: int) -> list[Stream]:
    done: list[Stream] = []

    async def one_after_another() -> None:
        while bodies:
            done.append(await _stream(port, bodies.pop()))

    await asyncio.gather(*(one_after_another() for _ in range(concurrency)))
    return done


async def _stream(port: int, body: bytes) -> Stream:
    """One request on a connection of its own."""
    stream = Stream(time.monotonic())
    writer = None
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = (
                "POST /v1/completions HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await _read(reader, stream)
    except (OSError, TimeoutError, ValueError) as e:
        stream.error = f"{type(e).__name__}: {e}"[:200]
    finally:
        if writer:
            writer.close()
    return stream


async def _read(reader: asyncio.StreamReader, stream: Stream) -> None:
    tail = b""
    while True:
        data = await reader.read(1 << 18)
        now = time.monotonic()
        if not data:
            raise ValueError(f"the answer ended early: {tail[-150:]!r}")
        if not tail and not data.startswith(b"HTTP/1.1 200"):
            raise ValueError(f"not 200: {data[:150]!r}")
        text = tail + data
        if _CHUNK in text[max(0, len(tail) - len(_CHUNK) + 1) :]:
            if not stream.first:
                stream.first = now
            else:
                stream.gaps.append(now - stream.last)
            stream.last = now
        tail = text[-2048:]
        if b"data: [DONE]" in tail:
            stream.tokens = _tokens(tail)
            if not stream.first:
                raise ValueError("no chunk had a token")
            return


def _tokens(tail: bytes) -> int:
    """The answer's tokens as the last chunk's usage says."""
    _, found, rest = tail.rpartition(b'"completion_tokens":')
    digits = rest[:12].split(b",")[0].split(b"}")[0].strip()
    if not found or not digits.isdigit():
        raise ValueError(f"no usage at the end: {tail[-200:]!r}")
    return int(digits)
