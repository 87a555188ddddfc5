"""One namespace of the test cluster: objects in and out, waiting for conditions, and who wrote what."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from tests.cluster import kubeapi

from falcon_operator.api import names
from falcon_operator.kube.resources import BY_KIND, EXTENSIONS, Resource

T = TypeVar("T")
Json = dict[str, Any]

RESOURCES: dict[str, Resource] = {
    **BY_KIND,
    "Event": Resource("v1", "Event", "events"),
    "ReplicaSet": Resource("apps/v1", "ReplicaSet", "replicasets"),
    "ResourceQuota": Resource("v1", "ResourceQuota", "resourcequotas"),
    "ServiceAccount": Resource("v1", "ServiceAccount", "serviceaccounts"),
}
WRITING = frozenset({"create", "update", "patch", "delete", "deletecollection"})
# A status that only counts on is held back for some seconds after a pod has moved.
QUIET_SECONDS = 8
# Pods go to the nodes that kwok plays, and stay away from the real one.
ON_KWOK: Json = {
    "scheduling": {
        "nodeSelector": {"type": "kwok"},
        "tolerations": [{"operator": "Exists"}],
    }
}


def wait_for(
    probe: Callable[[], T | None], what: str, seconds: float = 60, instead: Callable[[], Any] = lambda: ""
) -> T:
    """The first true value of `probe`; where there is none, `instead` says what there is."""
    end = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"after {seconds:.0f} s there was still no {what} {instead()}".rstrip())
        time.sleep(0.05)


def steady(probe: Callable[[], T], seconds: float) -> T:
    """The value of `probe`, which must not change for some seconds."""
    first, end = probe(), time.monotonic() + seconds
    while time.monotonic() < end:
        now = probe()
        assert now == first, f"{first} became {now}"
        time.sleep(0.1)
    return first


def wait_quiet(probe: Callable[[], T], quiet: float, seconds: float = 90) -> T:
    """The value of `probe` once it has not changed for a while."""
    end = time.monotonic() + seconds
    last, since = probe(), time.monotonic()
    while time.monotonic() - since < quiet:
        assert time.monotonic() < end, f"there was no quiet within {seconds:.0f} s: {last}"
        time.sleep(0.1)
        now = probe()
        if now != last:
            last, since = now, time.monotonic()
    return last


class World:
    """A namespace and the client that the tests use in it."""

    def __init__(self, client: httpx.Client, namespace: str) -> None:
        self.client, self.namespace = client, namespace

    # --- objects

    def get(self, kind: str, name: str) -> Json | None:
        answer = self.client.get(RESOURCES[kind].path(self.namespace, name))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        found: Json = answer.raise_for_status().json()
        return found

    def all(self, kind: str) -> list[Json]:
        answer = self.client.get(RESOURCES[kind].path(self.namespace))
        if answer.status_code == httpx.codes.NOT_FOUND and RESOURCES[kind] in EXTENSIONS:
            return []  # a kind that is not installed here
        items: list[Json] = answer.raise_for_status().json()["items"]
        return items

    def create(self, body: Json) -> Json:
        path = RESOURCES[body["kind"]].path(self.namespace)
        answer = self.client.post(path, json=body)
        assert answer.is_success, answer.text
        made: Json = answer.json()
        return made

    def apply(self, body: Json, manager: str = "tests") -> Json:
        path = RESOURCES[body["kind"]].path(self.namespace, body["metadata"]["name"])
        answer = kubeapi.apply(self.client, path, body, manager=manager)
        assert answer.is_success, answer.text
        made: Json = answer.json()
        return made

    def merge(self, kind: str, name: str, patch: Json, subresource: str | None = None) -> Json:
        answer = self.client.patch(
            RESOURCES[kind].path(self.namespace, name, subresource),
            content=json.dumps(patch),
            headers={"Content-Type": kubeapi.MERGE},
        )
        assert answer.is_success, answer.text
        made: Json = answer.json()
        return made

    def delete(self, kind: str, name: str, **options: Any) -> None:
        path = RESOURCES[kind].path(self.namespace, name)
        self.client.request("DELETE", path, json=options or None).raise_for_status()

    # --- the resource

    def resource(self, name: str, spec: Json | None = None) -> Json:
        """Apply a resource whose pods go to kwok's nodes."""
        return self.apply(
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "metadata": {"name": name},
                "spec": {**ON_KWOK, **(spec or {})},
            }
        )

    def condition(self, name: str, kind: str) -> Json:
        """One condition, once it speaks of the newest spec; empty before."""
        found = self.get(names.KIND, name) or {}
        status = found.get("status") or {}
        if status.get("observedGeneration") != (found.get("metadata") or {}).get("generation"):
            return {}
        return next((c for c in status.get("conditions") or () if c["type"] == kind), {})

    def is_ready(self, name: str) -> bool:
        return self.condition(name, "Ready").get("status") == "True"

    def wait_ready(self, name: str, seconds: float = 60) -> Json:
        wait_for(lambda: self.is_ready(name), f"Ready {name}", seconds, lambda: self.get(names.KIND, name))
        found = self.get(names.KIND, name)
        assert found is not None
        return found

    def settled(self, name: str) -> None:
        """Wait until a resource is Ready and its revision is on record, after which nothing is left to do."""
        self.wait_ready(name)
        wait_for(lambda: self.all("ControllerRevision"), "ControllerRevision")

    def children(self) -> list[tuple[str, str]]:
        """Kind and name of each object that the operator made here."""
        found = []
        for kind in BY_KIND:
            if kind in (names.KIND, "Pod"):
                continue
            for body in self.all(kind):
                if (body["metadata"].get("labels") or {}).get(names.LABEL_MANAGED_BY) == names.OPERATOR_NAME:
                    found.append((kind, body["metadata"]["name"]))
        return sorted(found)


class AuditLog:
    """What one user did, from a moment on, as the API server recorded it."""

    def __init__(self, path: Path, user: str) -> None:
        self.path, self.user = path, user
        self._offset = path.stat().st_size
        self._writes: list[tuple[str | None, str]] = []  # namespace, what was done

    def writes(self, namespace: str | None = None) -> list[str]:
        """The user's writes so far, as `verb resource/name code`."""
        self._read_on()
        return [what for where, what in self._writes if namespace is None or where == namespace]

    def _read_on(self) -> None:
        """Take in what has come since the last time, since tests ask again and again."""
        user = self.user.encode()
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is still being written
                self._offset += len(line)
                if user not in line:
                    continue
                entry: Json = json.loads(line)
                if entry["user"]["username"] == self.user and entry["verb"] in WRITING:
                    reference = entry["objectRef"]
                    what = f"{entry['verb']} {_what(reference)} {entry['responseStatus']['code']}"
                    self._writes.append((reference.get("namespace"), what))


def _what(reference: Json) -> str:
    subresource = f"/{reference['subresource']}" if "subresource" in reference else ""
    return f"{reference['resource']}{subresource}/{reference.get('name', '')}"


def audit_path() -> Path:
    """The audit log of the test cluster."""
    path = os.environ.get("FALCON_TESTBED_AUDIT_LOG") or str(Path(os.environ["KUBECONFIG"]).parent / "log/audit.log")
    if not Path(path).exists():
        pytest.fail(f"there is no audit log at {path}: set FALCON_TESTBED_AUDIT_LOG, or use the testbed's cluster")
    return Path(path)
