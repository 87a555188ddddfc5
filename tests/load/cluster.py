"""A namespace of the test cluster with one resource in it, for a run of the load."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
from tests.cluster import kubeapi

from falcon_operator.api import names

ROOT = Path(__file__).parents[2]
RESOURCE = "falcon"
GPU = "nvidia.com/gpu"
Json = dict[str, Any]
T = TypeVar("T")


class NotInTimeError(Exception):
    """Something that was waited for did not come."""


async def until(probe: Callable[[], T | None], what: str, seconds: float) -> T:
    """The first true value of `probe`."""
    end = time.monotonic() + seconds
    while True:
        value = await asyncio.to_thread(probe)
        if value:
            return value
        if time.monotonic() > end:
            raise NotInTimeError(f"after {seconds:.0f} s there was still no {what}")
        await asyncio.sleep(0.25)


async def command(*words: str, stdin: str | None = None) -> str:
    """A program of the testbed."""
    process = await asyncio.create_subprocess_exec(
        *(str(ROOT / words[0]), *words[1:]),
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode() if stdin is not None else None)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)}: {err.decode().strip()}")
    return out.decode()


class Cluster:
    """One namespace, by the API server's own HTTP."""

    def __init__(self, client: httpx.Client, namespace: str | None = None) -> None:
        self._client = client
        self.namespace = namespace or f"loss-{uuid.uuid4().hex[:6]}"
        self._resource = f"/apis/{names.API_VERSION}/namespaces/{self.namespace}/{names.PLURAL}/{RESOURCE}"

    # --- objects

    def _core(self, kind: str, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def _get(self, path: str, **query: str) -> Json:
        answer = self._client.get(path, params=query)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return {}
        found: Json = answer.raise_for_status().json()
        return found

    def open(self) -> None:
        """Make the namespace, under the restricted pod security standard."""
        body = {"metadata": {"name": self.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
        self._client.post("/api/v1/namespaces", json=body).raise_for_status()

    def close(self) -> None:
        """Delete the resource and the namespace; what runs in it ends by itself."""
        self._client.delete(self._resource)
        self._client.delete(f"/api/v1/namespaces/{self.namespace}")

    def apply(self, spec: Json) -> int:
        """Apply the resource; returns the generation that its status has to reach."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": RESOURCE, "namespace": self.namespace},
            "spec": spec,
        }
        answer = kubeapi.apply(self._client, self._resource, body, manager="load")
        if answer.is_error:
            raise RuntimeError(f"the resource is refused: {answer.text}")
        generation: int = answer.json()["metadata"]["generation"]
        return generation

    def create_pod(self, body: Json) -> None:
        """Make a pod."""
        self._client.post(self._core("pods"), json=body).raise_for_status()

    def status(self) -> Json:
        """The resource's."""
        found: Json = self._get(self._resource).get("status", {})
        return found

    def deployment(self, name: str) -> Json:
        """A Deployment."""
        return self._get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}")

    def address(self) -> str:
        """Where clients ask: the address and port of the resource's Service."""
        service = self._get(self._core("services", names.service_name(RESOURCE)))
        return f"{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"

    # --- pods

    def pods(self, component: str) -> list[Json]:
        """All of one component, those that leave too."""
        selector = f"{names.LABEL_INSTANCE}={RESOURCE},{names.LABEL_COMPONENT}={component}"
        found: list[Json] = self._get(self._core("pods"), labelSelector=selector)["items"]
        return found

    def serving(self, component: str) -> list[Json]:
        """Those that are ready and stay."""
        return [pod for pod in self.pods(component) if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]

    def restarts(self, component: str) -> int:
        """How often containers of a component were started again."""
        statuses = (status for pod in self.pods(component) for status in pod["status"].get("containerStatuses", ()))
        return sum(status["restartCount"] for status in statuses)

    def delete_pod(self, name: str, **options: Any) -> None:
        """Delete one, with its grace period unless `options` say otherwise."""
        self._client.request("DELETE", self._core("pods", name), json=options or None).raise_for_status()

    def settled(self, generation: int, replicas: int) -> bool:
        """Whether all engines are of the newest spec and ready, and no other is left."""
        status = self.status()
        ready = next((c["status"] for c in status.get("conditions", ()) if c["type"] == "Ready"), "Unknown")
        if status.get("observedGeneration") != generation or ready != "True":
            return False
        counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "readyReplicas")]
        engines = self.pods(names.COMPONENT_ENGINE)
        return counts == [replicas] * 3 and len(engines) == replicas and all(map(is_ready, engines))

    def gateways_settled(self, replicas: int) -> bool:
        """Whether so many gateways are ready and no other is left."""
        gateways = self.pods(names.COMPONENT_GATEWAY)
        return len(gateways) == replicas and all(map(is_ready, gateways))

    def story(self) -> str:
        """What there is, for an error: the resource, and each pod here or with a GPU anywhere."""
        pods = [
            {
                "pod": f"{p['metadata']['namespace']}/{p['metadata']['name']}",
                "phase": p["status"].get("phase"),
                "ready": is_ready(p),
                "leaves": p["metadata"].get("deletionTimestamp"),
                "containers": [c.get("state") for c in p["status"].get("containerStatuses", ())],
            }
            for p in self._get("/api/v1/pods")["items"]
            if p["metadata"]["namespace"] == self.namespace or GPU in json.dumps(p["spec"]["containers"])
        ]
        return json.dumps({"status": self.status(), "pods": pods})


def is_ready(pod: Json) -> bool:
    """Whether its condition says so."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
