"""A thin client of the Kubernetes API: dictionaries in, dictionaries out, typed errors, bounded time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from falcon_operator.kube.connection import Connection
from falcon_operator.kube.errors import ApiError, TooManyRequests, Unauthorized, Unavailable, from_response
from falcon_operator.kube.resources import EVENT, NODE, POD, Resource
from falcon_operator.telemetry.metrics import Metrics

Object = dict[str, Any]

REQUEST_SECONDS = 15.0
LIST_SECONDS = 60.0
LIST_CHUNK = 500
# Nodes are large, with the names of all their images: a hundred of them are some 10 MB while they are read.
NODES_CHUNK = 100
READ_ATTEMPTS = 3


class KubeClient:
    """Reads and writes objects. Only reads are tried again here: a failed write is decided anew by its caller."""

    def __init__(self, connection: Connection, metrics: Metrics) -> None:
        self._server = connection.server
        self._host = URL(connection.server).authority
        self._session = connection.session()
        self._metrics = metrics

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        selector: str | None = None,
        keep: Callable[[Object], Object] = lambda body: body,
    ) -> list[Object]:
        """All objects of a kind as they are now (a quorum read), in chunks; `keep` makes them smaller on the way."""
        items: list[Object] = []
        following = ""
        while True:
            query = {"limit": str(NODES_CHUNK if resource is NODE else LIST_CHUNK)}
            if selector:
                query["labelSelector"] = selector
            if following:
                query["continue"] = following
            answer = await self._read(resource.path(namespace) + "?" + urlencode(query), LIST_SECONDS)
            items += map(keep, answer.get("items") or ())
            following = (answer.get("metadata") or {}).get("continue") or ""
            if not following:
                return items

    async def pods_on(self, node: str, keep: Callable[[Object], Object]) -> Sequence[Object]:
        """All pods of a node, of all namespaces, from the API server's cache; `keep` makes them smaller."""
        query = {"fieldSelector": f"spec.nodeName={node}", "resourceVersion": "0"}
        answer = await self._read(POD.path() + "?" + urlencode(query), LIST_SECONDS)
        return [keep(pod) for pod in answer.get("items") or ()]

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object."""
        return await self._read(resource.path(namespace, name), REQUEST_SECONDS)

    async def apply(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        manager: str,
        *,
        force: bool = False,
        subresource: str | None = None,
    ) -> Object:
        """Server-side apply; the answer is the object as it is afterwards."""
        metadata = body["metadata"]
        query = f"?fieldManager={quote(manager)}"
        if force:
            query += "&force=true"
        path = resource.path(metadata["namespace"], metadata["name"], subresource) + query
        return await self._request("PATCH", path, body, "application/apply-patch+yaml")

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """Delete this incarnation of an object, not another one of the same name."""
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": uid},
            # What everything does by itself but a Job, which would leave its pods behind.
            "propagationPolicy": "Background",
        }
        await self._request("DELETE", resource.path(namespace, name), options, "application/json")

    async def create_event(self, event: Mapping[str, Any]) -> Object:
        """Post a new Event."""
        path = EVENT.path(event["metadata"]["namespace"])
        return await self._request("POST", path, event, "application/json")

    async def patch_event(self, namespace: str, name: str, patch: Mapping[str, Any]) -> Object:
        """Merge a change into an Event that is there."""
        return await self._request("PATCH", EVENT.path(namespace, name), patch, "application/merge-patch+json")

    async def _read(self, path: str, seconds: float) -> Object:
        for attempt in range(1, READ_ATTEMPTS + 1):
            try:
                return await self._request("GET", path, seconds=seconds)
            except (Unavailable, TooManyRequests, Unauthorized) as error:
                if attempt == READ_ATTEMPTS:
                    raise
                await asyncio.sleep(error.retry_after or 0.2 * 4**attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> Object:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {"Content-Type": content_type} if content_type else None
        begin, code = perf_counter(), "<error>"
        try:
            async with self._session.request(
                method,
                URL(self._server + path, encoded=True),
                data=data,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as response:
                code = str(response.status)
                content = await response.read()
                if response.status >= 300:
                    raise from_response(response.status, content, response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(
                0, "NoAnswer", f"no answer from the API server: {error or type(error).__name__}"
            ) from error
        finally:
            self._metrics.request(method, code, self._host, perf_counter() - begin)
        parsed = json.loads(content)
        if not isinstance(parsed, dict):
            raise ApiError(200, "Unreadable", f"the API server's answer to {method} {path} is not an object")
        return parsed
