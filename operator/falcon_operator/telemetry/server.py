"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from falcon_operator.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Says what is wrong, or nothing.
Check = Callable[[], str | None]

LAG_SECONDS = 1.0


@asynccontextmanager
async def serving(port: int, metrics: Metrics, *, health: Check, readiness: Check) -> AsyncIterator[None]:
    """Serve the endpoints for as long as the context lasts."""

    def answer(check: Check) -> web.Response:
        problem = check()
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

    async def healthz(_: web.Request) -> web.Response:
        return answer(health)

    async def readyz(_: web.Request) -> web.Response:
        return answer(readiness)

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    application = web.Application()
    application.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", exposition)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, None, port).start()
        yield
    finally:
        await runner.cleanup()


async def measure_lag(metrics: Metrics, ages: Callable[[], list[float]]) -> None:
    """Once a second: how late the event loop is, and how old the work in progress."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        metrics.loop_lag.set(max(0.0, loop.time() - due))
        working = ages()
        metrics.unfinished_seconds.set(sum(working))
        metrics.longest_seconds.set(max(working, default=0.0))
