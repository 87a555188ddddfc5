"""kopf's part: it holds the watches and keeps them alive. Its events go to the intake; nothing else happens here."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from typing import Any

import kopf

from falcon_operator.api import names
from falcon_operator.kube.connection import Connection
from falcon_operator.kube.resources import WATCHED, Resource
from falcon_operator.runtime.intake import Intake

NETWORK_BACKOFF_SECONDS = 15.0


def registry_for(intake: Intake, connection: Connection, refused: Collection[Resource] = ()) -> kopf.OperatorRegistry:
    """The handlers: one login, and one for the events of each kind that is watched and may be."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry, id="login", errors=kopf.ErrorsMode.TEMPORARY, backoff=1.0)
    async def login(**_: Any) -> kopf.AiohttpSession:
        # The session reads the token again by itself, so that these credentials do not expire.
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=connection.session())

    for resource in WATCHED.keys() - set(refused):
        _watch(registry, resource, intake)
    return registry


def settings_for() -> kopf.OperatorSettings:
    """The settings: no state on anybody's object, no giving up, no silent watch."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.persistence.finalizer = f"{names.GROUP}/operator"  # never set: no handler needs one
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.process.ultimate_exiting_timeout = 20.0
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 1.0
    settings.queueing.exit_timeout = 0.5
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 10.0
    settings.networking.error_backoffs = _ForEver()
    settings.watching.chunk_size = 100  # as objects in memory, nodes are large
    settings.watching.connect_timeout = 10.0
    settings.watching.server_timeout = 300 + random.randrange(60)  # not all watches at once
    settings.watching.client_timeout = 390.0
    settings.watching.inactivity_timeout = 70.0
    for resource, selector in WATCHED.items():
        if selector is not None:
            settings.watching.label_selectors[resource.group, resource.version, resource.plural] = selector
    return settings


def _watch(registry: kopf.OperatorRegistry, resource: Resource, intake: Intake) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=resource.plural)
    async def event(event: kopf.RawEvent, **_: Any) -> None:
        intake.event(resource, event["type"], event["object"])


class _ForEver:
    """Back-offs without an end: an API server that is away for an hour is waited for."""

    def __iter__(self) -> Iterator[float]:
        seconds = 0.5
        while True:
            yield seconds * random.uniform(0.75, 1.25)
            seconds = min(seconds * 2, NETWORK_BACKOFF_SECONDS)


class _NoDiffBase(kopf.DiffBaseStorage):
    """kopf would copy each object to find out what changed; the decision looks at everything anyway."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Handlers of events have no progress."""

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence
