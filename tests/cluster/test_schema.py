"""The schema in front of the real API server: what it accepts, and the sentence for what it refuses."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.cluster import kubeapi

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
GROUP = "serving.falcon-operator.io"
OPERATOR = "falcon-operator-status"
CRD_FILE = ROOT / "crds" / f"falconnvfp4deployments.{GROUP}.yaml"
CRDS_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CASES: list[dict[str, Any]] = [
    {**case, "file": file.stem}
    for file in sorted(Path(__file__).with_name("schema_cases").glob("*.yaml"))
    for case in yaml.safe_load(file.read_text())
]
ACCEPTED = [case for case in CASES if "says" not in case]
REFUSED = [case for case in CASES if "says" in case]


def _id(case: dict[str, Any]) -> str:
    return f"{case['file']}: {case['name']}"


class Resources:
    """The resources of one namespace."""

    def __init__(self, client: httpx.Client, namespace: str, group: str) -> None:
        self.client = client
        self.api = f"{group}/v1alpha1"
        self.path = f"/apis/{self.api}/namespaces/{namespace}/falconnvfp4deployments"

    def body(self, name: str, spec: Any) -> dict[str, Any]:
        body = {"apiVersion": self.api, "kind": "FalconNVFP4Deployment", "metadata": {"name": name}}
        return body if spec is None else {**body, "spec": spec}

    def try_to_create(self, spec: Any, name: str = "case", validation: str = "Strict") -> httpx.Response:
        params = {"dryRun": "All", "fieldValidation": validation}
        return self.client.post(self.path, json=self.body(name, spec), params=params)

    def apply(self, name: str, spec: Any = None, manager: str = "tests") -> httpx.Response:
        return kubeapi.apply(self.client, f"{self.path}/{name}", self.body(name, spec), manager=manager)

    def apply_status(self, name: str, status: Any, manager: str = OPERATOR, force: bool = True) -> httpx.Response:
        body = {**self.body(name, None), "status": status}
        return kubeapi.apply(self.client, f"{self.path}/{name}/status", body, manager=manager, force=force)

    def get(self, name: str, **headers: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"{self.path}/{name}", headers=headers).raise_for_status().json()
        return found


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with kubeapi.connect() as connected:
        yield connected


def _install(client: httpx.Client, definition: dict[str, Any]) -> httpx.Response:
    name = definition["metadata"]["name"]
    answer = kubeapi.apply(client, f"{CRDS_PATH}/{name}", definition)
    assert answer.is_success, answer.text
    kubeapi.wait_for_established(client, name)
    return answer


@pytest.fixture(scope="module")
def installed(client: httpx.Client) -> httpx.Response:
    """The answer to applying the definition."""
    return _install(client, yaml.safe_load(CRD_FILE.read_text()))


@pytest.fixture(scope="module")
def namespace(client: httpx.Client) -> Iterator[str]:
    name = f"schema-{uuid.uuid4().hex[:8]}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    client.post("/api/v1/namespaces", json=body).raise_for_status()
    yield name
    client.delete(f"/api/v1/namespaces/{name}").raise_for_status()


@pytest.fixture(scope="module")
def resources(client: httpx.Client, installed: httpx.Response, namespace: str) -> Resources:
    """For what is only tried and never stored."""
    return Resources(client, namespace, GROUP)


@pytest.fixture(scope="module")
def unwatched(client: httpx.Client, namespace: str) -> Iterator[Resources]:
    """For what is stored: the same definition under a group of its own, which no operator answers to."""
    group = f"{namespace}.falcon-operator.io"
    definition = yaml.safe_load(CRD_FILE.read_text())
    definition["metadata"]["name"] = f"falconnvfp4deployments.{group}"
    definition["spec"]["group"] = group
    for name in ("shortNames", "categories"):
        del definition["spec"]["names"][name]
    _install(client, definition)
    yield Resources(client, namespace, group)
    client.delete(f"{CRDS_PATH}/{definition['metadata']['name']}").raise_for_status()


def test_there_are_enough_cases() -> None:
    names = [_id(case) for case in CASES]
    assert len(names) >= 80
    assert len(set(names)) == len(names)


def test_the_definition_is_accepted_without_a_warning(client: httpx.Client, installed: httpx.Response) -> None:
    assert "Warning" not in installed.headers
    stored = client.get(f"{CRDS_PATH}/{CRD_FILE.stem}").raise_for_status().json()
    conditions = {each["type"]: each["status"] for each in stored["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}  # and no NonStructuralSchema


@pytest.mark.parametrize("case", ACCEPTED, ids=_id)
def test_accepted(resources: Resources, case: dict[str, Any]) -> None:
    answer = resources.try_to_create(case["spec"], case.get("resource", "case"))
    assert answer.is_success, answer.json()["message"]
    assert "Warning" not in answer.headers
    assert _holds(answer.json()["spec"], case["spec"])


def _holds(stored: Any, wanted: Any) -> bool:
    """Whether all that was asked for was stored, and nothing was dropped on the way."""
    if isinstance(wanted, dict):
        return isinstance(stored, dict) and all(key in stored and _holds(stored[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(stored) == len(wanted) and all(map(_holds, stored, wanted))
    return bool(stored == wanted)


@pytest.mark.parametrize("case", REFUSED, ids=_id)
def test_refused_in_one_sentence(resources: Resources, case: dict[str, Any]) -> None:
    answer = resources.try_to_create(case["spec"], case.get("resource", "case"))
    assert answer.status_code == 422, answer.text
    # A value that breaks the schema keeps the rules from being tried; the API server adds that as a second cause.
    causes = [
        each for each in answer.json()["details"]["causes"] if "some validation rules were not" not in each["message"]
    ]
    fields = case["field"] if isinstance(case["field"], list) else [case["field"]]
    assert [each["field"] for each in causes] == fields, causes
    assert case["says"] in causes[0]["message"], causes[0]["message"]


def test_a_misspelt_field_is_refused_by_name(resources: Resources) -> None:
    answer = resources.try_to_create({"engine": {"maxModelLenn": 1}})
    assert answer.status_code == 400
    assert "spec.engine.maxModelLenn" in answer.json()["message"]


def test_a_misspelt_field_is_warned_about_and_dropped(resources: Resources) -> None:
    answer = resources.try_to_create({"engine": {"maxModelLenn": 1}}, validation="Warn")
    assert "spec.engine.maxModelLenn" in answer.headers["Warning"]
    assert "maxModelLenn" not in answer.json()["spec"]["engine"]


@pytest.mark.parametrize("spec", [None, {}], ids=["no spec", "empty spec"])
def test_everything_has_a_default(resources: Resources, spec: Any) -> None:
    stored = resources.try_to_create(spec).raise_for_status().json()
    assert stored["spec"] == {
        "replicas": 1,
        "suspend": False,
        "model": {"names": ["falcon-h1r-7b-nvfp4"], "checkpoint": "Repair"},
        "engine": {
            "device": "cuda",
            "maxModelLen": 65536,
            "maxNumSeqs": 256,
            "gpuMemoryUtilization": 0.88,
            "kvCacheDtype": "fp8",
            "prefixCaching": True,
            "computeFormat": "Auto",
            "cudaGraphMode": "FULL_AND_PIECEWISE",
        },
        "gpu": {"fp4": "Prefer"},
        "scheduling": {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]},
        "resources": {"requests": {"cpu": "2", "memory": "12Gi"}},
        "fit": "Clamp",
        "startup": {"budget": "30m", "canary": True},
        "rollout": {"strategy": "Auto", "drainTimeout": "5m", "onFailure": "Hold"},
        "updatePolicy": "Manual",
        "gateway": {"enabled": True, "replicas": 2, "holdTimeout": "10m", "maxHeldRequests": 512},
        "networkPolicy": "Enforce",
        "monitoring": {"podMonitor": "Auto"},
        "security": {"runAsUser": 2000, "runAsGroup": 2000, "fsGroup": 2000, "readOnlyRootFilesystem": True},
    }


def test_another_source_replaces_the_one_before(unwatched: Resources) -> None:
    unwatched.apply("source", {"model": {"source": {"volume": {"claimName": "weights"}}}}).raise_for_status()
    changed = unwatched.apply("source", {"model": {"source": {"oci": {"reference": "a/b"}}}}, manager="somebody-else")
    assert changed.raise_for_status().json()["spec"]["model"]["source"] == {"oci": {"reference": "a/b"}}


def test_a_resource_that_nobody_has_looked_at_says_so(unwatched: Resources) -> None:
    unwatched.apply("unseen").raise_for_status()
    conditions = {each["type"]: each for each in unwatched.get("unseen")["status"]["conditions"]}
    assert {kind: each["status"] for kind, each in conditions.items()} == {"Ready": "Unknown", "Reconciling": "True"}
    assert {each["message"] for each in conditions.values()} == {"Waiting for the operator."}


def _condition(kind: str, status: str) -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "observedGeneration": 1,
        "lastTransitionTime": "2026-11-24T13:00:00Z",
        "reason": "Starting",
        "message": "1 of 1 engines is starting.",
    }


FULL_STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "desiredReplicas": 2,
    "replicas": 1,
    "readyReplicas": 1,
    "updatedReplicas": 1,
    "selector": "app.kubernetes.io/instance=status",
    "url": "http://status.default.svc.cluster.local/v1",
    "conditions": [_condition("Ready", "False"), _condition("Reconciling", "True"), _condition("Stalled", "False")],
    "model": {"name": "falcon", "maxModelLen": 4096},
    "capacity": [
        {
            "product": "NVIDIA-B200",
            "predicted": {"blocks": 100, "blockTokens": 16, "tokens": 1600, "sequences": 4},
            "measured": {"blocks": 99, "blockTokens": 16, "tokens": 1584, "sequences": 4},
        }
    ],
    "engine": {"version": "0.33.0", "nvfp4Kernel": "FLASHINFER_CUTLASS", "attentionBackend": "FLASHINFER"},
    "coldStart": {
        **{"scheduled": 0.5, "pulled": 1, "prepared": 2.5, "imported": 9.5},
        **{"loaded": 12.5, "compiled": 40.5, "captured": 50.5, "ready": 60.5},
    },
    "autoscaling": {
        "desiredReplicas": 2,
        "signal": "utilization 0.9",
        "reason": "above the target",
        "limitedBy": "maxReplicas",
        "lastScaleTime": "2026-11-24T13:00:00Z",
        "decisions": [{"time": "2026-11-24T13:00:00Z", "fromReplicas": 1, "toReplicas": 2, "reason": "load"}],
        "learned": {
            **{"promptTokensPerSecond": 17000, "stepMilliseconds": 5.4, "sequenceMilliseconds": 0.144},
            **{"promptTokens": 1200, "answerTokens": 200},
        },
    },
    "revision": {"current": "a", "updated": "b", "renderer": "c", "available": "d"},
    "nodes": {"eligible": 1, "rejected": [{"name": "n", "reason": "no GPU"}]},
    "lastFailure": {
        "time": "2026-11-24T13:00:00Z",
        "pod": "status-abc",
        "exitCode": 1,
        "reason": "OutOfMemory",
        "message": "The engine ran out of memory.",
        "hint": "Lower engine.maxNumSeqs.",
    },
}


def test_status_comes_back_as_written_and_once_more_without_a_write(unwatched: Resources) -> None:
    unwatched.apply("status").raise_for_status()
    first = unwatched.apply_status("status", FULL_STATUS)
    assert first.is_success, first.json()["message"]
    assert unwatched.get("status")["status"] == FULL_STATUS
    again = unwatched.apply_status("status", FULL_STATUS)
    assert again.json()["metadata"]["resourceVersion"] == first.json()["metadata"]["resourceVersion"]


def test_another_writer_of_the_status_is_a_conflict(unwatched: Resources) -> None:
    unwatched.apply("contested").raise_for_status()
    unwatched.apply_status("contested", FULL_STATUS).raise_for_status()
    answer = unwatched.apply_status("contested", {"url": "http://elsewhere"}, manager="somebody-else", force=False)
    assert answer.status_code == 409
    assert "falcon-operator-status" in answer.json()["message"]


def test_more_decisions_than_are_kept_are_refused(unwatched: Resources) -> None:
    unwatched.apply("bounded").raise_for_status()
    decision = FULL_STATUS["autoscaling"]["decisions"][0]
    answer = unwatched.apply_status("bounded", {"autoscaling": {"decisions": [decision] * 6}})
    assert answer.status_code == 422
    assert "status.autoscaling.decisions" in answer.json()["message"]


def test_scale(unwatched: Resources) -> None:
    unwatched.apply("scaled").raise_for_status()
    unwatched.apply_status("scaled", {"replicas": 1, "selector": "a=b"}).raise_for_status()
    path = f"{unwatched.path}/scaled/scale"
    scale = unwatched.client.get(path).raise_for_status().json()
    assert (scale["spec"], scale["status"]) == ({"replicas": 1}, {"replicas": 1, "selector": "a=b"})
    merge = {"Content-Type": kubeapi.MERGE}
    unwatched.client.patch(path, json={"spec": {"replicas": 3}}, headers=merge).raise_for_status()
    assert unwatched.get("scaled")["spec"]["replicas"] == 3
    too_many = unwatched.client.patch(path, json={"spec": {"replicas": 1001}}, headers=merge)
    assert too_many.status_code == 422


def test_columns(unwatched: Resources) -> None:
    unwatched.apply("columns").raise_for_status()
    unwatched.apply_status("columns", FULL_STATUS).raise_for_status()
    table = unwatched.get("columns", Accept=kubeapi.TABLE)
    shown = {
        column["name"]: (column["priority"], cell)
        for column, cell in zip(table["columnDefinitions"], table["rows"][0]["cells"], strict=True)
        if column["name"] != "Age"
    }
    assert shown == {
        "Name": (0, "columns"),
        "Ready": (0, "False"),
        "Desired": (0, 2),
        "Available": (0, 1),
        "URL": (1, "http://status.default.svc.cluster.local/v1"),
        "Engine": (1, "0.33.0"),
        "GPU": (1, "NVIDIA-B200"),
        "Reason": (0, "Starting"),
    }


def test_short_name_and_category(resources: Resources) -> None:
    found = resources.client.get(f"/apis/{resources.api}").raise_for_status().json()["resources"]
    by_name = {each["name"]: each for each in found}
    assert set(by_name) == {f"falconnvfp4deployments{part}" for part in ("", "/status", "/scale")}
    assert by_name["falconnvfp4deployments"]["shortNames"] == ["fnd"]
    assert by_name["falconnvfp4deployments"]["categories"] == ["falcon"]
    assert by_name["falconnvfp4deployments"]["namespaced"] is True
