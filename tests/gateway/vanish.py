"""In a network of its own: an engine vanishes without a word while it computes. Prints what became of its client.

vanish.py FOLDER HAPROXY IDLE INTERVAL COUNT: seconds and number of the kernel's probes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from tests.gateway import engine, gateway
from tests.gateway.haproxies import known


def drop(port: int) -> None:
    """From here on nothing comes from or goes to this port; no end and no reset either."""
    rules = "".join(f"add rule ip lost out tcp {way} {port} drop\n" for way in ("dport", "sport"))
    table = "add table ip lost\nadd chain ip lost out { type filter hook output priority 0; }\n"
    subprocess.run(["nft", "-f", "-"], input=table + rules, text=True, check=True)


async def main(folder: Path, haproxy: Path, idle: str, interval: str, count: str) -> None:
    """Leave one client in a stream and one without its first token."""
    edits = {
        "srvtcpka-idle 10s": f"srvtcpka-idle {idle}s",
        "srvtcpka-intvl 5s": f"srvtcpka-intvl {interval}s",
        "srvtcpka-cnt 3": f"srvtcpka-cnt {count}",
    }
    async with (
        gateway.running(known(haproxy), folder, gateway.settings(), edits) as served,
        engine.running(automatic=False) as lost,
        engine.running() as other,
    ):
        served.names.ports = [lost.port]
        await gateway.until(partial(served.knows, 1))
        stream, early = await served.ask("stream", chunks=2), await served.ask("early")
        await gateway.until(lambda: len(lost.taken) == 2)
        for taken in lost.taken:
            if taken.name == "stream":
                taken.more.release()
        await stream.begin()
        await stream.chunk()
        served.names.ports = [lost.port, other.port]
        await gateway.until(partial(served.knows, 2))
        drop(lost.port)
        start = time.monotonic()
        fresh = [await served.ask("fresh") for _ in range(6)]
        for asked in fresh:
            await asked.answer()
        slowest = time.monotonic() - start
        ends = await asyncio.gather(*(_seconds_to_end(one, start) for one in (stream, early)))
        found = {"fresh": [one.status for one in fresh], "slowest": slowest, "stream": ends[0], "early": ends[1]}
        print(json.dumps(found), file=sys.stderr)


async def _seconds_to_end(connection: gateway.Connection, start: float) -> float:
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(connection.reader.read(), 120)
    return time.monotonic() - start


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:6]))
