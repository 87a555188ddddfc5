"""`python -m tests.load.run`: keeps streams open for a while and prints what came of them, as one JSON object.

SIGTERM ends the sending, once there were as many requests as there have to be; what is open is still waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

from tests.load.client import Ask, Client
from tests.load.tally import Tally


@dataclass(frozen=True)
class Group:
    """So many clients, each with one stream after another; they begin one after another within `ramp` seconds.

    `count` bounds how many streams each of them asks for, `rest` is the seconds between two of them.
    """

    clients: int
    ask: Ask
    count: int | None = None
    ramp: float = 1.0
    rest: float = 0.0
    keep: bool = False
    retry: bool = False


class Load:
    """Several groups against the same endpoint, until it is told to stop."""

    def __init__(self, addresses: list[tuple[str, int]], groups: list[Group], least: int = 0) -> None:
        self._addresses, self._groups, self._least = addresses, groups, least
        self.tally = Tally()
        self._stopped = asyncio.Event()
        self._asked_to_stop = False

    def stop(self) -> None:
        """Ask for nothing new, from the least number of requests on."""
        self._asked_to_stop = True
        self._stop_if_enough()

    def _stop_if_enough(self) -> None:
        if self._asked_to_stop and self.tally.requests >= self._least:
            self._stopped.set()

    async def run(self) -> Tally:
        """Until all streams have ended; nothing but `stop`, or the groups' counts, ends it."""
        async with asyncio.TaskGroup() as tasks:
            for group in self._groups:
                for number in range(group.clients):
                    tasks.create_task(self._client(group, number))
        return self.tally

    async def _client(self, group: Group, number: int) -> None:
        host, port = self._addresses[number % len(self._addresses)]
        client = Client(host, port, keep=group.keep, retry=group.retry)
        await self._pause(group.ramp * number / group.clients)
        asked = 0
        while not self._stopped.is_set() and (group.count is None or asked < group.count):
            self.tally.add(await client.ask(group.ask))
            self._stop_if_enough()
            asked += 1
            await self._pause(group.rest)
        client.close()

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            return
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            return


def files_for(connections: int) -> None:
    """Let this process open so many connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, connections + 256), hard))


def group_of(text: str) -> Group:
    """A group as JSON: its fields, those of the request under `ask`."""
    raw = json.loads(text)
    return Group(**{**raw, "ask": Ask(**raw["ask"])})


async def _main(options: argparse.Namespace, begun: Callable[[], None]) -> Tally:
    addresses = []
    for text in options.address:
        host, _, port = text.rpartition(":")
        addresses.append((host, int(port)))
    load = Load(addresses, options.group, options.least)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, load.stop)
    if options.seconds is not None:
        loop.call_later(options.seconds, load.stop)
    begun()
    return await load.run()


def main() -> int:
    """Run, and print the tally."""
    parser = argparse.ArgumentParser(prog="tests.load.run", description=__doc__)
    parser.add_argument("address", nargs="+", metavar="HOST:PORT", help="endpoints, used in turn")
    parser.add_argument("--group", action="append", type=group_of, required=True, help="a group of clients, as JSON")
    parser.add_argument("--seconds", type=float, help="ask for nothing new after so long (default: until SIGTERM)")
    parser.add_argument("--least", type=int, default=0, help="requests before anything may end it (default 0)")
    options = parser.parse_args()
    files_for(sum(group.clients for group in options.group))
    gc.disable()  # nothing here makes cycles in number, and its pauses would be measured as the endpoint's
    tally = asyncio.run(_main(options, lambda: print("begun", flush=True)))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({**tally.summary(), "cpu": used.ru_utime + used.ru_stime}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
