"""The testbed's NetworkPolicy agent lets through what policies allow and refuses the rest."""

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.node

ROOT = Path(__file__).parents[2]
TOOLS = "localhost/falcon-testbed/tools:1"
POLICY = "networking.k8s.io/v1"


def run(*command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120)


def kubectl(*arguments: str, document: Any = None) -> str:
    done = run("kubectl", *arguments, text="" if document is None else json.dumps(document))
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def enforced() -> bool:
    return run("nft", "list", "table", "ip", "falcon_policies").returncode == 0


def component(action: str) -> None:
    done = run(str(ROOT / "testbed/component"), action, "netpol")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", autouse=True)
def agent() -> Iterator[None]:
    """Runs the agent; where it did not run before, it does not run afterwards."""
    before = enforced()
    component("start")
    deadline = time.monotonic() + 60
    while not enforced():
        assert time.monotonic() < deadline, "the agent has made no table"
        time.sleep(0.1)
    yield
    if not before:
        component("stop")
        assert not enforced()


@pytest.fixture
def namespace() -> Iterator[str]:
    yield from temporary_namespace()


@pytest.fixture
def other() -> Iterator[str]:
    yield from temporary_namespace()


def temporary_namespace() -> Iterator[str]:
    name = f"policy-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def start(namespace: str, name: str) -> str:
    """Run a pod that answers on port 8080, named http, and return its address."""
    container = {
        "name": "tools",
        "image": TOOLS,
        "imagePullPolicy": "Never",
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
    }
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    metadata = {"name": name, "labels": {"app": name}}
    kubectl("-n", namespace, "create", "-f", "-", document=thing("v1", "Pod", metadata, spec))
    kubectl("-n", namespace, "wait", f"pod/{name}", "--for=condition=Ready", "--timeout=90s")
    return kubectl("-n", namespace, "get", "pod", name, "-o", "jsonpath={.status.podIP}")


def thing(version: str, kind: str, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def policy(namespace: str, name: str, about: str, **spec: Any) -> None:
    selector = {"podSelector": {"matchLabels": {"app": about}} if about else {}}
    document = thing(POLICY, "NetworkPolicy", {"name": name}, selector | spec)
    kubectl("-n", namespace, "apply", "-f", "-", document=document)


def app(name: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {"app": name}}}


def failure(namespace: str, name: str, address: str) -> str:
    """Return why the pod cannot get an answer from the address, or nothing when it gets one."""
    done = run("kubectl", "-n", namespace, "exec", name, "--", "labtool", "get", f"http://{address}/")
    return done.stderr if done.returncode else ""


def becomes(allowed: bool, namespace: str, name: str, address: str) -> None:
    """Wait until the connection is allowed or refused: the agent learns of a policy on its own time."""
    deadline = time.monotonic() + 60
    while bool(why := failure(namespace, name, address)) == allowed:
        assert time.monotonic() < deadline, f"{name} to {address}: {why or 'answered'}"
        time.sleep(0.2)
    assert allowed or "connection refused" in why, why


def test_ingress_is_refused_by_default_and_allowed_by_label_and_named_port(namespace: str) -> None:
    server = f"{start(namespace, 'server')}:8080"
    for client in ("friend", "stranger"):
        start(namespace, client)
        becomes(True, namespace, client, server)

    policy(namespace, "none", "server", policyTypes=["Ingress"])
    for client in ("friend", "stranger"):
        becomes(False, namespace, client, server)

    policy(namespace, "friends", "server", ingress=[{"from": [app("friend")], "ports": [{"port": "http"}]}])
    becomes(True, namespace, "friend", server)
    assert "connection refused" in failure(namespace, "stranger", server)

    policy(namespace, "friends", "server", ingress=[{"from": [app("friend")], "ports": [{"port": 8081}]}])
    becomes(False, namespace, "friend", server)


def test_the_kubelet_probes_pods_that_take_nothing_from_anybody(namespace: str) -> None:
    policy(namespace, "none", "", policyTypes=["Ingress", "Egress"])
    server = start(namespace, "server")  # its readiness probe is a connection to its port
    start(namespace, "client")
    becomes(False, namespace, "client", f"{server}:8080")


def test_another_namespace_is_allowed_by_its_label(namespace: str, other: str) -> None:
    server = f"{start(namespace, 'server')}:8080"
    start(namespace, "client")
    start(other, "client")
    named = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": other}}}
    policy(namespace, "others", "server", ingress=[{"from": [named]}])
    becomes(False, namespace, "client", server)
    becomes(True, other, "client", server)

    policy(namespace, "others", "server", ingress=[{"from": [named | app("nobody")]}])
    becomes(False, other, "client", server)


def test_egress_is_allowed_by_block_and_replies_pass(namespace: str) -> None:
    near, far = start(namespace, "near"), start(namespace, "far")
    start(namespace, "client")
    block = {"ipBlock": {"cidr": "10.244.0.0/24", "except": [f"{far}/32"]}}
    ports = [{"port": 8000, "endPort": 8080}]
    policy(namespace, "out", "client", policyTypes=["Ingress", "Egress"], egress=[{"to": [block], "ports": ports}])
    becomes(False, namespace, "client", f"{far}:8080")
    # the client takes no connection, yet the answers of its own arrive
    assert failure(namespace, "client", f"{near}:8080") == ""
    becomes(False, namespace, "near", f"{address_of(namespace, 'client')}:8080")


def address_of(namespace: str, name: str) -> str:
    return kubectl("-n", namespace, "get", "pod", name, "-o", "jsonpath={.status.podIP}")


def test_the_api_server_has_to_be_allowed(namespace: str) -> None:
    start(namespace, "client")
    dial = ("kubectl", "-n", namespace, "exec", "client", "--", "labtool", "dial", "10.96.0.1:443")
    assert run(*dial).returncode == 0
    policy(namespace, "none", "client", policyTypes=["Egress"])
    deadline = time.monotonic() + 60
    while (done := run(*dial)).returncode == 0:
        assert time.monotonic() < deadline, "still answered"
        time.sleep(0.2)
    assert "connection refused" in done.stderr
    # the address after kube-proxy's translation
    server = {"to": [{"ipBlock": {"cidr": "10.97.0.1/32"}}], "ports": [{"port": 6443}]}
    policy(namespace, "server", "client", policyTypes=["Egress"], egress=[server])
    while (done := run(*dial)).returncode:
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.2)
