"""kubectl as a class, a resource under test, and waiting for conditions."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

ROOT = Path(__file__).parents[2]
T = TypeVar("T")
Json = dict[str, Any]


def wait_for(probe: Callable[[], T | None], timeout: float, what: str) -> T:
    """Return the first true value of `probe`; fail with its last value after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"after {timeout:.0f} s there was still no {what}")
        time.sleep(0.25)


class Kubectl:
    """kubectl in one namespace, with JSON in and out."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def run(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        command = ["kubectl", "-n", self.namespace, *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if check and done.returncode:
            pytest.fail(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, kind: str, name: str) -> Json | None:
        text = self.run("get", kind, name, "-o", "json", "--ignore-not-found")
        found: Json | None = json.loads(text) if text else None
        return found

    def list(self, kind: str, selector: str = "") -> list[Json]:
        items: list[Json] = json.loads(self.run("get", kind, "-o", "json", "-l", selector))["items"]
        return items

    def apply(self, manifest: Json) -> None:
        self.run("apply", "--server-side", "--field-manager=tests", "-f", "-", stdin=json.dumps(manifest))


class Resource:
    """One FalconNVFP4Deployment of a test."""

    def __init__(self, kubectl: Kubectl, name: str, spec: Json) -> None:
        self.kubectl, self.name, self.spec = kubectl, name, spec

    def apply(self, **changes: Json) -> None:
        """Apply the spec, each named section merged with `changes` for this time only."""
        spec = {**self.spec, **{key: {**self.spec.get(key, {}), **value} for key, value in changes.items()}}
        self.kubectl.apply(
            {
                "apiVersion": "serving.falcon-operator.io/v1alpha1",
                "kind": "FalconNVFP4Deployment",
                "metadata": {"name": self.name},
                "spec": spec,
            }
        )

    def status(self) -> Json:
        found = self.kubectl.get("fnd", self.name)
        status: Json = (found or {}).get("status", {})
        return status

    def condition(self, kind: str) -> Json:
        for condition in self.status().get("conditions", []):
            if condition["type"] == kind:
                found: Json = condition
                return found
        return {}

    def is_ready(self) -> bool:
        found = self.kubectl.get("fnd", self.name) or {}
        status = found.get("status", {})
        if status.get("observedGeneration") != found.get("metadata", {}).get("generation"):
            return False
        return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))

    def wait_ready(self, timeout: float = 240) -> None:
        wait_for(self.is_ready, timeout, f"Ready {self.name}; its status was {json.dumps(self.status())}")

    def pods(self) -> list[Json]:
        return self.kubectl.list("pods", f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component=engine")
