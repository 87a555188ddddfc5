"""Stands in for the engines of kwok's pods, which have addresses and nothing behind them.

Answers `/v1/models` and `/version` on port 8000 of every address in kwok's range, which a route makes local. Runs in
the cluster's network namespace: `python -m benchmarks.reconcile.engines`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

from falcon_operator.api.names import ENGINE_PORT

ADDRESSES = "10.245.0.0/16"
NAME = "falcon-h1r-7b-nvfp4"
_MODELS = {"object": "list", "data": [{"id": NAME, "object": "model", "max_model_len": 65536}]}
_ANSWERS = {b"/v1/models": _MODELS, b"/version": {"version": "0.33.0"}}


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        found = _ANSWERS.get(head.split(b" ", 2)[1])
        body = json.dumps(found).encode()
        status = b"200 OK" if found else b"404 Not Found"
        writer.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (status, len(body), body)
        )
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # a client that went away
    finally:
        writer.close()


async def serve() -> None:
    """Serve until the process ends."""
    # Shared: another run on the same network may have one already.
    server = await asyncio.start_server(_answer, "0.0.0.0", ENGINE_PORT, backlog=1024, reuse_port=True)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    subprocess.run(["ip", "route", "replace", "local", ADDRESSES, "dev", "lo"], check=True)
    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        sys.exit(0)
