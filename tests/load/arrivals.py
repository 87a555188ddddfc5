"""`python -m tests.load.arrivals HOST:PORT...`: asks at given times, however long answers take, as a public does.

It reads one request a line as JSON, `{"at": seconds from the beginning, "tokens": ..., "prompt": ...}` in order, and
prints `begun T` with the monotonic clock's time of the beginning, then one outcome a line as JSON when all have ended.
SIGTERM ends the sending; what is open is still waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.load.client import Ask, Client, Outcome
from tests.load.clients import ROOT, Asking


@dataclass(frozen=True)
class Arrival:
    """A request for `tokens` tokens after a prompt of `prompt` tokens, `at` seconds after the beginning."""

    at: float
    tokens: int
    prompt: int = 1


def poisson(random: Random, rate: float, begin: float, end: float, tokens: int, prompt: int) -> list[Arrival]:
    """Requests that come independently of each other, `rate` a second."""
    found, at = [], begin
    while (at := at + random.expovariate(rate)) < end:
        found.append(Arrival(at, tokens, prompt))
    return found


class Arrivals(Asking):
    """The process; `begun` is the monotonic clock's time of its beginning."""

    def __init__(self, process: asyncio.subprocess.Process, begun: float) -> None:
        super().__init__(process)
        self.begun = begun

    @staticmethod
    async def begin(addresses: list[str], arrivals: Iterable[Arrival]) -> Arrivals:
        """Begin to ask."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.load.arrivals", *addresses),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            limit=2**24,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"".join(json.dumps(vars(each)).encode() + b"\n" for each in arrivals))
        await process.stdin.drain()
        process.stdin.close()
        said = (await process.stdout.readline()).split()
        if said[:1] != [b"begun"]:
            raise RuntimeError("the clients did not begin")
        return Arrivals(process, float(said[1]))

    async def end(self) -> list[Outcome]:
        """Wait for the last answer; returns all outcomes."""
        assert self._process.stdout is not None
        lines = (await self._process.stdout.read()).splitlines()
        if await self._process.wait() or not lines or lines.pop() != b"ended":
            raise RuntimeError(f"the clients ended with {self._process.returncode}")
        return [Outcome(**json.loads(line)) for line in lines]


async def _main(addresses: list[tuple[str, int]], arrivals: list[Arrival]) -> list[Outcome]:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    begun = time.monotonic()
    print(f"begun {begun:.6f}", flush=True)
    asked: list[asyncio.Task[Outcome]] = []
    for number, arrival in enumerate(arrivals):
        try:
            await asyncio.wait_for(stopped.wait(), max(0.0, begun + arrival.at - time.monotonic()))
            break
        except TimeoutError:
            pass
        client = Client(*addresses[number % len(addresses)])
        ask = Ask(arrival.tokens, prompt=" ".join(["word"] * arrival.prompt))
        asked.append(asyncio.create_task(client.ask(ask)))
    return [await task for task in asked]


def main() -> int:
    """Ask, and print what came of it."""
    parser = argparse.ArgumentParser(prog="tests.load.arrivals", description=__doc__)
    parser.add_argument("address", nargs="+", metavar="HOST:PORT", help="endpoints, used in turn")
    addresses = []
    for text in parser.parse_args().address:
        host, _, port = text.rpartition(":")
        addresses.append((host, int(port)))
    arrivals = [Arrival(**json.loads(line)) for line in sys.stdin]
    gc.disable()
    for outcome in asyncio.run(_main(addresses, arrivals)):
        numbers: dict[str, Any] = {name: getattr(outcome, name) for name in Outcome.__dataclass_fields__}
        print(json.dumps(numbers | {"lags": []}))
    print("ended", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
