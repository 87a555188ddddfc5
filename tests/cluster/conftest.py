"""Fixtures of the tests against a real API server: a namespace of one's own, and the operator as a process in it."""

import json
import ssl
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.cluster import kubeapi
from tests.cluster.apiproxy import ApiProxy
from tests.cluster.process import OperatorProcess, write_kubeconfig
from tests.cluster.world import AuditLog, Json, World, audit_path, wait_for

from falcon_operator.api import names

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/falcon-operator"
CRD = ROOT / "crds" / f"{names.CRD_NAME}.yaml"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAMESPACES = "/api/v1/namespaces"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
DEPLOYMENTS = "/apis/apps/v1/deployments"
ACCOUNT = "operator-under-test"

Start = Callable[..., OperatorProcess]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the end what the cluster has to recover from."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(scope="session")
def api() -> Iterator[httpx.Client]:
    with kubeapi.connect() as client:
        yield client


@pytest.fixture(scope="session")
def cluster(api: httpx.Client) -> Iterator[httpx.Client]:
    """The cluster with today's definition, and without another operator that would work on the same resources."""
    answer = kubeapi.apply(api, f"{CRDS}/{names.CRD_NAME}", yaml.safe_load(CRD.read_text()))
    assert answer.is_success, answer.text
    kubeapi.wait_for_established(api, names.CRD_NAME)
    others = _running_operators(api)
    for path, _ in others:
        _scale(api, path, 0)
    wait_for(lambda: not _operator_pods(api), "end of the operators that were running here")
    yield api
    for path, replicas in others:
        _scale(api, path, replicas)


def _running_operators(api: httpx.Client) -> list[tuple[str, int]]:
    items = api.get(DEPLOYMENTS, params={"labelSelector": f"{names.LABEL_NAME}=falcon-operator"}).json()["items"]
    return [
        (f"/apis/apps/v1/namespaces/{body['metadata']['namespace']}/deployments/{body['metadata']['name']}",
         body["spec"]["replicas"])
        for body in items
        if body["spec"].get("replicas")
    ]  # fmt: skip


def _operator_pods(api: httpx.Client) -> list[Any]:
    found: list[Any] = api.get("/api/v1/pods", params={"labelSelector": f"{names.LABEL_NAME}=falcon-operator"}).json()[
        "items"
    ]
    return found


def _scale(api: httpx.Client, path: str, replicas: int) -> None:
    api.patch(
        path, content=json.dumps({"spec": {"replicas": replicas}}), headers={"Content-Type": kubeapi.MERGE}
    ).raise_for_status()


@pytest.fixture(scope="session")
def engines(cluster: httpx.Client) -> Iterator[None]:
    """Something behind the addresses of kwok's pods."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.reconcile.engines"], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "the stand-in for engines did not start"
    yield
    process.terminate()
    process.wait(10)


@pytest.fixture
def world(cluster: httpx.Client, engines: None) -> Iterator[World]:
    """A new namespace; deleted afterwards, with nothing left in it that holds it back."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.post(NAMESPACES, json={"metadata": {"name": name}}).raise_for_status()
    yield World(cluster, name)
    cluster.delete(f"{NAMESPACES}/{name}").raise_for_status()


@pytest.fixture(scope="session")
def rules() -> dict[str, list[Json]]:
    """What the chart lets the operator do: by the template that says it."""
    found = {}
    for template in ("rbac", "rbac-nodes"):
        command = ["helm", "template", "falcon", str(CHART), "--show-only", f"templates/{template}.yaml"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        bodies = [body for body in yaml.safe_load_all(done.stdout) if body]
        found[template] = next(body["rules"] for body in bodies if body["kind"] == "ClusterRole")
    return found


@pytest.fixture
def reads_nodes() -> bool:
    """Whether the operator under test may read nodes, as it may unless the chart is told otherwise."""
    return True


@pytest.fixture
def token(world: World, rules: dict[str, list[Json]], reads_nodes: bool) -> str:
    """The credentials of a service account with exactly the chart's rights: in this namespace, and on nodes."""
    world.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}})
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": world.namespace}
    metadata: Json = {"name": ACCOUNT}
    grants = [("Role", f"{RBAC}/namespaces/{world.namespace}/", metadata, rules["rbac"])]
    if reads_nodes:
        # What belongs to the namespace goes with it, though it is in none.
        uid = world.client.get(f"{NAMESPACES}/{world.namespace}").raise_for_status().json()["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "Namespace", "name": world.namespace, "uid": uid}
        metadata = {"name": f"{ACCOUNT}-{world.namespace}", "ownerReferences": [owner]}
        grants.append(("ClusterRole", f"{RBAC}/", metadata, rules["rbac-nodes"]))
    for kind, path, metadata, granted in grants:
        role = {"metadata": metadata, "rules": granted}
        world.client.post(f"{path}{kind.lower()}s", json=role).raise_for_status()
        binding = {
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": metadata["name"]},
            "subjects": [subject],
        }
        world.client.post(f"{path}{kind.lower()}bindings", json=binding).raise_for_status()
    answer = world.client.post(
        f"{NAMESPACES}/{world.namespace}/serviceaccounts/{ACCOUNT}/token",
        json={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}},
    )
    issued: str = answer.raise_for_status().json()["status"]["token"]
    return issued


@pytest.fixture
def audit(world: World) -> AuditLog:
    """What the operator under test does from now on."""
    return AuditLog(audit_path(), f"system:serviceaccount:{world.namespace}:{ACCOUNT}")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory, api: httpx.Client) -> Path:
    """The certificate of the cluster's authority, as every namespace holds it."""
    body = wait_for(
        lambda: api.get(f"{NAMESPACES}/default/configmaps/kube-root-ca.crt").json().get("data"), "kube-root-ca.crt"
    )
    path = tmp_path_factory.mktemp("pki") / "ca.crt"
    path.write_text(body["ca.crt"])
    return path


@pytest.fixture
def start(world: World, token: str, authority: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts operators in the namespace; those that still run are ended."""
    running: list[OperatorProcess] = []
    log = tmp_path / "operator.log"

    def begin(*options: str, through: ApiProxy | None = None, wait: bool = True) -> OperatorProcess:
        server, ca = (through.url, None) if through else (str(world.client.base_url).rstrip("/"), str(authority))
        kubeconfig = write_kubeconfig(tmp_path / f"kubeconfig-{len(running)}", server, ca, token)
        process = OperatorProcess(kubeconfig, world.namespace, log, *options)
        running.append(process)
        return process.wait_ready() if wait else process

    yield begin
    for process in running:
        if process.exit_code is None:
            process.kill()
    if log.exists():
        print(log.read_text(errors="replace")[-20_000:])  # shown by pytest where the test failed


@pytest.fixture
def proxy(world: World, authority: Path) -> Iterator[ApiProxy]:
    """A proxy to the API server that a test can make behave badly."""
    proxy = ApiProxy(str(world.client.base_url).rstrip("/"), ssl.create_default_context(cafile=str(authority)))
    yield proxy
    proxy.close()
