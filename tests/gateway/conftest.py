"""Fixtures of the gateway's tests: each runs with every HAProxy that this machine can have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.gateway import engine, gateway, haproxies
from tests.gateway.engine import Engine
from tests.gateway.gateway import Gateway, settings
from tests.gateway.haproxies import HAProxy

SOURCES: dict[str, Callable[[], HAProxy]] = {"installed": haproxies.installed, "newer": haproxies.newer}


class Start(Protocol):
    """Starts a gateway with these settings; `edits` are other figures for lines of its configuration."""

    async def __call__(self, edits: dict[str, str] | None = None, **changes: Any) -> Gateway: ...


class StartEngine(Protocol):
    """Starts an engine."""

    async def __call__(self, **options: Any) -> Engine: ...


@pytest.fixture(params=SOURCES, scope="session")
def haproxy(request: pytest.FixtureRequest) -> HAProxy:
    try:
        return SOURCES[request.param]()
    except haproxies.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
async def things() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def start(haproxy: HAProxy, tmp_path: Path, things: AsyncExitStack) -> Start:
    async def begin(edits: dict[str, str] | None = None, **changes: Any) -> Gateway:
        return await things.enter_async_context(
            gateway.running(haproxy, tmp_path / "gateway", settings(**changes), edits)
        )

    return begin


@pytest.fixture
def start_engine(things: AsyncExitStack) -> StartEngine:
    async def begin(**options: Any) -> Engine:
        return await things.enter_async_context(engine.running(**options))

    return begin
