"""The serving image alone, started by its own entrypoint: no operator, a root that cannot be written, any user."""

import json
import re
from typing import Any

import httpx
import pytest
from testbed.images.recipes import Builder
from testbed.lab.layout import layout
from tests.node.harness import ROOT, Kubectl, wait_for

pytestmark = pytest.mark.node

MODEL = "falcon-h1r-7b-nvfp4"
START_SECONDS, STOP_SECONDS = 240, 60
DOCKERFILE = (ROOT / "images/serving/Dockerfile").read_text().replace("\\\n", "")
CODE = "import os; print(os.getuid(), os.access('/', os.W_OK), bool(os.statvfs('/').f_flag & os.ST_RDONLY))"


def written(pattern: str) -> Any:
    """What the Dockerfile says there, in JSON."""
    match = re.search(pattern, DOCKERFILE)
    assert match is not None
    return json.loads(match[1])


def pod(name: str, user: int, variables: dict[str, str], weights: str = "") -> dict[str, Any]:
    """What `docker run --read-only --tmpfs /tmp --shm-size 1g --user ...` starts; `weights`: where to mount them."""
    smaller = {"device": "cpu", "maxModelLen": 512, "maxNumSeqs": 4, "drainTimeoutSeconds": 10}
    intent = {**written(r"FALCON_INTENT='(.*)'"), **smaller, "extraArgs": ["--kv-cache-memory-bytes=134217728"]}
    given = {"FALCON_INTENT": json.dumps(intent), "VLLM_HOST_IP": "127.0.0.1", **variables}
    container = {
        "name": "engine",
        "image": Builder(layout()).reference("serving-cpu"),
        "imagePullPolicy": "Never",
        "env": [{"name": k, "value": v} for k, v in given.items()],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}],
        "securityContext": {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
            {"name": "weights", "emptyDir": {}},
        ],
    }
    if weights:
        # What somebody would have downloaded: a copy of the image's own.
        mount = {"name": "weights", "mountPath": weights}
        copy = ["sh", "-c", f"cp -r /models/{MODEL}/. {weights}"]
        spec["initContainers"] = [{**container, "name": "download", "command": copy, "volumeMounts": [mount]}]
        container["volumeMounts"] = [*spec["containers"][0]["volumeMounts"], {**mount, "readOnly": True}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


class Started:
    """One of these pods."""

    def __init__(self, kubectl: Kubectl, name: str, port: int) -> None:
        self.kubectl, self.name, self.port = kubectl, name, port

    def status(self) -> dict[str, Any]:
        found = self.kubectl.get("pod", self.name)
        assert found is not None
        status: dict[str, Any] = found["status"]
        return status

    def log(self) -> str:
        return self.kubectl.run("logs", self.name)

    def address(self) -> str:
        return f"http://{self.status()['podIP']}:{self.port}"

    def healthy(self) -> bool:
        status = self.status()
        assert status["phase"] in ("Pending", "Running"), self.log()[-3000:]
        try:
            return status["phase"] == "Running" and httpx.get(f"{self.address()}/health").status_code == 200
        except httpx.HTTPError:
            return False

    def run(self, *command: str) -> str:
        return self.kubectl.run("exec", self.name, "--", *command)

    def ended(self) -> dict[str, Any] | None:
        (container,) = self.status()["containerStatuses"]
        how: dict[str, Any] | None = container["state"].get("terminated")
        return how


def test_the_image_serves_without_an_operator_and_ends_when_it_is_told_to(namespace: Kubectl) -> None:
    namespace.apply(pod("baked", 2000, {}))
    namespace.apply(pod("mounted", 4711, {"MODEL": "/models/mine", "FALCON_PORT": "9000"}, "/models/mine"))
    baked, mounted = Started(namespace, "baked", 8000), Started(namespace, "mounted", 9000)
    for started in (baked, mounted):
        wait_for(started.healthy, START_SECONDS, f"answer of {started.name} to /health")
        with httpx.Client(base_url=started.address(), timeout=60) as client:
            assert [m["id"] for m in client.get("/v1/models").json()["data"]] == [MODEL]
            answer = client.post("/v1/completions", json={"model": MODEL, "prompt": "Hello", "max_tokens": 4})
            assert answer.status_code == 200, answer.text
            assert answer.json()["usage"]["completion_tokens"] == 4
    assert f"the checkpoint is /models/{MODEL}" in baked.log()
    assert "the checkpoint is /models/mine" in mounted.log()
    for started, user in ((baked, 2000), (mounted, 4711)):
        assert started.run("python3", "-c", CODE).split() == [str(user), "False", "True"]
        started.run(*written(r"HEALTHCHECK .* CMD (\[.*\])"))  # as Docker asks
        started.run("python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
    for started in (baked, mounted):
        assert wait_for(started.ended, STOP_SECONDS, f"end of {started.name}")["exitCode"] == 0, started.log()[-3000:]
        assert "stopped as asked" in started.log()
