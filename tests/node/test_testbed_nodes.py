"""Two real nodes: a cluster of its own, since the testbed of these tests has one node by default."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from testbed.lab import processes
from testbed.lab.layout import Layout

pytestmark = pytest.mark.node

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = "localhost/falcon-testbed/tools:1"
NODES = ("falcon-node", "falcon-node-2")


class Testbed:
    """The commands of a testbed with a state folder of its own."""

    __test__ = False

    def __init__(self, state: Path) -> None:
        self.state = state

    def run(self, command: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(REPOSITORY / "testbed" / command), *arguments],
            env=os.environ | {"FALCON_TESTBED": str(self.state)},
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )

    def __call__(self, command: str, *arguments: str, text: str = "") -> str:
        done = self.run(command, *arguments, text=text)
        assert done.returncode == 0, f"{command} {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def kubectl(self, *arguments: str, text: str = "") -> str:
        return self("kubectl", *arguments, text=text)

    def get(self, source: str, url: str, *, times: int = 1) -> list[str]:
        """Return what the answers to requests from a pod say: the names of the pods that answered."""
        return self.kubectl("exec", source, "--", "labtool", "get", url, str(times)).split()

    def answers(self, source: str, url: str) -> bool:
        return self.run("kubectl", "exec", source, "--", "labtool", "get", url).returncode == 0

    def namespaces(self) -> set[str | None]:
        holders = [int(path.read_text().split()[0]) for path in self.state.glob("**/run/holder")]
        return {processes.namespace(pid, kind) for pid in holders for kind in ("net", "mnt", "pid")}


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    found = Testbed(tmp_path_factory.mktemp("two") / "two-nodes")
    try:
        found("up", "--nodes", "2", "--gpus", "1", "--kwok", "0", "--images")
        yield found
    finally:
        found("down", "--purge")


@pytest.fixture(scope="module")
def pods(testbed: Testbed) -> dict[str, str]:
    """A pod on each node, and a Service over both; the address of each pod."""
    container = {"name": "tools", "image": TOOLS, "imagePullPolicy": "Never"}
    documents = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"web-{node}", "labels": {"app": "web"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "nodeName": node,
                "containers": [container | {"resources": {"limits": {"nvidia.com/gpu": 1}}}],
            },
        }
        for node in NODES
    ]
    testbed.kubectl("create", "-f", "-", text=yaml.safe_dump_all(documents))
    testbed.kubectl("create", "service", "clusterip", "web", "--tcp=80:8080")
    testbed.kubectl("wait", "pod", "-l", "app=web", "--for=condition=Ready", "--timeout=90s")
    jsonpath = "jsonpath={.status.podIP}"
    return {node: testbed.kubectl("get", "pod", f"web-{node}", "-o", jsonpath) for node in NODES}


def until_answers(testbed: Testbed, source: str, url: str, wanted: bool) -> None:
    deadline = time.monotonic() + 60
    while testbed.answers(source, url) != wanted:
        assert time.monotonic() < deadline, f"from {source} to {url}: still {'no' if wanted else 'an'} answer"
        time.sleep(0.2)


def test_pods_of_both_nodes_have_a_gpu_and_reach_each_other_and_services(
    testbed: Testbed, pods: dict[str, str]
) -> None:
    for source, target in (NODES, NODES[::-1]):
        assert testbed.get(f"web-{source}", f"http://{pods[target]}:8080/") == [f"web-{target}"]
        until_answers(testbed, f"web-{source}", "http://web/", True)
        answers = testbed.get(f"web-{source}", "http://web/", times=40)
        assert set(answers) == {f"web-{node}" for node in NODES}


def test_a_node_that_is_cut_off_is_silent_until_it_is_mended(testbed: Testbed, pods: dict[str, str]) -> None:
    near, far = NODES
    url = f"http://{pods[far]}:8080/"
    testbed("cut", far)
    try:
        until_answers(testbed, f"web-{near}", url, False)
        assert "cannot be cut off" in testbed.run("cut", near).stderr
    finally:
        testbed("mend", far)
    until_answers(testbed, f"web-{near}", url, True)
    testbed("mend", far)  # nothing to do


def test_a_drained_node_gives_its_pods_to_the_other(testbed: Testbed) -> None:
    first, second = NODES
    testbed.kubectl("create", "deployment", "moved", f"--image={TOOLS}", "--replicas=2")
    try:
        testbed.kubectl("cordon", second)
        testbed.kubectl("rollout", "status", "deployment/moved", "--timeout=90s")
        testbed.kubectl("uncordon", second)
        testbed.kubectl("drain", first, "--ignore-daemonsets", "--force", "--timeout=120s")
        testbed.kubectl("rollout", "status", "deployment/moved", "--timeout=90s")
        where = "jsonpath={.items[*].spec.nodeName}"
        running = "--field-selector=status.phase=Running"
        found = testbed.kubectl("get", "pods", "-l", "app=moved", running, "-o", where)
        assert set(found.split()) == {second}
    finally:
        testbed.kubectl("uncordon", first, second)


def test_up_without_the_second_node_takes_it_away_and_down_leaves_nothing(testbed: Testbed) -> None:
    both = testbed.namespaces()
    assert len(both) == 6
    testbed("up", "--gpus", "1", "--kwok", "0", "--images")
    assert testbed.kubectl("get", "nodes", "-o", "name").split() == [f"node/{NODES[0]}"]
    testbed("up", "--nodes", "2", "--gpus", "1", "--kwok", "0", "--images")

    namespaces = both | testbed.namespaces()
    down = testbed.run("down")
    assert down.returncode == 0, down.stderr
    for what in ("processes", "mounts", "cgroups"):
        assert f"{what} left: 0" in down.stderr
    kinds = ("net", "mnt", "pid")
    assert not [p for p in processes.all_pids() if any(processes.namespace(p, kind) in namespaces for kind in kinds)]
    assert not list(Path("/sys/fs/cgroup").rglob(f"{Layout(testbed.state, testbed.state).cgroup}*"))
