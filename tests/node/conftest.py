"""Fixtures for the real node: a namespace of one's own, and the demo's resource in it."""

import uuid
from collections.abc import Iterator

import httpx
import pytest
import yaml
from tests.cluster import kubeapi
from tests.node import chart
from tests.node.harness import ROOT, Kubectl, Resource, wait_for


def _made() -> Kubectl:
    """A new namespace under the restricted pod security standard."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    kubectl = Kubectl(name)
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }
    )
    return kubectl


def _delete(kubectl: Kubectl) -> None:
    # The namespace controller looks again only after half a pod's grace period: nobody needs to wait for that.
    kubectl.run("delete", "namespace", kubectl.namespace, "--wait=false")


def _wait_empty(kubectl: Kubectl) -> None:
    wait_for(lambda: not kubectl.list("pods"), 120, "end of the engines after their resource was deleted")


@pytest.fixture
def namespace() -> Iterator[Kubectl]:
    """A namespace of the test's own, deleted afterwards."""
    made = _made()
    yield made
    _delete(made)


@pytest.fixture(scope="module")
def ending() -> Iterator[list[Kubectl]]:
    """Namespaces whose engines drain while the file's next test runs; all have gone when the file is through."""
    namespaces: list[Kubectl] = []
    yield namespaces
    for one in namespaces:
        _wait_empty(one)
        _delete(one)


@pytest.fixture
def kubectl(ending: list[Kubectl]) -> Iterator[Kubectl]:
    """A namespace for resources of the operator: they and their engines are gone before it is."""
    made = _made()
    ending.append(made)
    yield made
    made.run("delete", "fnd", "--all", "--wait=true", "--timeout=30s")


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
