"""The testbed is what its README says: one real node, GPUs that its kubelet allocates, DNS, and no way out."""

import errno
import json
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.node

NODE = "falcon-node"
TOOLS = "localhost/falcon-testbed/tools:1"


def run_kubectl(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False, timeout=90)


def kubectl(*arguments: str, document: Any = None) -> str:
    done = run_kubectl(*arguments, text="" if document is None else json.dumps(document))
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"testbed-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def pod(name: str, gpus: int = 0, labels: dict[str, str] | None = None) -> dict[str, Any]:
    container = {
        "name": "tools",
        "image": TOOLS,
        "imagePullPolicy": "Never",
        "resources": {"limits": {"nvidia.com/gpu": gpus}} if gpus else {},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }


def run(namespace: str, *pods: dict[str, Any]) -> None:
    kubectl("-n", namespace, "create", "-f", "-", document={"apiVersion": "v1", "kind": "List", "items": list(pods)})
    for one in pods:
        kubectl("-n", namespace, "wait", f"pod/{one['metadata']['name']}", "--for=condition=Ready", "--timeout=60s")


def labtool(namespace: str, name: str, *arguments: str) -> str:
    return kubectl("-n", namespace, "exec", name, "--", "labtool", *arguments).strip()


def fails(namespace: str, name: str, *arguments: str) -> str:
    """Return what the failing command says, or nothing when it succeeds."""
    done = run_kubectl("-n", namespace, "exec", name, "--", "labtool", *arguments)
    return done.stderr if done.returncode else ""


def test_the_node_is_ready_and_labelled_as_fake() -> None:
    kubectl("wait", f"node/{NODE}", "--for=condition=Ready", "--timeout=30s")
    labels = json.loads(kubectl("get", "node", NODE, "-o", "json"))["metadata"]["labels"]
    assert labels["falcon.testbed/fake-gpu"] == "true"
    assert labels["nvidia.com/gpu.present"] == "true"
    assert labels["nvidia.com/gpu.compute.major"] == "12"
    assert labels["nvidia.com/cuda.driver-version.major"] == labels["nvidia.com/cuda.driver.major"]


def test_the_kubelet_allocates_gpus_and_refuses_one_too_many(namespace: str) -> None:
    offered = int(json.loads(kubectl("get", "node", NODE, "-o", "json"))["status"]["allocatable"]["nvidia.com/gpu"])
    run(namespace, pod("all", gpus=offered))
    devices = labtool(namespace, "all", "env", "NVIDIA_VISIBLE_DEVICES").split(",")
    assert sorted(devices) == [f"GPU-fake-{number}" for number in range(offered)]

    kubectl("-n", namespace, "create", "-f", "-", document=pod("one-more", gpus=1))
    scheduled = '{.status.conditions[?(@.type=="PodScheduled")]'
    wait = f"--for=jsonpath={scheduled}.reason}}=Unschedulable"
    kubectl("-n", namespace, "wait", "pod/one-more", wait, "--timeout=30s")
    why = kubectl("-n", namespace, "get", "pod", "one-more", "-o", f"jsonpath={scheduled}.message}}")
    assert "Insufficient nvidia.com/gpu" in why

    kubectl("-n", namespace, "delete", "pod", "all")
    kubectl("-n", namespace, "wait", "pod/one-more", "--for=condition=Ready", "--timeout=60s")


def test_a_service_has_a_name_and_spreads_over_its_pods(namespace: str) -> None:
    run(namespace, pod("web-a", labels={"app": "web"}), pod("web-b", labels={"app": "web"}), pod("client"))
    kubectl("-n", namespace, "create", "service", "clusterip", "web", "--tcp=80:8080")
    address = kubectl("-n", namespace, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    slices = "endpointslices.discovery.k8s.io"
    both = "--for=jsonpath={.endpoints[1].conditions.ready}=true"
    kubectl("-n", namespace, "wait", slices, "-l", "kubernetes.io/service-name=web", both, "--timeout=30s")

    assert labtool(namespace, "client", "lookup", "web").split() == [address]
    proxied_by = time.monotonic() + 30  # kube-proxy learns of the Service on its own time
    while "connection refused" in (failure := fails(namespace, "client", "get", "http://web/")):
        assert time.monotonic() < proxied_by, failure
    answers = labtool(namespace, "client", "get", "http://web/", "40").split()
    assert set(answers) == {"web-a", "web-b"}
    # and by its name from the network that these tests run on
    assert socket.gethostbyname(f"web.{namespace}.svc.cluster.local") == address


def test_there_is_no_way_out(namespace: str) -> None:
    with socket.socket() as connection:
        connection.settimeout(5)
        assert connection.connect_ex(("1.1.1.1", 443)) in (errno.ENETUNREACH, errno.EHOSTUNREACH)

    run(namespace, pod("client"))
    refusal = fails(namespace, "client", "dial", "1.1.1.1:443")
    assert "network is unreachable" in refusal or "no route to host" in refusal
