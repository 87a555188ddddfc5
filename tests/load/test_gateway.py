"""The real gateway between many streams and engines that come and go: nothing fails, nothing is cut.

On loopback, with fake engines as processes of their own; what Kubernetes adds is in tests/node/test_loss_on_node.py.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from tests.gateway import gateway, haproxies
from tests.gateway.gateway import Gateway, until
from tests.load.client import Ask
from tests.load.run import Group, Load
from tests.load.tally import Tally
from tests.load.test_engine import install
from tests.unit.ports import free_port

MODEL = "falcon-h1r-7b-nvfp4"
LONG, SHORT = Group(40, Ask(50, pace=0.03), ramp=0.5), Group(20, Ask(4, pace=0.01), ramp=0.5)


class Engines:
    """Fake engines, and the name server that knows them."""

    def __init__(self, folder: Path, running: Gateway, version: str) -> None:
        self._running = running
        self._environment = {"PYTHONPATH": str(folder / "site"), "FAKE_LOAD": "0.3", "FAKE_TEARDOWN": "0.5"}
        install(folder / "site", version)
        self.processes: dict[int, asyncio.subprocess.Process] = {}

    async def start(self) -> int:
        """Start one; it is in the gateway's list once it serves, as a pod is when it is ready."""
        port = free_port()
        flags = ["--port", str(port), "--host", "127.0.0.1", "--served-model-name", MODEL, "--shutdown-timeout", "30"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", MODEL, *flags,
            env=self._environment, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        self.processes[port] = process
        await until(partial(listens, port))
        self._running.names.ports = [*self._running.names.ports, port]
        return port

    def forget(self, port: int) -> None:
        """Take it out of the list, as a pod that is told to leave."""
        self._running.names.ports = [other for other in self._running.names.ports if other != port]

    async def drain(self, port: int) -> int:
        """Tell it to end; returns its exit code."""
        self.processes[port].send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.processes[port].wait(), 60)

    async def end(self) -> None:
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@contextlib.asynccontextmanager
async def served(folder: Path, version: str) -> AsyncIterator[tuple[Gateway, Engines]]:
    async with gateway.running(haproxies.installed(), folder / "gateway", gateway.settings(max_held=200)) as running:
        engines = Engines(folder, running, version)
        try:
            yield running, engines
        finally:
            await engines.end()


@contextlib.asynccontextmanager
async def clients(running: Gateway) -> AsyncIterator[Tally]:
    """Streams that are open meanwhile; afterwards the tally is complete."""
    load = Load([("127.0.0.1", running.port)], [LONG, SHORT])
    task = asyncio.create_task(load.run())
    try:
        await until(lambda: load.tally.requests > 50)
        yield load.tally
    finally:
        load.stop()
        await asyncio.wait_for(task, 90)


def lost_nothing(tally: Tally) -> None:
    assert tally.requests > 100
    assert tally.kinds == {"ok": tally.requests}, tally.examples


@pytest.mark.parametrize("version", ["0.26.0", "0.32.0"])
async def test_each_engine_is_replaced_by_another(tmp_path: Path, version: str) -> None:
    async with served(tmp_path, version) as (running, engines):
        old = [await engines.start() for _ in range(2)]
        await until(partial(running.knows, 2))
        async with clients(running) as tally:
            for port in old:
                await engines.start()
                await until(partial(running.knows, 3))
                engines.forget(port)
                # the preStop hook waits, so that nobody asks it any more when it is told to end
                await until(partial(running.knows, 2))
                assert await engines.drain(port) == 0
    lost_nothing(tally)


@pytest.mark.parametrize("version", ["0.26.0", "0.32.0"])
async def test_the_only_engine_is_replaced_and_requests_wait_for_the_new_one(tmp_path: Path, version: str) -> None:
    async with served(tmp_path, version) as (running, engines):
        old = await engines.start()
        await until(partial(running.knows, 1))
        async with clients(running) as tally:
            engines.forget(old)
            await until(partial(running.knows, 0))
            assert await engines.drain(old) == 0
            await until(partial(many_wait, running))
            await engines.start()
    lost_nothing(tally)


async def many_wait(running: Gateway) -> bool:
    return await running.figure("falcon_gateway_held_requests") >= SHORT.clients


async def test_an_engine_that_refuses_while_it_drains_costs_no_stream_though_it_is_still_listed(tmp_path: Path) -> None:
    async with served(tmp_path, "0.26.0") as (running, engines):
        old, _ = await engines.start(), await engines.start()
        await until(partial(running.knows, 2))
        async with clients(running) as tally:
            assert await engines.drain(old) == 0
    # A connection that it had not taken yet when it stopped to listen may be lost with its request, which nobody can
    # tell from one that it has begun; the preStop hook waits so that there is none.
    assert set(tally.kinds) <= {"ok", "status"}, tally.examples
    assert all("engine_failed" in example for example in tally.examples), tally.examples
    assert tally.kinds["status"] <= 2 < tally.requests - 100, tally.examples


async def test_a_new_configuration_costs_nothing(tmp_path: Path) -> None:
    async with served(tmp_path, "0.32.0") as (running, engines):
        await engines.start()
        await until(partial(running.knows, 1))
        async with clients(running) as tally:
            before = tally.requests
            running.configure(gateway.settings(per_server=50, max_held=300))
            await until(lambda: "reloading" in running.log)
            await until(lambda: tally.requests > before + 200)
    lost_nothing(tally)
