"""A model is quantized on a real node by the real quantizer, from a Hub in the cluster, and then served."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.load.scenarios import fake
from tests.node.harness import ROOT, Json, Kubectl, Resource, wait_for
from tests.torch.hubserver import COMMIT, REPOSITORY

from falcon_operator.api import names

pytestmark = pytest.mark.node

PORT = 8080
SERVE = f"""
import pathlib, sys
sys.path.insert(0, "/hub")
import hubserver, quantizing
hubserver.Hub(quantizing.checkpoint(pathlib.Path("/tmp/source")), ("", {PORT})).serve_forever()
"""
# What the node has to spare beside other tests.
SMALL: Json = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "6Gi"}}


def quantizer() -> str:
    """The quantizer's image on top of vLLM for CPUs."""
    archive = os.environ.get("FALCON_QUANTIZER_ARCHIVE")
    assert archive, (
        "FALCON_QUANTIZER_ARCHIVE must be what `testbed/images/build quantizer-cpu` printed; tests/run sets it"
    )
    return f"localhost/falcon-quantizer-cpu:{Path(archive).stem.removeprefix('quantizer-cpu-')}"


@pytest.fixture
def hub(kubectl: Kubectl) -> Iterator[str]:
    """A tiny Falcon-H1 in BF16 behind an address of the cluster."""
    files = {name: (ROOT / "tests/torch" / name).read_text() for name in ("hubserver.py", "quantizing.py")}
    labels = {"app": "hub"}
    container = {
        "name": "hub",
        "image": quantizer(),
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", SERVE],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "files", "mountPath": "/hub"}, {"name": "tmp", "mountPath": "/tmp"}],
        "resources": SMALL,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 2000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "files", "configMap": {"name": "hub"}}, {"name": "tmp", "emptyDir": {}}],
    }
    kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hub"}, "data": files})
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hub", "labels": labels}, "spec": pod})
    service = {"selector": labels, "ports": [{"port": PORT}]}
    kubectl.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hub"}, "spec": service})
    kubectl.run("wait", "pod/hub", "--for=condition=Ready", "--timeout=180s")
    yield f"http://hub.{kubectl.namespace}:{PORT}"
    kubectl.run("delete", "pod", "hub", "--wait=true")


@pytest.fixture
def volume(kubectl: Kubectl, tmp_path: Path) -> Iterator[Path]:
    """A claim on a directory of the node that anybody may write to, as a provisioner would make it."""
    directory = tmp_path / "volume"
    directory.mkdir()
    directory.chmod(0o777)
    size, name = {"storage": "20Gi"}, f"model-{kubectl.namespace}"
    spec = {"accessModes": ["ReadWriteOnce"], "capacity": size, "hostPath": {"path": str(directory)}}
    kubectl.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})
    asked = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": size},
        "volumeName": name,
        "storageClassName": "",
    }
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "model"}, "spec": asked}
    kubectl.apply(claim)
    yield directory
    kubectl.run("delete", "persistentvolume", name, "--wait=false")


def spec(hub: str, revision: str) -> Json:
    found = fake({"HF_ENDPOINT": hub, "FAKE_LOAD": "1", "FAKE_TEARDOWN": "1"})
    source = {
        "repository": REPOSITORY,
        "revision": revision,
        "cache": {"claimName": "model"},
        "quantize": {"image": quantizer(), "resources": SMALL},
    }
    return {**found, "model": {"source": {"huggingFace": source}}, "gateway": {"enabled": False}}


def test_what_the_job_has_quantized_is_served_and_a_job_that_fails_says_why(
    operator: None, kubectl: Kubectl, hub: str, volume: Path
) -> None:
    resource = Resource(kubectl, "falcon", spec(hub, COMMIT))
    resource.apply()
    wait_for(lambda: resource.condition("Ready").get("reason") == "Quantizing", 60, "Quantizing")
    resource.wait_ready(600)
    (job,) = kubectl.list("jobs")
    assert job["status"]["succeeded"] == 1
    (made,) = (volume / "quantized").iterdir()
    config = json.loads((made / "config.json").read_text())
    assert config["quantization_config"]["quant_algo"] == "W4A16_NVFP4"
    (pod,) = resource.pods()
    assert str(made.name) in kubectl.run("logs", pod["metadata"]["name"])

    Resource(kubectl, "falcon", spec(hub, "b" * 40)).apply()
    wait_for(lambda: resource.condition("Stalled").get("reason") == "QuantizeFailed", 180, "Stalled")
    stalled = resource.condition("Stalled")["message"]
    assert f"The Hub has no {REPOSITORY} at revision {'b' * 40}: correct the revision." in stalled
    assert resource.status()["lastFailure"]["exitCode"] == 2
    assert resource.condition("Available")["status"] == "True"
    assert [p["metadata"]["uid"] for p in resource.pods()] == [pod["metadata"]["uid"]]
    kubectl.run("delete", "fnd", "falcon", "--wait=true")
    selector = f"{names.LABEL_COMPONENT}={names.COMPONENT_QUANTIZER}"
    wait_for(lambda: not kubectl.list("pods", selector), 60, "end of the Jobs' pods")
