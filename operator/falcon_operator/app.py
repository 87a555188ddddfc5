"""The composition root: makes the parts, starts them in order, and ends them together."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from falcon_operator import __version__
from falcon_operator.api import names
from falcon_operator.api.config import OperatorConfig
from falcon_operator.kube.client import KubeClient
from falcon_operator.kube.connection import Connection, connect
from falcon_operator.kube.events import EventRecorder
from falcon_operator.kube.resources import FALCON
from falcon_operator.launcher import make_renderer
from falcon_operator.observe.engine import EngineObserver
from falcon_operator.runtime.autoscaler import Autoscaler
from falcon_operator.runtime.cache import Cache
from falcon_operator.runtime.deletion_costs import DeletionCosts
from falcon_operator.runtime.executor import Executor
from falcon_operator.runtime.free_gpus import FreeGpus
from falcon_operator.runtime.intake import Intake
from falcon_operator.runtime.nodes import Nodes
from falcon_operator.runtime.queue import WorkQueue
from falcon_operator.runtime.status import StatusWriter
from falcon_operator.runtime.sweep import Sweeper
from falcon_operator.runtime.worker import Reconciler, Workers
from falcon_operator.telemetry.metrics import Metrics
from falcon_operator.telemetry.server import measure_lag, serving

# A pass over one resource takes milliseconds, a failing API server seconds. Minutes mean that a worker hangs.
HUNG_SECONDS = 600.0
STOP_SECONDS = 5.0
# Python's collector runs after so many new objects; its default of 700 is a request's worth.
COLLECT = (10_000, 10, 10)

log = logging.getLogger(__name__)


class Operator:
    """All parts of one operator process."""

    def __init__(self, config: OperatorConfig, connection: Connection) -> None:
        self._config, self._connection = config, connection
        renderer = make_renderer(config)
        self.metrics = Metrics()
        self.cache = Cache()
        self.queue = WorkQueue(self.metrics)
        self.client = KubeClient(connection, self.metrics)
        self.events = EventRecorder(self.client, socket.gethostname())
        self.observer = EngineObserver(self.queue.add)
        self.autoscaler = Autoscaler(self.queue.add)
        self.sweeper = Sweeper(
            self.client,
            self.cache,
            self.metrics,
            namespaces=config.watch_namespaces,
            every_seconds=config.sweep_seconds,
            launcher=renderer.launcher.name,
        )
        nodes = Nodes(self.cache, self.queue)
        self.intake = Intake(
            self.cache, self.queue, nodes, pod_gone=self.observer.forget, relisted=self.sweeper.relisted
        )
        self.sweeper.feed(self.intake)
        reconciler = Reconciler(
            self.cache,
            self.queue,
            Executor(self.client, self.cache, self.metrics),
            StatusWriter(self.client, self.cache, self.metrics),
            self.events,
            self.observer,
            nodes,
            renderer,
            resync_seconds=config.resync_seconds,
            free=FreeGpus(self.client),
            costs=DeletionCosts(self.client, self.observer.load),
            autoscaler=self.autoscaler,
            failed=self.metrics.failed,
        )
        self.workers = Workers(self.queue, reconciler, self.metrics, count=config.workers)
        self.metrics.export_resources(lambda: list(self.cache.all(FALCON)))
        self.metrics.export_scaling(self.autoscaler.figures)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; raises when a part fails, so that the process is started anew."""
        stop, watching = asyncio.Event(), asyncio.Event()
        _on_signals(stop)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.client.close)
            stack.push_async_callback(self.observer.close)
            stack.push_async_callback(self.autoscaler.close)
            await stack.enter_async_context(
                serving(self._config.listen_port, self.metrics, health=self._health, readiness=self._readiness)
            )
            if await self._together({"stop": _until(stop), "sync": self.sweeper.sync()}) == "stop":
                return
            log.info("synced: %d resources", len(self.cache.keys(FALCON)))
            ended = await self._together(
                {
                    "stop": _stopped(stop, watching),
                    "watches": self._watch(watching),
                    "workers": self.workers.run(),
                    "sweeper": self.sweeper.run(),
                    "events": self.events.run(),
                    "lag": measure_lag(self.metrics, self.queue.ages),
                }
            )
            if ended != "stop":
                raise RuntimeError(f"the {ended} ended, which they never should")
            log.info("stopped")

    async def _watch(self, watching: asyncio.Event) -> None:
        kopf, handlers = _kopf()
        namespaces = self._config.watch_namespaces
        await kopf.operator(
            registry=handlers.registry_for(self.intake, self._connection, self.cache.refused),
            settings=handlers.settings_for(),
            clusterwide=not namespaces,
            namespaces=namespaces,
            standalone=True,
            identity=names.MANAGER_CHILDREN,  # else kopf asks for the user's name, and a pod's user may have none
            ready_flag=watching,
        )

    @staticmethod
    async def _together(parts: dict[str, Coroutine[Any, Any, None]]) -> str:
        """Run parts until the first of them ends, end the others, and name it."""
        tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for task in done:
            task.result()
        return next(iter(done)).get_name()

    def _health(self) -> str | None:
        hung = [age for age in self.queue.ages() if age > HUNG_SECONDS]
        return f"{len(hung)} workers hang, the longest for {max(hung):.0f} s" if hung else None

    def _readiness(self) -> str | None:
        return None if self.cache.synced else "the caches are not yet synced"


async def run(config: OperatorConfig) -> None:
    """Connect and run."""
    log.info("falcon-operator %s starts", __version__)
    await Operator(config, await connect()).run()


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


async def _stopped(stop: asyncio.Event, watching: asyncio.Event) -> None:
    # kopf takes the signals over when it starts, and would then wait for our tasks to end by themselves.
    await watching.wait()
    _on_signals(stop)
    # What is there now stays: the collector need not look at it again, and a full collection would take 50 ms.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    _give_back()
    await stop.wait()


def _give_back() -> None:
    """Return to the system what the start took and has freed; the C library keeps it else."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)


def _on_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


def _kopf() -> tuple[Any, Any]:
    """Import kopf without the synchronous client, which it loads where it finds it, and which costs 20 MB."""
    hidden = "kubernetes" not in sys.modules
    if hidden:
        sys.modules["kubernetes"] = None  # type: ignore[assignment]
    try:
        import kopf

        from falcon_operator import handlers
    finally:
        if hidden:
            del sys.modules["kubernetes"]
    return kopf, handlers
