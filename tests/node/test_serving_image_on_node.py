"""The serving image alone, started as `docker run` does it: no operator, a root that cannot be written, any user."""

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from testbed.images.recipes import Builder
from testbed.lab.configs import snapshotter_for
from testbed.lab.layout import layout
from testbed.lab.node import Node
from tests.node.harness import ROOT, wait_for

pytestmark = pytest.mark.node

MODEL = "falcon-h1r-7b-nvfp4"
CTR = ("ctr", "-n", "k8s.io")
START_SECONDS, STOP_SECONDS = 240, 60


def intent() -> str:
    """What the image asks for by itself, but for a CPU and little memory."""
    text = (ROOT / "images/serving/Dockerfile").read_text().replace("\\\n", "")
    written = re.search(r"FALCON_INTENT='(.*)'", text)
    assert written is not None
    smaller = {"device": "cpu", "maxModelLen": 512, "maxNumSeqs": 4, "drainTimeoutSeconds": 10}
    cache = {"extraArgs": ["--kv-cache-memory-bytes=134217728"]}
    return json.dumps({**json.loads(written[1]), **smaller, **cache})


@dataclass
class Container:
    """One that runs until it is told to stop."""

    node: Node
    name: str
    port: int
    log: Path
    end: "Future[str]"

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def healthy(self) -> bool:
        assert not self.end.done(), f"{self.name} has ended: {self.end.exception()}\n{self.said()[-3000:]}"
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def run(self, *command: str) -> str:
        return self.node.inside(*CTR, "tasks", "exec", "--exec-id", "check", self.name, *command)

    def stop(self) -> None:
        self.node.inside(*CTR, "tasks", "kill", "-s", "SIGTERM", self.name)


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Container, Container]]:
    """One with the weights that are in it, one with weights from a folder: other users, ports and reports."""
    place = layout()
    node, reference = Node(place), Builder(place).reference("serving-cpu")
    snapshotter = f"--snapshotter={snapshotter_for(place.containerd)}"
    folder = tmp_path_factory.mktemp("image")
    weights = folder / "weights"
    # What somebody would download: a copy of the image's own.
    copy = """set -e; mkdir "$2"; ctr -n k8s.io images mount "$5" "$1" "$2"; cp -r "$2/models/$3" "$4"
        ctr -n k8s.io images unmount "$5" --rm "$2" """
    node.inside("sh", "-c", copy, "sh", reference, str(folder / "root"), MODEL, str(weights), snapshotter)
    weights.chmod(0o755)
    mounted = {"MODEL": "/models/mine", "FALCON_PORT": "9000", "FALCON_REPORT_PORT": "9001"}
    with ThreadPoolExecutor(2) as pool:

        def start(name: str, port: int, user: str, variables: Mapping[str, str], *mounts: str) -> Container:
            log = folder / f"{name}.log"
            given = {"FALCON_INTENT": intent(), "VLLM_HOST_IP": "127.0.0.1", **variables}
            options = ["--rm", snapshotter, "--read-only", "--net-host", "--user", user]
            options += [f"--env={k}={v}" for k, v in given.items()]
            options += [f"--mount={m}" for m in ("type=tmpfs,src=tmpfs,dst=/tmp,options=rw:mode=1777", *mounts)]
            script = 'log=$1; shift; exec "$@" >"$log" 2>&1'
            command = [*CTR, "run", *options, reference, name]
            end = pool.submit(node.inside, "sh", "-c", script, "sh", str(log), *command)
            return Container(node, name, port, log, end)

        started = (
            start("baked", 8000, "2000:2000", {}),
            start("mounted", 9000, "4711:4711", mounted, f"type=bind,src={weights},dst=/models/mine,options=rbind:ro"),
        )
        try:
            yield started
        finally:
            for container in started:
                if not container.end.done():
                    node.inside(*CTR, "tasks", "kill", "-s", "SIGKILL", container.name)


def test_the_image_serves_without_an_operator(containers: tuple[Container, Container]) -> None:
    for container in containers:
        wait_for(container.healthy, START_SECONDS, f"answer of {container.name} to /health")
        with httpx.Client(base_url=f"http://127.0.0.1:{container.port}", timeout=60) as client:
            assert [m["id"] for m in client.get("/v1/models").json()["data"]] == [MODEL]
            answer = client.post("/v1/completions", json={"model": MODEL, "prompt": "Hello", "max_tokens": 4})
            assert answer.status_code == 200, answer.text
            assert answer.json()["usage"]["completion_tokens"] == 4
    baked, mounted = containers
    assert f"the checkpoint is /models/{MODEL}" in baked.said()
    assert "the checkpoint is /models/mine" in mounted.said()


def test_nothing_of_it_is_written_but_tmp(containers: tuple[Container, Container]) -> None:
    for container, user in zip(containers, ("2000", "4711"), strict=True):
        code = "import os; print(os.getuid(), os.access('/', os.W_OK), os.statvfs('/').f_flag & os.ST_RDONLY)"
        assert container.run("python3", "-c", code).split() == [user, "False", "1"]


def test_docker_would_call_it_healthy(containers: tuple[Container, Container]) -> None:
    text = (ROOT / "images/serving/Dockerfile").read_text().replace("\\\n", "")
    check = re.search(r"HEALTHCHECK .* CMD (\[.*\])", text)
    assert check is not None
    for container in containers:
        container.run(*json.loads(check[1]))


def test_it_ends_with_0_when_it_is_told_to_stop(containers: tuple[Container, Container]) -> None:
    for container in containers:
        container.stop()
    for container in containers:
        container.end.result(timeout=STOP_SECONDS)
        assert "stopped as asked" in container.said()
