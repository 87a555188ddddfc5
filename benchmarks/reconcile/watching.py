"""Watches of the benchmark: when each object first appeared, and when each resource said that it is Ready."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from falcon_operator.kube.connection import Connection
from falcon_operator.kube.resources import DEPLOYMENT, FALCON, Resource

Json = dict[str, Any]


class Moments:
    """Times of one namespace, by name, on the monotonic clock."""

    def __init__(self, connection: Connection, session: aiohttp.ClientSession, namespace: str) -> None:
        self._connection, self._session, self._namespace = connection, session, namespace
        self.deployed: dict[str, float] = {}
        self.ready: dict[str, float] = {}
        # How many nodes each resource says are refused, and since when it says so.
        self.refused: dict[str, tuple[int, float]] = {}
        self._changed = asyncio.Condition()

    async def watch(self) -> None:
        """Watch for ever."""
        await asyncio.gather(self._follow(DEPLOYMENT, self._deployment), self._follow(FALCON, self._resource))

    async def until(self, reached: Callable[[], bool], seconds: float) -> None:
        """Wait until something has been seen."""
        async with self._changed, asyncio.timeout(seconds):
            await self._changed.wait_for(reached)

    def ready_on_the_wall(self, names: list[str]) -> dict[str, float]:
        """When each was Ready, in seconds since the epoch, as the audit log counts."""
        offset = time.time() - time.monotonic()
        return {name: self.ready[name] + offset for name in names}

    async def _follow(self, resource: Resource, take: Callable[[Json, float], None]) -> None:
        url = self._connection.server + resource.path(self._namespace)
        while True:
            async with self._session.get(
                url,
                params={"watch": "true"},
                timeout=aiohttp.ClientTimeout(total=None),
            ) as stream:
                async for line in stream.content:
                    now = time.monotonic()
                    take(json.loads(line)["object"], now)
                    async with self._changed:
                        self._changed.notify_all()

    def _deployment(self, body: Json, now: float) -> None:
        self.deployed.setdefault(body["metadata"]["name"], now)

    def _resource(self, body: Json, now: float) -> None:
        status = body.get("status") or {}
        name, refused = body["metadata"]["name"], len((status.get("nodes") or {}).get("rejected") or ())
        if self.refused.get(name, (-1, now))[0] != refused:
            self.refused[name] = refused, now
        if status.get("observedGeneration") != body["metadata"]["generation"]:
            return
        if any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()):
            self.ready.setdefault(name, now)
