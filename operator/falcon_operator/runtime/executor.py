"""Carries out a plan: applies what differs, deletes what is to go, and keeps the API server's refusals."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from enum import Enum
from typing import Any

from falcon_operator.api import names
from falcon_operator.decide.types import ObjectRef
from falcon_operator.kube.apply import applied_hash, controller_uid, differences
from falcon_operator.kube.client import KubeClient
from falcon_operator.kube.errors import Conflict, Forbidden, Invalid, NotFound
from falcon_operator.kube.limiter import Limiter
from falcon_operator.kube.resources import BY_KIND, CLAIM, CONFIG_MAP, Resource, is_launcher, resource_of
from falcon_operator.runtime.cache import Cache, Key
from falcon_operator.runtime.compact import digested
from falcon_operator.telemetry.metrics import Metrics

# Who fights with us over a field loses at first, then less and less often, and never heats the API server.
HEAL_BURST = 10
HEAL_SECONDS = 15.0

log = logging.getLogger(__name__)


class Outcome(Enum):
    """What became of one object of a plan."""

    UNCHANGED = "unchanged"
    WRITTEN = "written"
    REFUSED = "refused"
    WAITING = "waiting"  # for the remains of an earlier resource of the same name to be collected


class Executor:
    """Writes children. Knows nothing of what they mean."""

    def __init__(self, client: KubeClient, cache: Cache, metrics: Metrics, *, heals: Limiter | None = None) -> None:
        self._client, self._cache, self._metrics = client, cache, metrics
        self._heals = heals or Limiter(HEAL_BURST, HEAL_SECONDS)
        self._refused: defaultdict[Key, dict[str, str]] = defaultdict(dict)
        # Where the API server stores a value in another form than we sent: by object, for one applied hash.
        self._normalised: dict[tuple[Resource, Key], tuple[str | None, frozenset[str]]] = {}
        self._launchers: dict[Key, asyncio.Task[None]] = {}

    def refused(self, owner: Key) -> Mapping[str, str]:
        """What the API server last refused of a resource's children, by `Kind/name`."""
        return dict(self._refused.get(owner, ()))

    def forget(self, owner: Key) -> None:
        """The resource is gone."""
        self._refused.pop(owner, None)
        for known in [known for known in self._normalised if known[1] == owner]:
            del self._normalised[known]

    async def apply(self, owner: Key, owner_uid: str, desired: Mapping[str, Any]) -> Outcome:
        """Make one object as desired; errors that will pass by themselves are raised."""
        resource = resource_of(desired)
        name = desired["metadata"]["name"]
        label = f"{resource.kind}/{name}"
        try:
            if resource is CONFIG_MAP and is_launcher(desired):
                outcome = await self._apply_launcher(desired)
            else:
                outcome = await self._apply_child(resource, (owner[0], name), owner_uid, desired)
        except (Conflict, Forbidden, Invalid) as error:
            self._refused[owner][label] = error.message
            self._metrics.applied(resource.kind, "refused")
            log.warning("%s %s/%s was refused: %s", resource.kind, owner[0], name, error.message)
            return Outcome.REFUSED
        refusals = self._refused.get(owner)
        if refusals is not None:
            refusals.pop(label, None)
            if not refusals:
                del self._refused[owner]
        return outcome

    async def delete(self, reference: ObjectRef) -> None:
        """Delete this incarnation of an object; that it is gone already is as good."""
        resource = BY_KIND[reference.kind]
        live = self._cache.get(resource, (reference.namespace, reference.name))
        if live is not None and live["metadata"].get("deletionTimestamp"):
            return
        try:
            await self._client.delete(resource, reference.namespace, reference.name, reference.uid)
        except (NotFound, Conflict) as error:
            log.debug("%s %s/%s is gone: %s", reference.kind, reference.namespace, reference.name, error)
        self._metrics.applied(resource.kind, "deleted")
        if live is not None and live["metadata"]["uid"] == reference.uid:
            self._cache.delete(resource, live)

    async def _apply_child(self, resource: Resource, key: Key, uid: str, desired: Mapping[str, Any]) -> Outcome:
        live = self._cache.get(resource, key)
        if live is None:
            return await self._create(resource, key, uid, desired)
        controller = controller_uid(live)
        if controller not in (None, uid) or live["metadata"].get("deletionTimestamp"):
            return Outcome.WAITING
        if not self._differs(resource, key, desired, live):
            return Outcome.UNCHANGED
        if applied_hash(live) == applied_hash(desired) and self._heals.wait((resource, key)) > 0:
            return Outcome.WAITING
        # Forced only where the object is ours. One of ours that was orphaned gives no conflict: we manage its fields.
        await self._write(resource, key, desired, force=controller == uid)
        return Outcome.WRITTEN

    async def _create(self, resource: Resource, key: Key, uid: str, desired: Mapping[str, Any]) -> Outcome:
        if resource is CLAIM:
            # Two can ask for the same claim without a conflict, and it would be deleted with the resource: look first.
            try:
                await self._take_if_ours(resource, key, uid)
                return await self._apply_child(resource, key, uid, desired)
            except NotFound:
                pass
        try:
            await self._write(resource, key, desired, force=False)
        except Conflict as conflict:
            # Not in the cache, and yet there: a stranger's, or one of ours that lost the label we watch by.
            try:
                await self._take_if_ours(resource, key, uid)
            except Conflict:
                raise conflict from None  # it names the other manager and the fields
            return await self._apply_child(resource, key, uid, desired)
        return Outcome.WRITTEN

    async def _take_if_ours(self, resource: Resource, key: Key, uid: str) -> None:
        """Put an object that the cache lacks into it, if the resource controls it; else the name is taken."""
        found = await self._client.get(resource, *key)
        if controller_uid(found) != uid:
            raise Conflict(
                409, "NameTaken", f"{resource.kind} {key[1]} is there and is not controlled by this resource"
            )
        if not self._cache.upsert(resource, found) and self._cache.get(resource, key) is None:
            raise NotFound(404, "NotFound", f"{resource.kind} {key[1]} is being deleted")

    async def _write(self, resource: Resource, key: Key, desired: Mapping[str, Any], *, force: bool) -> None:
        answer = await self._client.apply(resource, desired, names.MANAGER_CHILDREN, force=force)
        self._metrics.applied(resource.kind, "written")
        self._cache.upsert(resource, answer)
        different = differences(desired, answer)
        if different:
            log.debug("the API server stores another form of %s %s/%s: %s", resource.kind, *key, sorted(different))
            self._normalised[resource, key] = applied_hash(desired), different
        else:
            self._normalised.pop((resource, key), None)

    def _differs(self, resource: Resource, key: Key, desired: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
        digest = applied_hash(desired)
        if applied_hash(live) != digest:
            log.debug("%s %s/%s is to be changed", resource.kind, *key)
            return True
        # As the cache keeps it.
        different = differences(digested(desired) if resource is CONFIG_MAP else desired, live)
        if not different:
            return False
        known_digest, normalised = self._normalised.get((resource, key), (None, frozenset()))
        if known_digest == digest and different <= normalised:
            return False
        log.info("%s %s/%s was changed by somebody else: %s", resource.kind, *key, ", ".join(sorted(different)))
        return True

    async def _apply_launcher(self, desired: Mapping[str, Any]) -> Outcome:
        """One object for all resources of a namespace: whoever comes first writes it, the others wait for that."""
        key = (desired["metadata"]["namespace"], desired["metadata"]["name"])
        if self._cache.get(CONFIG_MAP, key) is not None:
            return Outcome.UNCHANGED
        task = self._launchers.get(key)
        if task is None:
            task = asyncio.create_task(self._write_launcher(key, desired), name=f"launcher {key[0]}")
            self._launchers[key] = task
            task.add_done_callback(lambda _: self._launchers.pop(key, None))
        await asyncio.shield(task)
        return Outcome.WRITTEN

    async def _write_launcher(self, key: Key, desired: Mapping[str, Any]) -> None:
        answer = await self._client.apply(CONFIG_MAP, desired, names.MANAGER_CHILDREN)
        self._metrics.applied(CONFIG_MAP.kind, "written")
        self._cache.upsert(CONFIG_MAP, answer)
