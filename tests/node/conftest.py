"""Fixtures for the real node: a namespace of one's own, and the demo's resource in it."""

import uuid
from collections.abc import Iterator

import httpx
import pytest
import yaml
from tests.cluster import kubeapi
from tests.node import chart
from tests.node.harness import ROOT, Kubectl, Resource, wait_for


@pytest.fixture
def namespace() -> Iterator[Kubectl]:
    """A namespace under the restricted pod security standard, deleted afterwards."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    kubectl = Kubectl(name)
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }
    )
    yield kubectl
    # The namespace controller looks again only after half a pod's grace period: nobody needs to wait for that.
    kubectl.run("delete", "namespace", name, "--wait=false")


@pytest.fixture
def kubectl(namespace: Kubectl) -> Iterator[Kubectl]:
    """The namespace, for resources of the operator: they and their engines are gone before it is."""
    yield namespace
    namespace.run("delete", "fnd", "--all", "--wait=true", "--timeout=30s")
    wait_for(lambda: not namespace.list("pods"), 120, "end of the engines after their resource was deleted")


@pytest.fixture(scope="session")
def operator() -> None:
    """The operator, as its own image from its own chart."""
    chart.install("helm")


@pytest.fixture
def client(operator: None) -> Iterator[httpx.Client]:
    """The API server, with the operator at work."""
    with kubeapi.connect() as connection:
        yield connection


@pytest.fixture
def resource(operator: None, kubectl: Kubectl) -> Resource:
    """The demo's resource: the real engine on CPU, one (fake) GPU allocated by the kubelet."""
    example = yaml.safe_load((ROOT / "examples/cpu-demo.yaml").read_text())
    return Resource(kubectl, "falcon", example["spec"])
