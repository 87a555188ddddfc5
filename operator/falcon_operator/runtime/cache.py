"""What is known of the cluster: the newest seen version of each object, and which resource it belongs to."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from falcon_operator.api import names
from falcon_operator.kube.resources import CONFIG_MAP, FALCON, NODE, WATCHED, Resource, is_launcher
from falcon_operator.runtime.compact import compact

Key = tuple[str, str]
"""Namespace and name; the namespace is empty for an object of the cluster."""

# An object's last events can come long after its deletion (a slow answer, a watch that was behind); not an hour after.
TOMBSTONES = 10_000


class Cache:
    """Objects by kind and name. Bodies are shared, never changed."""

    def __init__(self) -> None:
        self._objects: dict[Resource, dict[Key, dict[str, Any]]] = {resource: {} for resource in WATCHED}
        self._children: defaultdict[Key, set[tuple[Resource, str]]] = defaultdict(set)
        self._launchers: defaultdict[str, set[str]] = defaultdict(set)
        self._tombstones: OrderedDict[str, int] = OrderedDict()  # UID -> version at its deletion
        self._synced: set[Resource] = set()
        self._refused: set[Resource] = set()

    # --- reading

    def get(self, resource: Resource, key: Key) -> dict[str, Any] | None:
        """One object, or None."""
        return self._objects[resource].get(key)

    def all(self, resource: Resource) -> Iterable[dict[str, Any]]:
        """Every object of a kind."""
        return self._objects[resource].values()

    def keys(self, resource: Resource) -> list[Key]:
        """The names of every object of a kind."""
        return list(self._objects[resource])

    def children(self, owner: Key) -> Iterator[tuple[Resource, dict[str, Any]]]:
        """The objects that carry a resource's name in their labels, of whichever incarnation."""
        for resource, name in self._children.get(owner, ()):
            yield resource, self._objects[resource][owner[0], name]

    def launchers(self, namespace: str) -> frozenset[str]:
        """The launcher ConfigMaps of a namespace."""
        return frozenset(self._launchers.get(namespace, ()))

    def versions(self, resource: Resource) -> dict[Key, int]:
        """The version of each object of a kind, for a comparison with a list that is about to be read."""
        return {key: version_of(body) for key, body in self._objects[resource].items()}

    @property
    def synced(self) -> bool:
        """Whether every kind has been listed once, or may not be listed."""
        return len(self._synced) == len(WATCHED)

    @property
    def refused(self) -> frozenset[Resource]:
        """The kinds that may not be listed: nothing is known of them."""
        return frozenset(self._refused)

    # --- writing

    def upsert(self, resource: Resource, body: Mapping[str, Any]) -> bool:
        """Take an object as an event or an answer shows it; False where that is no news."""
        key = key_of(body)
        if version_of(body) <= self._tombstones.get(body["metadata"].get("uid", ""), -1):
            return False
        known = self._objects[resource].get(key)
        if known is not None and version_of(known) >= version_of(body):
            return False
        return self._store(resource, key, body)

    def delete(self, resource: Resource, body: Mapping[str, Any]) -> bool:
        """Take an object's deletion; its name may belong to a newer object already, which stays."""
        self._bury(body)
        key, uid = key_of(body), body["metadata"].get("uid")
        known = self._objects[resource].get(key)
        if known is None or known["metadata"].get("uid") != uid or version_of(known) > version_of(body):
            return False
        self._drop(resource, key)
        return True

    def replace(
        self, resource: Resource, listed: Iterable[Mapping[str, Any]], before: Mapping[Key, int]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Take an authoritative list; returns the objects that were news and those that turned out to be gone.

        `before` holds the versions from before the list was requested. Only what has not moved since is judged by
        the list: the rest is newer than it. The list wins over an unmoved object even with a lower version, as after
        a restore of the API server's store.
        """
        objects = self._objects[resource]
        news: list[dict[str, Any]] = []
        present: set[Key] = set()
        for body in listed:
            key = key_of(body)
            present.add(key)
            known = objects.get(key)
            unmoved = known is not None and before.get(key) == version_of(known)
            if unmoved and known is not None and version_of(known) != version_of(body):
                is_news = self._store(resource, key, body)
            else:
                is_news = self.upsert(resource, body)
            if is_news:
                news.append(objects[key])
        gone: list[dict[str, Any]] = []
        for key, version in before.items():
            known = objects.get(key)
            if key in present or known is None or version_of(known) != version:
                continue
            gone.append(known)
            self._bury(known)
            self._drop(resource, key)
        self._synced.add(resource)
        self._refused.discard(resource)
        return news, gone

    def refuse(self, resource: Resource) -> None:
        """This kind may not be listed: forget what was known of it."""
        for key in self.keys(resource):
            self._drop(resource, key)
        self._synced.add(resource)
        self._refused.add(resource)

    def _store(self, resource: Resource, key: Key, body: Mapping[str, Any]) -> bool:
        """Keep a body; False where all that was to be kept of it was there already, as with a node's heartbeat."""
        known, kept = self._objects[resource].get(key), compact(resource, body)
        if resource is NODE and known is not None and without_version(known) == without_version(kept):
            self._objects[resource][key] = kept  # with the later version
            return False
        if known is not None:
            self._drop(resource, key)
        self._objects[resource][key] = kept
        if resource is CONFIG_MAP and is_launcher(kept):
            self._launchers[key[0]].add(key[1])
        elif (owner := owner_of(resource, kept)) is not None and resource is not FALCON:
            self._children[owner].add((resource, key[1]))
        return True

    def _drop(self, resource: Resource, key: Key) -> None:
        body = self._objects[resource].pop(key)
        if resource is CONFIG_MAP and is_launcher(body):
            self._launchers[key[0]].discard(key[1])
        elif (owner := owner_of(resource, body)) is not None and owner in self._children:
            self._children[owner].discard((resource, key[1]))
            if not self._children[owner]:
                del self._children[owner]

    def _bury(self, body: Mapping[str, Any]) -> None:
        # With its version: an object that only lost our label is deleted to the watch, and lives on with newer ones.
        self._tombstones[body["metadata"].get("uid", "")] = version_of(body)
        if len(self._tombstones) > TOMBSTONES:
            self._tombstones.popitem(last=False)


def key_of(body: Mapping[str, Any]) -> Key:
    """Where the cache keeps an object."""
    metadata = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def version_of(body: Mapping[str, Any]) -> int:
    """The resource version as a number: within one kind a greater one is newer."""
    value = body["metadata"].get("resourceVersion") or "0"
    return int(value) if value.isdigit() else 0


def without_version(body: Mapping[str, Any]) -> dict[str, Any]:
    """An object without what changes with every write to it."""
    return {**body, "metadata": {key: value for key, value in body["metadata"].items() if key != "resourceVersion"}}


def owner_of(resource: Resource, body: Mapping[str, Any]) -> Key | None:
    """The resource that an object belongs to by its labels; a resource belongs to itself."""
    metadata = body["metadata"]
    if resource is FALCON:
        return metadata["namespace"], metadata["name"]
    if not resource.namespaced:
        return None
    labels = metadata.get("labels") or {}
    name = labels.get(names.LABEL_INSTANCE)
    if not name or labels.get(names.LABEL_MANAGED_BY) != names.OPERATOR_NAME:
        return None
    return metadata["namespace"], name
