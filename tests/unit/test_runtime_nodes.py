"""Nodes: what is kept of them, and whom their changes concern."""

import asyncio
from typing import Any, cast

import pytest

from falcon_operator.api import names
from falcon_operator.kube.client import KubeClient
from falcon_operator.kube.errors import ApiError, Forbidden, NotFound, Unavailable
from falcon_operator.kube.resources import FALCON, HTTP_ROUTE, NODE, WATCHED, Resource
from falcon_operator.runtime.cache import Cache, Key
from falcon_operator.runtime.intake import Intake
from falcon_operator.runtime.nodes import Nodes
from falcon_operator.runtime.queue import WorkQueue
from falcon_operator.runtime.sweep import Sweeper
from falcon_operator.telemetry.metrics import Metrics

Json = dict[str, Any]

H200 = {
    "nvidia.com/gpu.product": "NVIDIA-H200",
    "nvidia.com/gpu.memory": "143771",
    "nvidia.com/gpu.compute.major": "9",
    "nvidia.com/gfd.timestamp": "1700000000",
    "kubernetes.io/hostname": "gpu-1",
}


def node(version: int, name: str = "gpu-1", labels: Json | None = None, **spec: Any) -> Json:
    """A node as the API server gives it, heartbeat, images and all."""
    allocatable = {"cpu": "64", "memory": "512Gi"} | ({"nvidia.com/gpu": "8"} if labels is None else {})
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": H200 if labels is None else labels,
            "annotations": {"csi.volume.kubernetes.io/nodeid": "{}"},
            "managedFields": [{"manager": "kubelet"}],
        },
        "spec": {"podCIDR": "10.0.0.0/24", **spec},
        "status": {
            "allocatable": allocatable,
            "capacity": allocatable,
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": f"t{version}"}],
            "images": [{"names": ["a", "b"], "sizeBytes": 1}],
        },
    }


class FakeApi:
    """Lists that the test fills, or refuses."""

    def __init__(self) -> None:
        self.nodes: list[Json] = []
        self.resources: list[Json] = []
        self.asked: list[tuple[str, str | None]] = []
        self.problem: ApiError | None = None
        self.unknown: frozenset[Resource] = frozenset()  # kinds that are not installed

    async def list(self, resource: Resource, namespace: str | None, selector: str | None, keep: Any) -> list[Json]:
        self.asked.append((resource.kind, namespace))
        if resource in self.unknown:
            raise NotFound(404, "NotFound", "404 page not found")
        if resource is not NODE:
            return [r for r in self.resources if resource is FALCON and r["metadata"]["namespace"] == namespace]
        if self.problem is not None:
            raise self.problem
        return [keep(body) for body in self.nodes]


class Setting:
    """Cache, index, queue and sweeper of an operator of two namespaces."""

    def __init__(self) -> None:
        self.api, self.cache, metrics = FakeApi(), Cache(), Metrics()
        self.queue = WorkQueue(metrics)
        self.nodes = Nodes(self.cache, self.queue, gather_seconds=0.01, seconds_between=0.01)
        self.sweeper = Sweeper(
            cast(KubeClient, self.api), self.cache, metrics, namespaces=("a", "b"), every_seconds=3600, launcher="l"
        )
        self.intake = Intake(
            self.cache, self.queue, self.nodes, pod_gone=lambda _: None, relisted=self.sweeper.relisted
        )
        self.sweeper.feed(self.intake)
        self.version = 0

    def resource(self, name: str, **spec: Any) -> None:
        self.version += 1
        metadata = {"namespace": "a", "name": name, "uid": name, "resourceVersion": str(self.version)}
        body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "spec": spec, "metadata": metadata}
        self.api.resources.append(body)
        self.cache.upsert(FALCON, body)

    def event(self, body: Json, kind: str = "MODIFIED") -> None:
        self.intake.event(NODE, kind, body)

    async def queued(self) -> set[str]:
        """The resources that have been queued since the last time, once what is gathered has been looked at."""
        async with asyncio.timeout(5):
            while self.nodes.gathering:  # noqa: ASYNC110 - a timer has no event of its own
                await asyncio.sleep(0.001)
        found: set[str] = set()
        while len(self.queue):
            key = await self.queue.get()
            self.queue.done(key)
            assert key[1] not in found, "queued twice"
            found.add(key[1])
        return found


@pytest.fixture
async def setting() -> Setting:
    setting = Setting()
    setting.resource("gpu")
    setting.resource("cpu", engine={"device": "cpu"})
    setting.resource("chosen", scheduling={"nodeSelector": {"zone": "a"}})
    return setting


GPU_USERS = {"gpu", "chosen"}


def test_what_is_kept_of_a_node_is_what_the_gate_looks_at() -> None:
    cache = Cache()
    taints = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]
    assert cache.upsert(NODE, node(1, taints=taints, unschedulable=True))
    stored = cache.get(NODE, ("", "gpu-1"))
    assert stored == {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": "gpu-1",
            "uid": "uid-gpu-1",
            "resourceVersion": "1",
            "labels": {key: value for key, value in H200.items() if key != "nvidia.com/gfd.timestamp"},
        },
        "spec": {"unschedulable": True, "taints": taints},
        "status": {"allocatable": {"nvidia.com/gpu": "8"}},
    }


def test_a_heartbeat_is_no_news_and_its_version_is_remembered() -> None:
    cache = Cache()
    assert cache.upsert(NODE, node(1))
    assert not cache.upsert(NODE, node(7))
    assert cache.versions(NODE) == {("", "gpu-1"): 7}
    assert cache.upsert(NODE, node(8, labels={**H200, "nvidia.com/gpu.memory": "1"}))
    assert not cache.upsert(NODE, node(7)), "older than what is known"
    assert cache.delete(NODE, node(9))
    assert not cache.upsert(NODE, node(8))


def test_a_node_belongs_to_the_cluster() -> None:
    assert NODE.path(None) == NODE.path("team") == "/api/v1/nodes"
    assert NODE.path(None, "gpu-1") == "/api/v1/nodes/gpu-1"


async def test_nodes_are_listed_once_whatever_the_namespaces(setting: Setting) -> None:
    setting.api.nodes = [node(1), node(2, "gpu-2")]
    await setting.sweeper.sync()
    assert [asked for asked in setting.api.asked if asked[0] == "Node"] == [("Node", None)]
    assert setting.cache.synced
    assert setting.nodes.index is not None
    assert len(setting.nodes.index) == 2


async def test_a_node_that_comes_or_goes_concerns_whoever_needs_a_gpu(setting: Setting) -> None:
    setting.event(node(1), "ADDED")
    assert await setting.queued() == GPU_USERS
    setting.event(node(2))
    assert await setting.queued() == set(), "a heartbeat"
    setting.event(node(3), "DELETED")
    assert await setting.queued() == GPU_USERS
    assert setting.nodes.index is not None
    assert len(setting.nodes.index) == 0


@pytest.mark.parametrize(
    ("changed", "touched"),
    [
        ({"labels": {**H200, "nvidia.com/gpu.memory": "1"}}, GPU_USERS),
        ({"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}, GPU_USERS),
        ({"unschedulable": True}, GPU_USERS),
        ({"labels": {**H200, "zone": "a"}}, {"chosen"}),
        ({"labels": {**H200, "rack": "12"}}, set()),
        ({"labels": {**H200, "nvidia.com/gfd.timestamp": "1700009999"}}, set()),
    ],
    ids=["gpu", "taint", "cordon", "a selector's label", "nobody's label", "clock"],
)
async def test_a_change_concerns_whoever_looks_at_it(setting: Setting, changed: Json, touched: set[str]) -> None:
    setting.event(node(1, labels=H200), "ADDED")
    await setting.queued()
    setting.event(node(2, **{"labels": H200, **changed}))
    assert await setting.queued() == touched


async def test_a_label_that_an_affinity_names_concerns_its_resource(setting: Setting) -> None:
    terms = [{"matchExpressions": [{"key": "rack", "operator": "Exists"}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    setting.resource("near", scheduling={"affinity": {"nodeAffinity": required}})
    setting.event(node(1), "ADDED")
    await setting.queued()
    setting.event(node(2, labels={**H200, "rack": "12"}) | {"status": node(2)["status"]})
    assert await setting.queued() == {"near"}


async def test_a_node_without_gpus_concerns_nobody(setting: Setting) -> None:
    setting.event(node(1, "worker", {"zone": "a"}), "ADDED")
    setting.event(node(2, "worker", {"zone": "b"}))
    setting.event(node(3, "worker", {}), "DELETED")
    assert await setting.queued() == set()
    setting.event(node(4, "worker", {"zone": "a"}), "ADDED")
    setting.event(node(5, "worker", H200))
    assert await setting.queued() == GPU_USERS, "it has got one"


async def test_many_nodes_at_once_are_one_turn_of_each_resource(setting: Setting) -> None:
    for number in range(500):
        setting.event(node(number + 1, f"gpu-{number}"), "ADDED")
    assert await setting.queued() == GPU_USERS  # each of them once, as `queued` checks


async def test_a_sweep_finds_nodes_that_no_event_told_of(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    setting.event(node(1, "gone"), "ADDED")
    await setting.queued()
    setting.api.nodes = [node(2, "new")]
    await setting.sweeper.sweep(NODE)
    assert await setting.queued() == GPU_USERS
    assert setting.nodes.index is not None
    assert [setting.nodes.index.get(name) is not None for name in ("gone", "new")] == [False, True]
    assert "Node gone is gone, and no event had said so" in caplog.text


async def test_a_cluster_whose_nodes_may_not_be_read_is_synced_without_them(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.api.problem = Forbidden(403, "Forbidden", 'nodes is forbidden: User "x" cannot list')
    await setting.sweeper.sync()
    assert setting.cache.synced
    assert setting.cache.refused == {NODE}
    assert setting.nodes.index is None
    await setting.queued()
    await setting.sweeper.sweep(NODE)
    assert await setting.queued() == set()
    assert [r.levelname for r in caplog.records if "nodes cannot be read" in r.message] == ["WARNING"], "said once"


async def test_a_right_that_is_given_or_taken_later_is_noticed(setting: Setting) -> None:
    setting.api.problem = Forbidden(403, "Forbidden", "no")
    await setting.sweeper.sync()
    await setting.queued()
    setting.api.problem, setting.api.nodes = None, [node(1)]
    await setting.sweeper.sweep(NODE)
    assert setting.nodes.index is not None
    assert len(setting.nodes.index) == 1
    assert await setting.queued() == GPU_USERS
    setting.api.problem = Forbidden(403, "Forbidden", "no")
    await setting.sweeper.sweep(NODE)
    assert setting.nodes.index is None
    assert await setting.queued() == GPU_USERS


async def test_a_right_to_read_no_nodes_at_all_is_no_refusal(setting: Setting) -> None:
    setting.api.problem = Forbidden(403, "Forbidden", "no")
    await setting.sweeper.sync()
    setting.api.problem = None
    await setting.sweeper.sweep(NODE)
    assert setting.cache.refused == frozenset()
    assert setting.nodes.index is not None, "none is known, since there is none"


async def test_another_error_than_a_refusal_is_tried_again(setting: Setting) -> None:
    setting.api.problem = Unavailable(503, "Unavailable", "no")
    with pytest.raises(Unavailable):
        await setting.sweeper.sweep(NODE)
    assert not setting.cache.synced


async def test_a_kind_that_is_installed_later_is_noticed(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    setting.api.unknown = frozenset({HTTP_ROUTE})
    await setting.sweeper.sync()
    assert setting.cache.synced
    assert setting.cache.refused == {HTTP_ROUTE}
    assert [r.levelname for r in caplog.records if "no HTTPRoute that can be read" in r.message] == ["INFO"]
    await setting.queued()
    setting.api.unknown = frozenset()
    await setting.sweeper.sweep(HTTP_ROUTE)
    assert setting.cache.refused == frozenset()
    assert await setting.queued(), "somebody may have waited for it"


async def test_a_kind_of_our_own_that_is_not_installed_is_waited_for(setting: Setting) -> None:
    setting.api.unknown = frozenset({FALCON})
    with pytest.raises(NotFound):
        await setting.sweeper.sweep(FALCON)


def test_nodes_are_the_only_kind_that_can_be_missing() -> None:
    keys: list[Key] = [("", kind.kind) for kind in WATCHED if not kind.namespaced]
    assert keys == [("", "Node")]
