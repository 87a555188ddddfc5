"""What a streamed chunk costs the gateway, in calls of the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from tests.gateway.conftest import Start, StartEngine
from tests.gateway.gateway import Gateway, until

CHUNKS = 5


@contextlib.asynccontextmanager
async def traced(process: int, file: Path) -> AsyncIterator[None]:
    """Write what a process receives and sends to a file, until it is told to end."""
    program = shutil.which("strace")
    if program is None:
        pytest.fail("strace is not installed, which tells what HAProxy asks the kernel: run testbed/packages")
    options = ["-f", "-e", "trace=recvfrom,sendto", "-o", str(file), "-p", str(process)]
    strace = await asyncio.create_subprocess_exec(program, *options, stderr=asyncio.subprocess.PIPE)
    assert strace.stderr is not None
    said = (await strace.stderr.readline()).decode()
    if "attached" not in said:
        pytest.skip(f"strace may not look at a process here: {said.strip()}")
    try:
        yield
    finally:
        strace.terminate()
        await strace.wait()


async def has_had_a_client(gateway: Gateway) -> bool:
    page = await gateway.fetch("/metrics")
    match = re.search(r'^haproxy_frontend_connections_total\{proxy="openai"\} (\S+)$', page, re.MULTILINE)
    return match is not None and float(match[1]) > 0


async def test_a_chunk_is_read_once_and_written_once(start: Start, start_engine: StartEngine, tmp_path: Path) -> None:
    gateway = await start()
    engine = await start_engine(automatic=False)
    gateway.names.ports = [engine.port]
    await until(partial(gateway.knows, 1))
    await until(partial(has_had_a_client, gateway))  # its own, from which it learns
    stream = await gateway.ask("stream", chunks=CHUNKS + 2)
    await until(lambda: len(engine.taken) == 1)
    engine.taken[0].more.release()
    await stream.begin()
    await stream.chunk()
    async with traced(gateway.worker, tmp_path / "calls"):
        for _ in range(CHUNKS):
            engine.taken[0].more.release()
            await stream.chunk()
    calls = (tmp_path / "calls").read_text()
    for call in ("recvfrom", "sendto"):
        descriptor = re.search(rf'{call}\((\d+), "[^"]*data: 1 ', calls)
        assert descriptor is not None, calls
        assert calls.count(f" {call}({descriptor[1]},") == CHUNKS, calls
