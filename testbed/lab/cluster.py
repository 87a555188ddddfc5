"""What is in the cluster beside its components: node labels, GPUs, fake nodes, DNS, metrics."""

from __future__ import annotations

import hashlib
import json
from string import Template
from typing import Any

from . import gpunodes, images
from .kubectl import Kubectl
from .layout import MANIFESTS, Layout
from .node import Node
from .progress import patience, step, wait_until


class Cluster:
    """Brings the cluster's contents to the wanted state through its API."""

    def __init__(self, layout: Layout, node: Node, first: Node | None = None) -> None:
        """`node` is the one that is awaited; `first` is that of the API server, where it is another one."""
        self._layout = layout
        self._node = node
        self._kubectl = Kubectl(first or node)
        self._name = layout.node

    def _manifest(self, name: str, **values: str) -> str:
        return Template((MANIFESTS / f"{name}.yaml").read_text()).substitute(values)

    def _real_node(self) -> Any:
        found = self._kubectl.get("nodes", "--field-selector", f"metadata.name={self._name}")["items"]
        return found[0] if found else {"status": {}}

    def await_node(self) -> None:
        """Wait until the node is Ready by a report of this kubelet, not by one that the last `down` left behind."""

        def ready() -> bool:
            conditions = self._real_node()["status"].get("conditions", [])
            return any(
                c["type"] == "Ready" and c["status"] == "True" and c["lastHeartbeatTime"] >= self._node.since
                for c in conditions
            )

        with step(f"{self._name} Ready"):
            wait_until(f"{self._name} becoming Ready", ready, 120)

    def await_restarted_pods(self) -> None:
        """Wait until no pod claims a container from before the node's last stop.

        Until the kubelet has reported them, the API still calls them Running and Ready.
        """

        def stale() -> list[str]:
            pods = self._kubectl.get("pods", "-A", "--field-selector", f"spec.nodeName={self._name}")["items"]
            return [
                pod["metadata"]["name"]
                for pod in pods
                for status in pod["status"].get("containerStatuses", [])
                if status["state"].get("running", {}).get("startedAt", self._node.since) < self._node.since
            ]

        with step("pods of the last run restarted"):
            wait_until(
                "Restarting the pods of the last run", lambda: not stale(), 90, lambda: f"Waiting for {stale()}."
            )

    def forget_node(self, name: str) -> None:
        """Take a node that has ended out of the cluster: its pods run elsewhere at once."""
        self._kubectl("delete", "node", name, "--ignore-not-found")

    def set_gpus(self, count: int) -> None:
        """Offer `count` fake GPUs on the real node."""
        labels = gpunodes.labels(gpunodes.BLACKWELL, count)
        metadata = {"metadata": {"labels": labels}}
        self._kubectl("patch", "node", self._name, "--type=merge", "-p", json.dumps(metadata))
        image = images.GPU_PLUGIN.reference(self._layout)
        self._kubectl.apply(self._manifest("gpu-plugin", GPU_PLUGIN_IMAGE=image, GPUS=str(count)))

    def await_gpus(self, count: int) -> None:
        """Wait until the kubelet offers them."""

        def offered() -> bool:
            return bool(self._real_node()["status"]["allocatable"].get("nvidia.com/gpu", "0") == str(count))

        with step(f"{count} fake GPUs allocatable on {self._name}"):
            wait_until("The kubelet offering the GPUs", offered, 60)

    def set_kwok_nodes(self, count: int, *, tainted: bool) -> None:
        """Have exactly `count` nodes that kwok plays."""
        wanted = {
            node["metadata"]["name"]: node
            for node in (gpunodes.kwok_node(n + 1, tainted=tainted) for n in range(count))
        }
        there = {node["metadata"]["name"]: node for node in self._kubectl.get("nodes", "-l", "type=kwok")["items"]}

        def is_tainted(node: dict[str, Any]) -> bool:
            # a node that is not Ready yet has taints of the control plane's, too
            return any(taint["key"] == "kwok.x-k8s.io/node" for taint in node["spec"].get("taints", []))

        wrong = [name for name, node in there.items() if name not in wanted or is_tainted(node) != tainted]
        if wrong:
            self._kubectl("delete", "node", *wrong)
        new = [node for name, node in wanted.items() if name not in there or name in wrong]
        if new:
            self._kubectl("create", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": new}))

    def await_kwok_nodes(self, count: int) -> None:
        """Wait until they are Ready."""

        def ready() -> bool:
            nodes = self._kubectl.get("nodes", "-l", "type=kwok")["items"]
            conditions = [c for node in nodes for c in node["status"].get("conditions", [])]
            return [c["status"] for c in conditions if c["type"] == "Ready"] == ["True"] * count

        with step(f"{count} kwok nodes Ready"):
            wait_until("kwok's nodes becoming Ready", ready, 120)

    def set_dns(self) -> None:
        """Run CoreDNS; pods of another manifest are replaced."""
        digest = hashlib.sha256((MANIFESTS / "coredns.yaml").read_bytes()).hexdigest()[:12]
        image = images.COREDNS.reference(self._layout)
        self._kubectl.apply(self._manifest("coredns", COREDNS_IMAGE=image, MANIFEST=digest))

    def set_metrics(self) -> None:
        """Run metrics-server."""
        image = images.METRICS_SERVER.reference(self._layout)
        self._kubectl.apply(self._manifest("metrics-server", METRICS_SERVER_IMAGE=image))

    def await_rollout(self, name: str) -> None:
        """Wait until a Deployment of kube-system is fully there."""
        with step(f"{name} ready"):
            self._kubectl(
                "-n", "kube-system", "rollout", "status", f"deployment/{name}", f"--timeout={patience(120):.0f}s"
            )

    def await_metrics_api(self) -> None:
        """Wait until the API server gets metrics of the real node."""
        path = f"/apis/metrics.k8s.io/v1beta1/nodes/{self._name}"
        with step("metrics API answers"):
            wait_until("The metrics API answering", lambda: self._kubectl.succeeds("get", "--raw", path), 120)
