"""Pods as the kubelet and the scheduler report them, reduced to what decisions ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from falcon_operator.api import names

FINISHED = ("Succeeded", "Failed")


def parse_time(text: str | None) -> datetime | None:
    """A Kubernetes timestamp, or None where there is none."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Pod:
    """One pod; `container` is the one of its containers that matters."""

    raw: Mapping[str, Any]
    container: str = names.CONTAINER_NAME

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.raw["metadata"]["name"])

    @property
    def uid(self) -> str:
        """Its UID."""
        return str(self.raw["metadata"].get("uid", ""))

    @property
    def revision(self) -> str | None:
        """The revision whose template made it."""
        return (self.raw["metadata"].get("labels") or {}).get(names.LABEL_REVISION)

    @property
    def created(self) -> str:
        """When it was created."""
        return self.raw["metadata"].get("creationTimestamp") or ""

    @property
    def terminating(self) -> bool:
        """Whether it is leaving: what happens to it now was asked for."""
        return bool(self.raw["metadata"].get("deletionTimestamp"))

    @property
    def status(self) -> Mapping[str, Any]:
        """Its status, empty before the first report."""
        return self.raw.get("status") or {}

    @property
    def active(self) -> bool:
        """Whether it counts as a replica, as the Deployment's controller counts."""
        return not self.terminating and self.status.get("phase") not in FINISHED

    @property
    def node(self) -> str | None:
        """The node that it was placed on."""
        return (self.raw.get("spec") or {}).get("nodeName")

    @property
    def image(self) -> str:
        """The container's image as the pod asks for it."""
        containers = (self.raw.get("spec") or {}).get("containers") or []
        return next((c.get("image") or "" for c in containers if c.get("name") == self.container), "")

    @property
    def engine(self) -> Mapping[str, Any]:
        """The status of the container, empty before there is one."""
        statuses = self.status.get("containerStatuses") or []
        return next((s for s in statuses if s.get("name") == self.container), {})

    def state(self, kind: str, last: bool = False) -> Mapping[str, Any] | None:
        """`waiting`, `running` or `terminated` of the engine's container, now or before its last restart."""
        states = self.engine.get("lastState" if last else "state") or {}
        return states.get(kind)

    @property
    def started(self) -> bool:
        """Whether the running engine has passed its startup probe."""
        return bool(self.engine.get("started")) and self.state("running") is not None

    @property
    def starting(self) -> bool:
        """Whether the container runs and has not been ready yet; between its startup and readiness probe, it starts."""
        since = parse_time((self.state("running") or {}).get("startedAt"))
        if since is None or self.ready or not self.active:
            return False
        changed = parse_time(self.condition("Ready").get("lastTransitionTime"))
        return not self.started or changed is None or changed <= since

    @property
    def restarts(self) -> int:
        """How often the container was started again."""
        return int(self.engine.get("restartCount") or 0)

    def condition(self, kind: str) -> Mapping[str, Any]:
        """One of the pod's conditions, empty where it is not there."""
        return next((c for c in self.status.get("conditions") or [] if c.get("type") == kind), {})

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return self.active and self.condition("Ready").get("status") == "True"

    @property
    def scheduled_at(self) -> str:
        """When a node was found; the time of creation where that is not said."""
        return self.condition("PodScheduled").get("lastTransitionTime") or self.created


def pods_of(uid: str, raw: Sequence[Mapping[str, Any]], container: str = names.CONTAINER_NAME) -> tuple[Pod, ...]:
    """The pods of this incarnation of a resource, in the order of their creation."""
    found = [Pod(p, container) for p in raw if (p.get("metadata", {}).get("labels") or {}).get(names.LABEL_UID) == uid]
    return tuple(sorted(found, key=lambda p: (p.created, p.name)))
