import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, cast

import pytest

from falcon_operator.api import names
from falcon_operator.api.config import OperatorConfig
from falcon_operator.decide.autoscale.engine_law import Learned
from falcon_operator.decide.autoscale.types import Config, Decision, Fleet
from falcon_operator.decide.events import ENGINE_FAILURE
from falcon_operator.decide.pods import Pod
from falcon_operator.decide.types import EngineFacts, Event, Launcher, Plan, Renderer, Scaling, Snapshot, Watch
from falcon_operator.kube.client import KubeClient
from falcon_operator.kube.errors import ApiError, Conflict, Unavailable
from falcon_operator.kube.events import EventRecorder
from falcon_operator.kube.resources import CONFIG_MAP, DEPLOYMENT, FALCON, POD, SERVICE, WATCHED, Resource
from falcon_operator.observe.engine import EngineObserver
from falcon_operator.runtime.autoscaler import Autoscaler
from falcon_operator.runtime.cache import Cache, Key
from falcon_operator.runtime.deletion_costs import DeletionCosts
from falcon_operator.runtime.executor import Executor
from falcon_operator.runtime.intake import Intake
from falcon_operator.runtime.nodes import Nodes
from falcon_operator.runtime.queue import WorkQueue
from falcon_operator.runtime.status import StatusWriter
from falcon_operator.runtime.sweep import Sweeper
from falcon_operator.runtime.worker import Reconciler, Workers
from falcon_operator.telemetry.metrics import Metrics

Json = dict[str, Any]
KEY: Key = ("ns", "web")


class FakeApi:
    """An API server that stores what is applied and tells a watch of it."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Resource, Key], Json] = {}
        self.calls: list[str] = []
        self.version = 100
        self.refuse: Callable[[str], ApiError | None] = lambda _: None

    def put(self, resource: Resource, body: Json) -> Json:
        self.version += 1
        metadata = {"namespace": "ns", "uid": f"{body['kind']}-{body['metadata']['name']}", **body["metadata"]}
        stored = {**body, "metadata": {**metadata, "resourceVersion": str(self.version)}}
        self.objects[resource, ("ns", metadata["name"])] = stored
        return stored

    async def apply(self, resource: Resource, body: Json, manager: str, **options: Any) -> Json:
        label = f"{resource.kind}/{body['metadata']['name']}" + ("/status" if options.get("subresource") else "")
        self.calls.append(label)
        await asyncio.sleep(0)
        problem = self.refuse(label)
        if problem is not None:
            raise problem
        live = self.objects.get((resource, KEY), {}) if options.get("subresource") else {}
        return self.put(resource, {**live, **body, "metadata": {**live.get("metadata", {}), **body["metadata"]}})

    async def list(self, resource: Resource, namespace: str | None, selector: str | None, keep: Any) -> Any:
        self.calls.append(f"list {resource.kind}")
        problem = self.refuse(f"list {resource.kind}")
        if problem is not None:
            raise problem
        return [body for (kind, _), body in self.objects.items() if kind == resource]

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        self.calls.append(f"delete {resource.kind}/{name}")
        self.objects.pop((resource, (namespace, name)), None)


def child(kind: str, name: str = "web", uid: str = "u1") -> Json:
    resource = next(r for r in WATCHED if r.kind == kind)
    return {
        "apiVersion": resource.api_version,
        "kind": kind,
        "metadata": {
            "namespace": "ns",
            "name": name,
            "labels": names.child_labels("web", uid),
            "annotations": {names.ANNOTATION_APPLIED: "1"},
            "ownerReferences": [{"uid": uid, "controller": True}],
        },
    }


def falcon(uid: str = "u1", **metadata: Any) -> Json:
    return {"apiVersion": names.API_VERSION, "kind": names.KIND,
            "metadata": {"name": "web", "uid": uid, "generation": 1, **metadata}}  # fmt: skip


class Setting:
    """A runtime around a decision that the test makes."""

    def __init__(self) -> None:
        self.api, self.cache, metrics = FakeApi(), Cache(), Metrics()
        self.metrics = metrics
        client = cast(KubeClient, self.api)
        self.queue = WorkQueue(metrics, base_seconds=0.01)
        self.events = EventRecorder(client, "test")
        self.observer = EngineObserver(self.queue.add)
        self.executor = Executor(client, self.cache, metrics)
        self.nodes = Nodes(self.cache, self.queue, gather_seconds=0.01, seconds_between=0.01)
        self.seen: list[Snapshot] = []
        self.plan: Callable[[Snapshot], Plan] = lambda _: plan()
        self.while_costs_are_written: Callable[[], None] = lambda: None
        self.watched: list[Watch | None] = []
        self.decided: Scaling | None = None
        self.reconciler = Reconciler(
            self.cache,
            self.queue,
            self.executor,
            StatusWriter(client, self.cache, metrics),
            self.events,
            self.observer,
            self.nodes,
            Renderer(OperatorConfig(), Launcher("falcon-launcher-1", b"")),
            resync_seconds=600,
            costs=cast(DeletionCosts, self),
            autoscaler=cast(Autoscaler, self),
            failed=metrics.failed,
            decision=self._decide,
            jitter=lambda: 0.5,
        )
        self.workers = Workers(self.queue, self.reconciler, metrics, count=2)
        self.sweeper = Sweeper(
            client, self.cache, metrics, namespaces=(), every_seconds=3600, launcher="falcon-launcher-1"
        )
        self.gone: list[str] = []
        self.intake = Intake(
            self.cache, self.queue, self.nodes, pod_gone=self.gone.append, relisted=self.sweeper.relisted
        )
        self.sweeper.feed(self.intake)

    async def write(self, namespace: str, pods: Sequence[Pod]) -> None:
        """In place of the deletion costs' writer."""
        self.api.calls.append(f"costs {namespace}/{','.join(pod.name for pod in pods)}")
        self.while_costs_are_written()

    def want(self, key: Key, watch: Watch | None) -> None:
        """In place of the autoscaler."""
        assert key == KEY or watch is None
        self.watched.append(watch)

    def scaling(self, key: Key) -> Scaling | None:
        """In place of the autoscaler."""
        return self.decided

    def _decide(self, snapshot: Snapshot, renderer: Renderer, now: datetime) -> Plan:
        self.seen.append(snapshot)
        return self.plan(snapshot)

    def event(self, resource: Resource, body: Json, kind: str | None = "ADDED") -> None:
        self.intake.event(resource, kind, self.api.put(resource, body))

    async def once(self) -> float | None:
        key = await asyncio.wait_for(self.queue.get(), 5)
        try:
            return await self.reconciler.reconcile(key)
        finally:
            self.queue.done(key)

    async def work_until(self, reached: Callable[[], bool]) -> None:
        """Run the workers until something has happened; they must not end."""
        workers = asyncio.create_task(self.workers.run())
        async with asyncio.timeout(5):
            while not reached():  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0.01)
        assert not workers.done()
        workers.cancel()


def plan(*apply: Json, **more: Any) -> Plan:
    empty: Json = {"delete": (), "status": {"replicas": 1}, "events": (), "requeue_after": None, "observe": ()}
    return Plan(apply=apply, **{**empty, **more})


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    setting = Setting()
    yield setting
    await setting.observer.close()


async def test_a_new_resource_gets_its_deployment_first_and_the_rest_in_a_later_turn(setting: Setting) -> None:
    setting.plan = lambda _: plan(child("Deployment"), child("Service"), child("ControllerRevision", "web-1"))
    setting.event(FALCON, falcon())
    await setting.once()
    assert setting.api.calls == ["Deployment/web"]
    await setting.once()
    assert setting.api.calls == [
        "Deployment/web", "Service/web", "FalconNVFP4Deployment/web/status", "ControllerRevision/web-1"
    ]  # fmt: skip


async def test_new_resources_go_before_those_that_have_started(setting: Setting) -> None:
    setting.event(FALCON, falcon(name="old"))
    setting.event(DEPLOYMENT, {**child("Deployment", "old"), "metadata": {
        **child("Deployment", "old")["metadata"], "labels": names.child_labels("old", "u1")}})  # fmt: skip
    first = await setting.queue.get()
    setting.queue.done(first)
    setting.intake.enqueue(("ns", "old"))
    setting.event(FALCON, falcon())
    assert await setting.queue.get() == KEY


async def test_a_settled_resource_is_not_written(setting: Setting) -> None:
    setting.plan = lambda _: plan(child("Deployment"), child("Service"))
    setting.event(FALCON, falcon())
    await setting.once()
    await setting.once()
    setting.api.calls.clear()
    setting.queue.add(KEY)
    assert await setting.once() == 600
    assert setting.api.calls == []


async def test_a_deleted_resource_is_left_to_the_garbage_collector(setting: Setting) -> None:
    setting.event(FALCON, falcon(deletionTimestamp="now"))
    assert await setting.once() is None
    assert setting.seen == []


async def test_only_what_belongs_to_this_incarnation_is_shown_to_the_decision(setting: Setting) -> None:
    setting.event(FALCON, falcon("new"))
    setting.event(DEPLOYMENT, child("Deployment", uid="old"))
    setting.event(SERVICE, child("Service", uid="new"))
    await setting.once()
    assert setting.seen[0].deployment is None
    assert list(setting.seen[0].services) == ["web"]


async def test_the_remains_of_an_earlier_incarnation_are_waited_for(setting: Setting) -> None:
    setting.plan = lambda _: plan(child("Deployment", uid="new"))
    setting.event(FALCON, falcon("new"))
    setting.event(DEPLOYMENT, child("Deployment", uid="old"))
    again = await setting.once()
    assert again is not None
    assert again <= 2
    assert "Deployment/web" not in setting.api.calls


async def test_a_refusal_is_in_the_status_of_the_same_turn(setting: Setting) -> None:
    setting.api.refuse = lambda label: Conflict(409, "Conflict", "taken") if label == "Service/web" else None
    setting.api.put(SERVICE, {"kind": "Service", "metadata": {"name": "web"}})

    async def get(resource: Resource, namespace: str, name: str) -> Json:
        return setting.api.objects[resource, (namespace, name)]

    setting.api.get = get  # type: ignore[attr-defined]
    setting.plan = lambda s: plan(child("Deployment"), child("Service"), status={"refused": dict(s.refused)})
    setting.event(FALCON, falcon())
    await setting.work_until(lambda: bool((setting.cache.get(FALCON, KEY) or {}).get("status")))
    assert (setting.cache.get(FALCON, KEY) or {})["status"] == {"refused": {"Service/web": "taken"}}


async def test_events_wait_for_the_status_that_they_are_about(setting: Setting) -> None:
    told = Event("Normal", "Ready", "Serve", "it serves")
    setting.plan = lambda s: plan(status={"turn": len(setting.seen)}, events=(told,) * (len(setting.seen) > 1))
    setting.event(FALCON, falcon())
    await setting.once()
    setting.queue.add(KEY)
    wait = await setting.once()
    assert wait is not None
    assert wait <= 1, "the second status within a second is put off"
    assert setting.events._queue.empty()


async def test_an_error_of_one_resource_stops_neither_the_workers_nor_the_others(setting: Setting) -> None:
    def decide(snapshot: Snapshot) -> Plan:
        if snapshot.resource["metadata"]["name"] == "bad":
            raise ValueError("a bug")
        return plan()

    setting.plan = decide
    setting.event(FALCON, falcon(name="bad"))
    setting.event(FALCON, falcon())
    await setting.work_until(lambda: "FalconNVFP4Deployment/web/status" in setting.api.calls and len(setting.seen) >= 4)
    text = setting.metrics.render().decode()
    assert 'controller_runtime_reconcile_panics_total{controller="falconnvfp4deployment"} 0.0' not in text


async def test_what_the_api_server_cannot_do_now_is_tried_again(setting: Setting) -> None:
    failures = iter([Unavailable(503, "Unavailable", "no")] * 2)
    setting.api.refuse = lambda _: next(failures, None)
    setting.plan = lambda _: plan(child("Deployment"))
    setting.event(FALCON, falcon())
    await setting.work_until(lambda: setting.cache.get(DEPLOYMENT, KEY) is not None)
    assert setting.api.calls[:3] == ["Deployment/web"] * 3


async def test_each_failure_of_an_engine_is_counted_when_it_is_told(setting: Setting) -> None:
    setting.metrics.export_resources(lambda: list(setting.cache.all(FALCON)))
    failure = Event("Warning", "OutOfMemory", ENGINE_FAILURE, "it failed")
    other = Event("Warning", "Unschedulable", "Schedule", "no node")
    told = iter([(failure, other), (), (failure,)])
    setting.plan = lambda _: plan(events=next(told))
    setting.event(FALCON, falcon())
    for _ in range(3):
        setting.queue.add(KEY)
        await setting.once()
    text = setting.metrics.render().decode()
    assert 'falcon_engine_failures_total{name="web",namespace="ns",reason="OutOfMemory"} 2.0' in text
    assert text.count("\nfalcon_engine_failures_total{") == 1


async def test_a_ready_pod_is_asked_when_the_decision_wants_to_know(setting: Setting) -> None:
    asked: list[str] = []
    answer = True

    def want(pod: Json, owner: Key) -> bool:
        asked.append(pod["metadata"]["uid"])
        return answer

    setting.observer.want = want  # type: ignore[assignment,method-assign]
    setting.plan = lambda _: plan(observe=("p1", "unknown"))
    setting.event(FALCON, falcon())
    pod = child("Pod", "web-1")
    setting.event(POD, {**pod, "metadata": {**pod["metadata"], "uid": "p1"}})
    assert await setting.once() == 1, "a status that its answer would change at once is put off"
    assert (asked, setting.api.calls) == (["p1"], [])
    answer = False
    setting.queue.add(KEY)
    await setting.once()
    assert setting.api.calls == ["FalconNVFP4Deployment/web/status"]
    setting.observer.facts["p1"] = EngineFacts("p1", (), None, None, None)
    setting.intake.event(POD, "DELETED", setting.api.objects[POD, ("ns", "web-1")])
    assert setting.gone == ["p1"]


async def test_each_plan_is_told_to_the_autoscaler_and_goes_by_what_it_says(setting: Setting) -> None:
    def watch(replicas: int) -> Watch:
        return Watch(Config(1, 8), Fleet(replicas, 0), gateways=(), engines=())

    setting.decided = Scaling(Decision(3, "More.", "all"), Learned(), 2)
    setting.plan = lambda s: plan(child("Deployment"), autoscale=watch(1 if s.deployment else 0))
    setting.event(FALCON, falcon())
    await setting.once()
    await setting.once()
    assert [snapshot.scaling for snapshot in setting.seen] == [setting.decided] * len(setting.seen)
    assert setting.watched == [watch(0), watch(1)], "with what was just written, too"
    setting.api.refuse = lambda _: Unavailable(503, "ServiceUnavailable", "down")
    setting.plan = lambda s: plan({**child("Deployment"), "spec": {"replicas": 5}}, autoscale=watch(5))
    setting.queue.add(KEY)
    with pytest.raises(ApiError):
        await setting.once()
    assert setting.watched[-1] == watch(5), "whatever becomes of the plan"
    setting.plan = lambda _: plan(child("Deployment"))
    setting.api.refuse = lambda _: None
    setting.queue.add(KEY)
    await setting.once()
    assert setting.watched[-1] is None


async def test_a_resource_that_leaves_is_not_looked_at(setting: Setting) -> None:
    setting.event(FALCON, falcon(deletionTimestamp="2026-01-01T00:00:00Z"))
    await setting.once()
    assert setting.watched == [None]


async def test_costs_are_written_before_the_deployment(setting: Setting) -> None:
    some = Pod(child("Pod", "web-1")), Pod(child("Pod", "web-2"))
    setting.plan = lambda s: plan(child("Deployment"), costs=() if s.deployment else some)
    setting.event(FALCON, falcon())
    await setting.once()
    await setting.once()
    assert setting.api.calls[:2] == ["costs ns/web-1,web-2", "Deployment/web"]
    assert len([call for call in setting.api.calls if call.startswith("costs")]) == 1


async def test_pods_that_are_wanted_again_by_the_time_costs_are_written_stay(setting: Setting) -> None:
    setting.plan = lambda s: plan(
        child("Deployment"), costs=(Pod(child("Pod")),) if s.resource["metadata"]["generation"] == 1 else ()
    )
    setting.while_costs_are_written = lambda: setting.event(FALCON, falcon(generation=2), "MODIFIED")
    setting.event(FALCON, falcon())
    await setting.once()
    assert setting.api.calls == ["costs ns/web"], "what was decided is not carried out"
    await setting.once()
    assert setting.api.calls == ["costs ns/web", "Deployment/web"]
    assert [s.resource["metadata"]["generation"] for s in setting.seen][:2] == [1, 2]


async def test_nothing_happens_for_an_event_that_is_no_news(setting: Setting) -> None:
    setting.event(FALCON, falcon())
    await setting.once()
    setting.intake.event(FALCON, "MODIFIED", setting.api.objects[FALCON, KEY])
    setting.intake.event(SERVICE, "ADDED", {"metadata": {"namespace": "ns", "name": "theirs", "resourceVersion": "1"}})
    assert len(setting.queue) == 0


async def test_a_lost_launcher_concerns_every_resource_of_its_namespace(setting: Setting) -> None:
    setting.event(FALCON, falcon())
    await setting.once()
    launcher = {"kind": "ConfigMap", "metadata": {"name": "falcon-launcher-1", "labels": names.launcher_labels()}}
    setting.event(CONFIG_MAP, launcher)
    assert len(setting.queue) == 0
    setting.intake.event(CONFIG_MAP, "DELETED", setting.api.objects[CONFIG_MAP, ("ns", "falcon-launcher-1")])
    assert await setting.queue.get() == KEY


async def test_a_sweep_finds_what_came_and_what_went(setting: Setting) -> None:
    setting.api.put(FALCON, falcon())
    await setting.sweeper.sync()
    assert setting.cache.synced
    await setting.once()
    setting.event(SERVICE, child("Service"))
    await setting.once()
    del setting.api.objects[SERVICE, KEY]
    await setting.sweeper.sweep(SERVICE)
    assert await setting.queue.get() == KEY
    assert setting.cache.get(SERVICE, KEY) is None


async def test_a_launcher_stays_while_anything_refers_to_it(setting: Setting) -> None:
    def launcher(name: str) -> Json:
        return {"kind": "ConfigMap", "metadata": {"name": name, "labels": names.launcher_labels()}}

    def using(kind: str, name: str, config_map: str) -> Json:
        return {**child(kind, name), "spec": {"template": {"spec": {"volumes": [{"configMap": {"name": config_map}}]}}}}

    for name in ("falcon-launcher-1", "falcon-launcher-2", "falcon-launcher-3", "falcon-launcher-4"):
        setting.event(CONFIG_MAP, launcher(name))
    setting.event(DEPLOYMENT, using("Deployment", "web", "falcon-launcher-2"))
    revision = using("ControllerRevision", "web-1", "falcon-launcher-3")
    setting.event(next(r for r in WATCHED if r.kind == "ControllerRevision"), revision)
    setting.event(FALCON, falcon())
    await setting.sweeper.collect_launchers()
    assert setting.api.calls == ["delete ConfigMap/falcon-launcher-4"]
    assert setting.cache.launchers("ns") == {"falcon-launcher-1", "falcon-launcher-2", "falcon-launcher-3"}
