"""The operator's writes as the API server's audit log has them: exact, whatever the operator believes."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from falcon_operator.api.names import PLURAL, engines_service_name, gateway_name

WRITING = frozenset({"create", "update", "patch", "delete", "deletecollection"})
STATUS = "falconnvfp4deployments/status"
# Written after a resource is Ready: what has served, and that it is so.
AFTERWARDS = ("controllerrevisions", "events")


class AuditLog:
    """The writes in one namespace: of one user, or of everybody."""

    def __init__(self, namespace: str, user: str | None = None) -> None:
        self._path = Path(
            os.environ.get("FALCON_TESTBED_AUDIT_LOG") or Path(os.environ["KUBECONFIG"]).parent / "log/audit.log"
        )
        self._namespace, self._user = namespace, user
        self._offset = self._path.stat().st_size
        self._entries: list[dict[str, Any]] = []

    def writes(self) -> list[dict[str, Any]]:
        """All writes so far."""
        with self._path.open("rb") as file:
            if self._path.stat().st_size < self._offset:
                self._offset = 0  # a new file
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                if self._namespace.encode() in line:
                    self._take(json.loads(line))
        return self._entries

    def _take(self, entry: dict[str, Any]) -> None:
        if entry["verb"] not in WRITING or entry.get("objectRef", {}).get("namespace") != self._namespace:
            return
        if self._user in (None, entry["user"]["username"]):
            self._entries.append(entry)


def resource_of(entry: dict[str, Any]) -> str:
    """The kind of a write, with its subresource."""
    reference = entry["objectRef"]
    return "/".join(part for part in (reference["resource"], reference.get("subresource")) if part)


def by_kind(entries: list[dict[str, Any]]) -> dict[str, int]:
    """How many writes of each kind."""
    return dict(Counter(map(resource_of, entries)).most_common())


@dataclass(frozen=True)
class Written:
    """What a resource took until it was Ready: its objects, and the writes beyond the first of each."""

    objects: int
    beyond: int


def until_ready(entries: list[dict[str, Any]], ready: Mapping[str, float]) -> list[Written]:
    """What each resource took; `ready` says when each was, in seconds of the clock on the wall."""
    found = []
    for name, moment in ready.items():
        mine = [e for e in entries if _belongs(e, name) and _time(e["stageTimestamp"]) <= moment]
        objects = {(resource_of(e), e["objectRef"]["name"]) for e in mine} - {(STATUS, name)}
        found.append(Written(len(objects), len(mine) - len(objects)))
    return found


def latencies(entries: list[dict[str, Any]], everybodys: list[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds from each resource's arrival to its Deployment's first write, on the API server's clock."""
    applied = {
        entry["objectRef"]["name"]: _time(entry["requestReceivedTimestamp"])
        for entry in everybodys
        if entry["verb"] == "create" and resource_of(entry) == PLURAL
    }
    found: dict[str, float] = {}
    for entry in entries:
        name = entry["objectRef"].get("name", "")
        if resource_of(entry) == "deployments" and name in applied and name not in found:
            found[name] = (_time(entry["stageTimestamp"]) - applied[name]) * 1000
    return found


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _belongs(entry: dict[str, Any], name: str) -> bool:
    mine = entry["objectRef"].get("name") in (name, engines_service_name(name), gateway_name(name))
    return mine and resource_of(entry) not in AFTERWARDS
