"""Writes a resource's status: only when it changes, and at most once a second."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from falcon_operator.api import names
from falcon_operator.desired.canonical import content_hash, without_none
from falcon_operator.kube.client import KubeClient
from falcon_operator.kube.errors import Conflict, NotFound
from falcon_operator.kube.limiter import Limiter
from falcon_operator.kube.resources import FALCON
from falcon_operator.runtime.cache import Cache
from falcon_operator.telemetry.metrics import Metrics

SECONDS_BETWEEN = 1.0

log = logging.getLogger(__name__)


class StatusWriter:
    """The only writer of `status`, under a field manager of its own."""

    def __init__(self, client: KubeClient, cache: Cache, metrics: Metrics, *, limiter: Limiter | None = None) -> None:
        self._client, self._cache, self._metrics = client, cache, metrics
        self._limiter = limiter or Limiter(1, SECONDS_BETWEEN)
        # By UID, what was asked for and what the API server made of it: it may store another form.
        self._last: dict[str, tuple[str, str]] = {}

    def differs(self, resource: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
        """Whether the resource's status is to be written."""
        live, wanted = resource.get("status") or {}, without_none(status)
        if live == wanted:
            return False
        return self._last.get(resource["metadata"]["uid"]) != (content_hash(wanted), content_hash(live))

    async def write(self, resource: Mapping[str, Any], status: Mapping[str, Any]) -> float:
        """Write the status; returns 0, or after how many seconds it may be written."""
        metadata = resource["metadata"]
        uid = metadata["uid"]
        wait = self._limiter.wait(uid)
        if wait > 0:
            return wait
        wanted = without_none(status)
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            # With the UID: a new resource of the same name does not inherit this one's status.
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": uid},
            "status": wanted,
        }
        try:
            answer = await self._client.apply(FALCON, body, names.MANAGER_STATUS, force=True, subresource="status")
        except (NotFound, Conflict) as error:
            log.debug("%s/%s is gone: %s", metadata["namespace"], metadata["name"], error)
            return 0.0
        self._metrics.applied(f"{names.KIND}/status", "written")
        self._last[uid] = content_hash(wanted), content_hash(answer.get("status") or {})
        self._cache.upsert(FALCON, answer)
        return 0.0

    def forget(self, uid: str) -> None:
        """The resource is gone."""
        self._last.pop(uid, None)
        self._limiter.forget(uid)
