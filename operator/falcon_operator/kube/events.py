"""Kubernetes Events about a resource: one object for each thing said, with a count, and never a flood."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from falcon_operator.api import names
from falcon_operator.decide.types import Event
from falcon_operator.kube.client import KubeClient
from falcon_operator.kube.errors import ApiError, Conflict, NotFound
from falcon_operator.kube.limiter import Limiter
from falcon_operator.kube.resources import EVENT

# As client-go's recorder: 25 at once about one object, then one each five minutes.
BURST = 25
REFILL_SECONDS = 300.0
QUEUED = 1000
REMEMBERED = 5000
NOTE_BYTES = 1024

log = logging.getLogger(__name__)


@dataclass
class _Said:
    count: int
    first: str


class EventRecorder:
    """Queues events and writes them in the background; what cannot be written is logged and dropped."""

    def __init__(
        self,
        client: KubeClient,
        instance: str,
        *,
        limiter: Limiter | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._instance, self._now = client, instance, now
        self._limiter = limiter or Limiter(BURST, REFILL_SECONDS)
        self._queue: asyncio.Queue[tuple[dict[str, Any], Event]] = asyncio.Queue(QUEUED)
        self._said: OrderedDict[str, _Said] = OrderedDict()

    def record(self, regarding: Mapping[str, Any], event: Event) -> bool:
        """Say something about a resource; never waits. False where it was one too many."""
        metadata = regarding["metadata"]
        reference = {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        if self._limiter.wait(reference["uid"]) > 0 or self._queue.full():
            log.info("event not sent, there are too many: %s %s", event.reason, event.note)
            return False
        self._queue.put_nowait((reference, event))
        return True

    async def run(self) -> None:
        """Write what is queued, for ever."""
        while True:
            reference, event = await self._queue.get()
            try:
                await self._write(reference, event)
            except ApiError as error:
                log.warning("event %s about %s/%s was not written: %s", event.reason, reference["namespace"],
                            reference["name"], error)  # fmt: skip
            finally:
                self._queue.task_done()

    async def _write(self, reference: Mapping[str, str], event: Event) -> None:
        now = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        name, namespace = event_name(reference, event), reference["namespace"]
        said = self._said.get(name)
        if said is not None:
            try:
                await self._repeat(namespace, name, said, now)
                return
            except NotFound:
                pass  # events expire after an hour: say it anew
        try:
            await self._client.create_event(self._body(name, reference, event, now))
            self._remember(name, _Said(1, now))
        except Conflict:  # said before a restart
            known = await self._client.get(EVENT, namespace, name)
            said = _Said(int(known.get("count") or 1), known.get("firstTimestamp") or now)
            await self._repeat(namespace, name, said, now)

    async def _repeat(self, namespace: str, name: str, said: _Said, now: str) -> None:
        await self._client.patch_event(namespace, name, {"count": said.count + 1, "lastTimestamp": now})
        self._remember(name, _Said(said.count + 1, said.first))

    def _remember(self, name: str, said: _Said) -> None:
        self._said[name] = said
        self._said.move_to_end(name)
        if len(self._said) > REMEMBERED:
            self._said.popitem(last=False)

    def _body(self, name: str, reference: Mapping[str, str], event: Event, now: str) -> dict[str, Any]:
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": name, "namespace": reference["namespace"]},
            "involvedObject": dict(reference),
            "type": event.type,
            "reason": event.reason,
            "action": event.action,
            "message": _shortened(event.note),
            "source": {"component": names.OPERATOR_NAME},
            "reportingComponent": f"{names.GROUP}/{names.OPERATOR_NAME}",
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


def event_name(reference: Mapping[str, str], event: Event) -> str:
    """The same thing said again about the same object has the same name, also after a restart."""
    text = "\0".join((reference["uid"], event.type, event.reason, event.action, event.note))
    return f"{reference['name']}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _shortened(note: str) -> str:
    encoded = note.encode()
    return note if len(encoded) <= NOTE_BYTES else encoded[: NOTE_BYTES - 3].decode(errors="ignore") + "..."
