"""What a run needs: a namespace, nodes that kwok plays, engines behind their pods, a user for the operator."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from falcon_operator.api import names

ROOT = Path(__file__).parents[2]
ACCOUNT = "operator-under-test"
LABEL = "falcon.benchmark"
GPUS_A_NODE = 100
PODS_A_NODE = 4 * GPUS_A_NODE  # beside each engine its two gateways
NODE_NAME = "benchmark-{}"
APPLY = {"Content-Type": "application/apply-patch+yaml"}
Json = dict[str, Any]


class Lab:
    """The cluster, seen by the benchmark."""

    def __init__(self, api: httpx.Client) -> None:
        self.api = api

    def apply(self, path: str, body: Json) -> Json:
        """Server-side apply of one object."""
        query = {"fieldManager": "benchmark", "force": "true"}
        answer = self.api.patch(path, content=json.dumps(body), params=query, headers=APPLY)
        answer.raise_for_status()
        found: Json = answer.json()
        return found

    @contextmanager
    def namespace(self, prefix: str, *, wait: bool = False) -> Iterator[str]:
        """A namespace for as long as the context lasts; its end can be waited for, since it keeps the cluster busy."""
        name = f"{prefix}-{uuid.uuid4().hex[:6]}"
        path = f"/api/v1/namespaces/{name}"
        self.api.post("/api/v1/namespaces", json={"metadata": {"name": name}}).raise_for_status()
        try:
            yield name
        finally:
            self.api.delete(path)
            while wait and self.api.get(path).status_code != httpx.codes.NOT_FOUND:
                time.sleep(1)

    @contextmanager
    def nodes(self, pods: int) -> Iterator[None]:
        """Nodes with enough fake GPUs for so many pods."""
        made = [NODE_NAME.format(number) for number in range(-(-pods // GPUS_A_NODE))]
        for name in made:
            capacity = {"cpu": "2000", "memory": "4Ti", "pods": str(PODS_A_NODE), "nvidia.com/gpu": str(GPUS_A_NODE)}
            body = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "labels": {LABEL: "true", "kubernetes.io/hostname": name, "type": "kwok"},
                    "annotations": {"kwok.x-k8s.io/node": "fake"},
                },
                "spec": {"taints": [{"key": LABEL, "effect": "NoSchedule"}]},
                "status": {"capacity": capacity, "allocatable": capacity},
            }
            answer = self.api.post("/api/v1/nodes", json=body)
            if answer.status_code != httpx.codes.CONFLICT:
                answer.raise_for_status()
        try:
            yield
        finally:
            for name in made:
                self.api.delete(f"/api/v1/nodes/{name}")

    def gpu_memory(self, mib: str | None) -> None:
        """Label the first node with its GPU's memory, or take the label away."""
        path, labels = f"/api/v1/nodes/{NODE_NAME.format(0)}", {"nvidia.com/gpu.memory": mib}
        patch = {"Content-Type": "application/merge-patch+json"}
        body = json.dumps({"metadata": {"labels": labels}})
        self.api.patch(path, content=body, headers=patch).raise_for_status()

    def service_account(self, namespace: str, folder: Path) -> Path:
        """A folder as a pod of the operator sees it: token and authority of an account with the chart's rights."""
        core, group = f"/api/v1/namespaces/{namespace}", "rbac.authorization.k8s.io"
        rbac = f"/apis/{group}/v1"
        subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}
        named: Json = {"name": ACCOUNT}
        # The right to read nodes is in no namespace, and goes with this one all the same.
        uid = self.api.get(core).raise_for_status().json()["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "Namespace", "name": namespace, "uid": uid}
        owned: Json = {"name": f"{ACCOUNT}-{namespace}", "ownerReferences": [owner]}
        self.api.post(f"{core}/serviceaccounts", json={"metadata": named}).raise_for_status()
        for kind, path, metadata, template in (
            ("Role", f"{rbac}/namespaces/{namespace}", named, "rbac"),
            ("ClusterRole", rbac, owned, "rbac-nodes"),
        ):
            reference = {"apiGroup": group, "kind": kind, "name": metadata["name"]}
            role = {"metadata": metadata, "rules": _rules(template)}
            binding = {"metadata": metadata, "roleRef": reference, "subjects": [subject]}
            self.api.post(f"{path}/{kind.lower()}s", json=role).raise_for_status()
            self.api.post(f"{path}/{kind.lower()}bindings", json=binding).raise_for_status()
        answer = self.api.post(
            f"{core}/serviceaccounts/{ACCOUNT}/token",
            json={
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 7200},
            },
        ).raise_for_status()
        authority = self.api.get("/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt").raise_for_status()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(answer.json()["status"]["token"])
        (folder / "ca.crt").write_text(authority.json()["data"]["ca.crt"])
        return folder

    def definition(self) -> None:
        """Apply the resource's definition."""
        body = yaml.safe_load((ROOT / "crds" / f"{names.CRD_NAME}.yaml").read_text())
        self.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{names.CRD_NAME}", body)


def _rules(template: str) -> Any:
    """The rules of the ClusterRole in one of the chart's templates."""
    chart = str(ROOT / "charts/falcon-operator")
    command = ["helm", "template", "falcon", chart, "--show-only", f"templates/{template}.yaml"]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return next(b["rules"] for b in yaml.safe_load_all(rendered) if b and b["kind"] == "ClusterRole")


@contextmanager
def engines() -> Iterator[None]:
    """Something behind the addresses of kwok's pods."""
    command = [sys.executable, "-m", "benchmarks.reconcile.engines"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the stand-in for engines did not start")
            yield
        finally:
            process.terminate()


def resource(name: str, namespace: str) -> Json:
    """A resource whose pod goes to the benchmark's nodes."""
    tolerations = [{"key": LABEL, "operator": "Exists"}, {"key": "nvidia.com/gpu", "operator": "Exists"}]
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"scheduling": {"nodeSelector": {LABEL: "true"}, "tolerations": tolerations}},
    }
