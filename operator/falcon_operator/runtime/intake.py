"""Where events come in: into the cache, and their resource into the queue. Never waits, never fails on odd input."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from falcon_operator.kube.apply import controller_uid
from falcon_operator.kube.resources import CONFIG_MAP, DEPLOYMENT, EXTENSIONS, FALCON, NODE, POD, Resource, is_launcher
from falcon_operator.runtime.cache import Cache, Key, key_of, owner_of
from falcon_operator.runtime.nodes import Nodes
from falcon_operator.runtime.queue import Priority, WorkQueue

log = logging.getLogger(__name__)


class Intake:
    """Takes events of every watched kind."""

    def __init__(
        self,
        cache: Cache,
        queue: WorkQueue,
        nodes: Nodes,
        *,
        pod_gone: Callable[[str], None],
        relisted: Callable[[Resource], None],
    ) -> None:
        self._cache, self._queue, self._nodes = cache, queue, nodes
        self._pod_gone, self._relisted = pod_gone, relisted

    def event(self, resource: Resource, kind: str | None, body: Mapping[str, Any]) -> None:
        """Take one event; without a kind it comes from a list, which says nothing of what is gone."""
        if kind is None:
            self._relisted(resource)
        if kind == "DELETED":
            if self._cache.delete(resource, body):
                self.gone(resource, body)
        elif self._cache.upsert(resource, body):
            self.changed(resource, body)

    def changed(self, resource: Resource, body: Mapping[str, Any]) -> None:
        """An object is new or another: its resource is to be looked at."""
        if resource is NODE:
            self._nodes.changed(self._cache.get(NODE, key_of(body)) or body)
            return
        owner = owner_of(resource, body)
        if owner is not None:
            self.enqueue(owner)

    def gone(self, resource: Resource, body: Mapping[str, Any]) -> None:
        """An object is no longer there."""
        if resource is NODE:
            self._nodes.gone(body["metadata"]["name"])
            return
        if resource is POD:
            self._pod_gone(body["metadata"]["uid"])
        if resource is CONFIG_MAP and is_launcher(body):
            namespace = body["metadata"]["namespace"]
            for key in self._cache.keys(FALCON):
                if key[0] == namespace:
                    self.enqueue(key)
            return
        owner = owner_of(resource, body)
        if owner is not None:
            self.enqueue(owner, even_if_gone=resource is FALCON)

    def readable(self, resource: Resource, allowed: bool) -> None:
        """Whether a kind may be read at all."""
        if resource is NODE:
            self._nodes.readable(allowed)
        if resource in EXTENSIONS:
            for key in self._cache.keys(FALCON):
                self.enqueue(key)

    def enqueue(self, key: Key, *, even_if_gone: bool = False) -> None:
        """Queue a resource: first if its Deployment is still to be written."""
        resource = self._cache.get(FALCON, key)
        if resource is None:
            if even_if_gone:
                self._queue.add(key)
            return
        deployment = self._cache.get(DEPLOYMENT, key)
        started = deployment is not None and controller_uid(deployment) == resource["metadata"]["uid"]
        self._queue.add(key, Priority.NORMAL if started else Priority.FIRST)
