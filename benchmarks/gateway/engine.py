"""`python -m benchmarks.gateway.engine`: one fake engine on loopback; prints its port once it serves."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys

from tests.load.engine.main import BACKLOG
from tests.load.engine.server import Connection, Engine
from tests.load.engine.settings import Settings
from tests.load.run import files_for


async def _serve(sequences: int, prefill: float) -> None:
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    engine = Engine(Settings(sequences=sequences, prefill=prefill))
    server = await loop.create_server(lambda: Connection(engine), "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await over.wait()


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="benchmarks.gateway.engine", description=__doc__)
    parser.add_argument("--sequences", type=int, default=100_000, help="requests that make tokens at once")
    parser.add_argument("--prefill", type=float, default=0.0, help="seconds to the first token")
    options = parser.parse_args()
    files_for(options.sequences)
    gc.disable()
    asyncio.run(_serve(options.sequences, options.prefill))
    return 0


if __name__ == "__main__":
    sys.exit(main())
