"""Authoritative lists: what no event told.

A watch that was cut and begun anew says what is there, not what has gone meanwhile. So each kind is listed at the
start, from time to time, and whenever its watch seems to have begun anew.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from falcon_operator.kube.client import KubeClient
from falcon_operator.kube.errors import ApiError, Conflict, Forbidden, NotFound
from falcon_operator.kube.resources import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    EXTENSIONS,
    FALCON,
    NODE,
    OPTIONAL,
    WATCHED,
    Resource,
    is_launcher,
)
from falcon_operator.runtime.cache import Cache, key_of
from falcon_operator.runtime.compact import compact
from falcon_operator.runtime.intake import Intake
from falcon_operator.telemetry.metrics import Metrics

# A list comes as one event an object: wait until it is over.
SETTLE_SECONDS = 5.0
RETRY_SECONDS = 5.0

log = logging.getLogger(__name__)


class Sweeper:
    """Lists every kind and takes out of the cache what is no longer there."""

    def __init__(
        self,
        client: KubeClient,
        cache: Cache,
        metrics: Metrics,
        *,
        namespaces: tuple[str, ...],
        every_seconds: float,
        launcher: str,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._client, self._cache, self._metrics = client, cache, metrics
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._every, self._launcher, self._jitter = every_seconds, launcher, jitter
        self._relisted: set[Resource] = set()
        self._wake = asyncio.Event()
        self._intake: Intake | None = None

    def feed(self, intake: Intake) -> None:
        """Where what a sweep finds goes to."""
        self._intake = intake

    def relisted(self, resource: Resource) -> None:
        """A watch of this kind has just begun anew."""
        self._relisted.add(resource)
        self._wake.set()

    async def sync(self) -> None:
        """The first list of every kind; without them nothing may be decided. Waits for the API server and the CRD."""
        while True:
            try:
                await asyncio.gather(*(self.sweep(resource) for resource in WATCHED))
                return
            except NotFound:
                log.error(
                    "the API server does not know %s: install the CRDs (`falcon-operator crds` prints them)",
                    FALCON.plural,
                )
            except ApiError as error:
                log.error("cannot list what is there: %s", error)
            await asyncio.sleep(RETRY_SECONDS)

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            kinds = await self._due()
            try:
                for resource in kinds:
                    await self.sweep(resource)
                await self.collect_launchers()
            except ApiError as error:
                log.warning("sweep failed, it will be repeated: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                for resource in kinds:
                    self.relisted(resource)

    async def sweep(self, resource: Resource) -> None:
        """List one kind and correct the cache by it."""
        before = self._cache.versions(resource)
        try:
            listed = await self._list(resource)
        except (Forbidden, NotFound) as error:
            if resource not in (EXTENSIONS if isinstance(error, NotFound) else OPTIONAL):
                raise
            self._refused(resource, error)
            return
        if resource in self._cache.refused:
            log.warning("%s can be read now; an operator that started without them lists them every %.0f s, and "
                        "watches them once it is started again", resource.plural, self._every)  # fmt: skip
            if self._intake is not None:
                self._intake.readable(resource, True)
        news, gone = self._cache.replace(resource, listed, before)
        self._metrics.swept(resource.kind, len(gone))
        for body in gone:
            log.info("%s %s is gone, and no event had said so", resource.kind, "/".join(filter(None, key_of(body))))
            if self._intake is not None:
                self._intake.gone(resource, body)
        for body in news:
            if self._intake is not None:
                self._intake.changed(resource, body)

    async def _list(self, resource: Resource) -> list[dict[str, Any]]:
        namespaces = self._namespaces if resource.namespaced else (None,)
        keep = partial(compact, NODE) if resource is NODE else _as_it_is
        listed: list[dict[str, Any]] = []
        for namespace in namespaces:
            listed += await self._client.list(resource, namespace, WATCHED[resource], keep)
        return listed

    def _refused(self, resource: Resource, error: ApiError) -> None:
        if resource in self._cache.refused:
            return
        if resource in EXTENSIONS:
            log.info(
                "there is no %s that can be read, for resources that ask for one: %s", resource.kind, error.message
            )
        else:
            log.warning("%s cannot be read, and the operator goes on without them: %s", resource.plural, error.message)
        self._cache.refuse(resource)
        if self._intake is not None:
            self._intake.readable(resource, False)

    async def collect_launchers(self) -> None:
        """Delete launcher ConfigMaps that no Deployment and no revision of their namespace refers to."""
        in_use = {(body["metadata"]["namespace"], name)
                  for kind in (DEPLOYMENT, CONTROLLER_REVISION)
                  for body in self._cache.all(kind)
                  for name in config_maps_of(body)}  # fmt: skip
        in_use |= {(namespace, self._launcher) for namespace, _ in self._cache.keys(FALCON)}
        for key in self._cache.keys(CONFIG_MAP):
            body = self._cache.get(CONFIG_MAP, key)
            if key in in_use or body is None or not is_launcher(body):
                continue
            with suppress(NotFound, Conflict):  # gone already
                await self._client.delete(CONFIG_MAP, *key, uid=body["metadata"]["uid"])
            self._cache.delete(CONFIG_MAP, body)
            log.info("launcher ConfigMap %s/%s deleted: nothing refers to it", *key)

    async def _due(self) -> list[Resource]:
        try:
            async with asyncio.timeout(self._every * (0.9 + 0.2 * self._jitter())):
                await self._wake.wait()
        except TimeoutError:
            return list(WATCHED)
        await asyncio.sleep(SETTLE_SECONDS)
        self._wake.clear()
        kinds, self._relisted = [kind for kind in WATCHED if kind in self._relisted], set()
        return kinds


def _as_it_is(body: dict[str, Any]) -> dict[str, Any]:
    return body


def config_maps_of(value: Any) -> Iterator[str]:
    """The names of the ConfigMaps that volumes anywhere in an object refer to."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "configMap" and isinstance(item, Mapping) and "name" in item:
                yield item["name"]
            else:
                yield from config_maps_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from config_maps_of(item)
