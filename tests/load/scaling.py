"""A resource that scales by itself on the test cluster's node, with fake engines, and what happens to it when."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.load.arrivals import Arrival, Arrivals
from tests.load.client import Outcome
from tests.load.cluster import RESOURCE, Cluster, is_ready, until
from tests.load.scenarios import fake

from falcon_operator.api import names

Json = dict[str, Any]
SETTLE_SECONDS = 120.0
SEQUENCES = 12
# 12 sequences get a token each 32 ms: as slow as a busy GPU, and cheap to play.
STEP, EACH, PROMPT_RATE = 0.02, 0.001, 16_000.0
LOAD_SECONDS = 1.0


def spec(autoscaling: Json, *, gateways: int = 1, load: float = LOAD_SECONDS) -> Json:
    """A resource with engines that need `load` seconds to start."""
    manners = {
        "FAKE_LAW": f"{STEP},{EACH},{PROMPT_RATE}",
        "FAKE_LOAD": str(load),
        "FAKE_TEARDOWN": "0.5",
    }
    return {
        **fake(manners, sequences=SEQUENCES),
        "autoscaling": autoscaling,
        "rollout": {"drainTimeout": "60s"},
        "gateway": {"replicas": gateways, "holdTimeout": "2m", "maxHeldRequests": 2000},
    }


@dataclass
class Seen:
    """What a watch saw, on the monotonic clock: a Deployment's replicas, and the first moment of each pod's steps."""

    replicas: list[tuple[float, int]] = field(default_factory=list)
    reasons: list[tuple[float, str]] = field(default_factory=list)  # of these, in the autoscaler's words
    created: dict[str, float] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)  # its container runs
    ready: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)

    def replicas_at(self, moment: float) -> int:
        """The number that held then."""
        return next((count for seen, count in reversed(self.replicas) if seen <= moment), 0)

    def deployment(self, body: Json, _: str, now: float) -> None:
        """A Deployment's event."""
        count = body["spec"]["replicas"]
        if not self.replicas or self.replicas[-1][1] != count:
            self.replicas.append((now, count))
            annotations = body.get("metadata", {}).get("annotations") or {}
            self.reasons.append((now, annotations.get(names.ANNOTATION_SCALED, "")))

    def pod(self, body: Json, kind: str, now: float) -> None:
        """A pod's event."""
        name = body["metadata"]["name"]
        self.created.setdefault(name, now)
        if any("running" in (c.get("state") or {}) for c in body["status"].get("containerStatuses") or ()):
            self.started.setdefault(name, now)
        if is_ready(body):
            self.ready.setdefault(name, now)
        if kind == "DELETED":
            self.gone.setdefault(name, now)


class Scaled:
    """One resource in a namespace of its own, watched."""

    def __init__(self, client: httpx.Client, cluster: Cluster) -> None:
        self.cluster, self.seen, self._client = cluster, Seen(), client
        self.address = ""

    def watch(self) -> None:
        """Watch from now on, until the process or the client ends."""
        selector = f"{names.LABEL_INSTANCE}={RESOURCE},{names.LABEL_COMPONENT}={names.COMPONENT_ENGINE}"
        path = f"namespaces/{self.cluster.namespace}"
        for url, query, take in (
            (f"/apis/apps/v1/{path}/deployments", {"fieldSelector": f"metadata.name={RESOURCE}"}, self.seen.deployment),
            (f"/api/v1/{path}/pods", {"labelSelector": selector}, self.seen.pod),
        ):
            threading.Thread(target=self._follow, args=(url, query, take), daemon=True).start()

    def _follow(self, url: str, query: dict[str, str], take: Any) -> None:
        try:
            with self._client.stream("GET", url, params={**query, "watch": "true"}, timeout=None) as events:
                for line in events.iter_lines():
                    now, event = time.monotonic(), json.loads(line)
                    take(event["object"], event["type"], now)
        except (httpx.TransportError, httpx.StreamError, RuntimeError):
            return  # the client is closed

    async def serving(self, engines: int) -> None:
        """Wait until so many engines are ready and no other is left, and the gateways are."""

        def there() -> bool:
            pods = self.cluster.pods(names.COMPONENT_ENGINE)
            return len(pods) == engines and all(map(is_ready, pods))

        await self._until(there, f"{engines} engines")

    async def asked_for(self, engines: int, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until the Deployment asks for so many engines."""
        await self._until(lambda: self.seen.replicas_at(time.monotonic()) == engines, f"{engines} replicas", seconds)

    async def _until(self, probe: Any, what: str, seconds: float = SETTLE_SECONDS) -> None:
        try:
            await until(probe, what, seconds)
        except Exception as error:
            error.add_note(await asyncio.to_thread(self.cluster.story))
            error.add_note(f"replicas: {self.seen.replicas}")
            raise

    async def ask(self, *arrivals: Arrival) -> list[Outcome]:
        """Ask, and wait for all answers."""
        clients = await Arrivals.begin([self.address], arrivals)
        try:
            return await clients.end()
        finally:
            clients.kill()


@asynccontextmanager
async def scaled(client: httpx.Client, autoscaling: Json, **options: Any) -> AsyncIterator[Scaled]:
    """A resource with its first engine and its gateways ready; afterwards there is nothing left of it."""
    cluster = Cluster(client, f"scale-{uuid.uuid4().hex[:6]}")
    cluster.open()
    resource = Scaled(client, cluster)
    try:
        resource.watch()
        body = spec(autoscaling, **options)
        cluster.apply(body)
        await resource.serving(1)
        gateways = body["gateway"]["replicas"]
        await until(lambda: cluster.gateways_settled(gateways), f"{gateways} gateways", SETTLE_SECONDS)
        resource.address = await asyncio.to_thread(cluster.address)
        yield resource
    finally:
        cluster.close()
        await until(lambda: not cluster.pods(names.COMPONENT_ENGINE), "end of the engines", SETTLE_SECONDS)
