import asyncio
import copy
from typing import Any, cast

import pytest

from falcon_operator.api import names
from falcon_operator.decide.types import ObjectRef
from falcon_operator.desired.metadata import stamped
from falcon_operator.kube.client import KubeClient
from falcon_operator.kube.errors import ApiError, Conflict, Forbidden, Invalid, NotFound, Unavailable
from falcon_operator.kube.limiter import Limiter
from falcon_operator.kube.resources import CLAIM, CONFIG_MAP, DEPLOYMENT, FALCON, SERVICE, Resource
from falcon_operator.runtime.cache import Cache
from falcon_operator.runtime.executor import Executor, Outcome
from falcon_operator.runtime.status import StatusWriter
from falcon_operator.telemetry.metrics import Metrics

OWNER = ("ns", "web")
UID = "u1"
Json = dict[str, Any]


class FakeApi:
    """The part of the API server that the executor meets: apply, get and delete, with versions and conflicts."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Resource, str], Json] = {}
        self.calls: list[str] = []
        self.refusal: ApiError | None = None
        self.version = 100

    async def apply(
        self, resource: Resource, body: Json, manager: str, *, force: bool = False, subresource: str | None = None
    ) -> Json:
        name = body["metadata"]["name"]
        self.calls.append(f"apply {resource.kind}/{name}" + (" force" if force else ""))
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        live = self.objects.get((resource, name))
        if live is not None and live.get("foreign") and not force:
            raise Conflict(409, "Conflict", f'conflict with "somebody" over {resource.kind} {name}')
        self.version += 1
        stored = {**copy.deepcopy(live or {}), **copy.deepcopy(body)}
        stored["metadata"] = {"uid": f"{resource.kind}-uid", **(live or {"metadata": {}})["metadata"],
                              **stored["metadata"], "resourceVersion": str(self.version)}  # fmt: skip
        self.objects[resource, name] = stored
        return stored

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        self.calls.append(f"get {resource.kind}/{name}")
        if (resource, name) not in self.objects:
            raise NotFound(404, "NotFound", "no")
        return self.objects[resource, name]

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        self.calls.append(f"delete {resource.kind}/{name} {uid}")
        if self.refusal is not None:
            raise self.refusal


class Setting:
    def __init__(self) -> None:
        self.api, self.cache = FakeApi(), Cache()
        client = cast(KubeClient, self.api)
        self.executor = Executor(client, self.cache, Metrics(), heals=Limiter(2, 1000))
        self.status = StatusWriter(client, self.cache, Metrics())

    async def apply(self, body: Json, uid: str = UID) -> Outcome:
        return await self.executor.apply(OWNER, uid, body)


@pytest.fixture
def setting() -> Setting:
    return Setting()


def child(resource: Resource = DEPLOYMENT, uid: str = UID, **spec: Any) -> Json:
    reference = {"uid": uid, "controller": True, "kind": names.KIND, "name": "web"}
    return stamped(
        {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {
                "namespace": "ns",
                "name": "web",
                "labels": names.child_labels("web", uid),
                "annotations": {},
                "ownerReferences": [reference],
            },
            "spec": spec or {"replicas": 1},
        }
    )


def seen(setting: Setting, body: Json, version: int, **more: Any) -> None:
    """An event that shows an object."""
    metadata = {**body["metadata"], "resourceVersion": str(version), **more}
    resource = {"Deployment": DEPLOYMENT, "Service": SERVICE}[body["kind"]]
    setting.cache.upsert(resource, {**body, "metadata": metadata})


async def test_what_is_missing_is_written_without_force_and_only_once(setting: Setting) -> None:
    assert await setting.apply(child()) is Outcome.WRITTEN
    assert await setting.apply(child()) is Outcome.UNCHANGED
    assert setting.api.calls == ["apply Deployment/web"]


async def test_a_new_wish_and_a_changed_field_are_written_with_force(setting: Setting) -> None:
    await setting.apply(child())
    assert await setting.apply(child(replicas=2)) is Outcome.WRITTEN
    live = setting.api.objects[DEPLOYMENT, "web"]
    seen(setting, {**live, "spec": {"replicas": 7}}, 500)
    assert await setting.apply(child(replicas=2)) is Outcome.WRITTEN
    assert setting.api.calls == ["apply Deployment/web", *["apply Deployment/web force"] * 2]


async def test_a_config_map_is_compared_with_what_the_cache_keeps_of_it(setting: Setting) -> None:
    body = stamped({**child(CONFIG_MAP), "data": {"haproxy.cfg": "global"}})
    assert await setting.apply(body) is Outcome.WRITTEN
    assert await setting.apply(body) is Outcome.UNCHANGED
    live = setting.api.objects[CONFIG_MAP, "web"]
    metadata = {**live["metadata"], "resourceVersion": "500"}
    setting.cache.upsert(CONFIG_MAP, {**live, "metadata": metadata, "data": {"haproxy.cfg": "other"}})
    assert await setting.apply(body) is Outcome.WRITTEN
    assert setting.api.calls == ["apply ConfigMap/web", "apply ConfigMap/web force"]


async def test_a_value_that_the_api_server_stores_in_another_form_is_no_reason_to_write_again(setting: Setting) -> None:
    body = child(replicas=1, note="ABC")
    await setting.apply(body)
    live = setting.api.objects[DEPLOYMENT, "web"]
    live["spec"]["note"] = "abc"
    seen(setting, live, 500)
    original = setting.api.apply

    async def normalising(*args: Any, **more: Any) -> Json:
        stored = await original(*args, **more)
        stored["spec"]["note"] = "abc"
        stored["metadata"]["resourceVersion"] = "900"
        return stored

    setting.api.apply = normalising  # type: ignore[method-assign]
    assert await setting.apply(body) is Outcome.WRITTEN
    assert await setting.apply(body) is Outcome.UNCHANGED
    seen(setting, {**live, "spec": {"note": "abc", "replicas": 9}}, 1000)
    assert await setting.apply(body) is Outcome.WRITTEN, "another field is another matter"


async def test_a_fight_over_a_field_cools_down(setting: Setting) -> None:
    await setting.apply(child())
    outcomes = []
    for version in range(500, 505):
        seen(setting, {**setting.api.objects[DEPLOYMENT, "web"], "spec": {"replicas": 7}}, version)
        outcomes.append(await setting.apply(child()))
        setting.api.version = version
    assert outcomes == [Outcome.WRITTEN, Outcome.WRITTEN, Outcome.WAITING, Outcome.WAITING, Outcome.WAITING]


async def test_what_an_earlier_resource_left_behind_is_not_touched(setting: Setting) -> None:
    seen(setting, child(uid="old"), 50, uid="x")
    assert await setting.apply(child()) is Outcome.WAITING
    assert setting.api.calls == []


async def test_what_is_being_deleted_is_not_touched(setting: Setting) -> None:
    seen(setting, child(), 50, uid="x", deletionTimestamp="2026-01-01T00:00:00Z")
    assert await setting.apply(child()) is Outcome.WAITING
    assert setting.api.calls == []


async def test_an_orphan_is_taken_over_without_force(setting: Setting) -> None:
    seen(setting, {**child(), "metadata": {**child()["metadata"], "ownerReferences": []}}, 50, uid="x")
    assert await setting.apply(child()) is Outcome.WRITTEN
    assert setting.api.calls == ["apply Deployment/web"]


async def test_a_strangers_object_is_left_alone_and_named(setting: Setting) -> None:
    setting.api.objects[SERVICE, "web"] = {"metadata": {"uid": "s"}, "foreign": True}
    assert await setting.apply(child(SERVICE)) is Outcome.REFUSED
    assert setting.executor.refused(OWNER) == {"Service/web": 'conflict with "somebody" over Service web'}
    assert setting.api.calls == ["apply Service/web", "get Service/web"]
    del setting.api.objects[SERVICE, "web"]
    assert await setting.apply(child(SERVICE)) is Outcome.WRITTEN
    assert setting.executor.refused(OWNER) == {}


async def test_one_of_ours_that_lost_its_label_is_recognised_by_its_owner(setting: Setting) -> None:
    live = {**child(SERVICE), "foreign": True}
    live["metadata"] = {**live["metadata"], "uid": "s", "resourceVersion": "50", "labels": {}}
    setting.api.objects[SERVICE, "web"] = live
    assert await setting.apply(child(SERVICE)) is Outcome.WRITTEN
    assert setting.api.calls == ["apply Service/web", "get Service/web", "apply Service/web force"]


async def test_a_claim_is_looked_for_before_it_is_made(setting: Setting) -> None:
    setting.api.objects[CLAIM, "web"] = {"metadata": {"uid": "c"}}
    assert await setting.apply(child(CLAIM)) is Outcome.REFUSED
    assert setting.api.calls == ["get PersistentVolumeClaim/web"]
    del setting.api.objects[CLAIM, "web"]
    assert await setting.apply(child(CLAIM)) is Outcome.WRITTEN


@pytest.mark.parametrize("error", [Invalid(422, "Invalid", "replicas is odd"), Forbidden(403, "Forbidden", "quota")])
async def test_a_refusal_is_kept_until_it_passes(setting: Setting, error: ApiError) -> None:
    setting.api.refusal = error
    assert await setting.apply(child()) is Outcome.REFUSED
    assert setting.executor.refused(OWNER) == {"Deployment/web": error.message}
    setting.api.refusal = None
    assert await setting.apply(child()) is Outcome.WRITTEN
    assert setting.executor.refused(OWNER) == {}
    setting.api.refusal = error
    await setting.apply(child(replicas=3))
    setting.executor.forget(OWNER)
    assert setting.executor.refused(OWNER) == {}


async def test_what_passes_by_itself_is_the_callers_to_repeat(setting: Setting) -> None:
    setting.api.refusal = Unavailable(503, "Unavailable", "no")
    with pytest.raises(Unavailable):
        await setting.apply(child())
    assert setting.executor.refused(OWNER) == {}


async def test_a_launcher_is_written_once_for_all_who_ask_at_once(setting: Setting) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": "ns", "name": "falcon-launcher-1", "labels": names.launcher_labels()},
    }
    outcomes = await asyncio.gather(*(setting.executor.apply(("ns", f"r{n}"), "u", body) for n in range(5)))
    assert set(outcomes) == {Outcome.WRITTEN}
    assert await setting.apply(body) is Outcome.UNCHANGED
    assert setting.api.calls == ["apply ConfigMap/falcon-launcher-1"]
    assert setting.cache.get(CONFIG_MAP, ("ns", "falcon-launcher-1")) is not None


async def test_deleting_names_the_incarnation_and_what_is_gone_is_well(setting: Setting) -> None:
    reference = ObjectRef("apps/v1", "Deployment", "ns", "web", "x")
    seen(setting, child(), 50, uid="x")
    await setting.executor.delete(reference)
    assert setting.api.calls == ["delete Deployment/web x"]
    assert setting.cache.get(DEPLOYMENT, OWNER) is None
    setting.api.refusal = NotFound(404, "NotFound", "gone")
    await setting.executor.delete(reference)
    seen(setting, child(), 70, uid="y", deletionTimestamp="now")
    await setting.executor.delete(ObjectRef("apps/v1", "Deployment", "ns", "web", "y"))
    assert len(setting.api.calls) == 2, "what is being deleted is not deleted again"


def falcon(status: Json | None = None, version: int = 50) -> Json:
    metadata = {"namespace": "ns", "name": "web", "uid": UID, "resourceVersion": str(version)}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": metadata, "status": status or {}}


async def test_a_status_is_written_on_change_and_at_most_once_a_second(setting: Setting) -> None:
    resource = falcon()
    assert setting.status.differs(resource, {"replicas": 1, "left": None})
    assert await setting.status.write(resource, {"replicas": 1, "left": None}) == 0
    stored = setting.cache.get(FALCON, OWNER)
    assert stored is not None
    assert stored["status"] == {"replicas": 1}
    assert not setting.status.differs(stored, {"replicas": 1})
    assert setting.status.differs(stored, {"replicas": 2})
    assert 0 < await setting.status.write(stored, {"replicas": 2}) <= 1
    assert setting.api.calls == ["apply FalconNVFP4Deployment/web force"]


async def test_a_status_that_is_stored_in_another_form_is_written_once(setting: Setting) -> None:
    original = setting.api.apply

    async def pruning(*args: Any, **more: Any) -> Json:
        stored = await original(*args, **more)
        stored["status"].pop("unknown")
        return stored

    setting.api.apply = pruning  # type: ignore[method-assign]
    wanted = {"replicas": 1, "unknown": "field"}
    await setting.status.write(falcon(), wanted)
    stored = setting.cache.get(FALCON, OWNER)
    assert stored is not None
    assert not setting.status.differs(stored, wanted)
    assert setting.status.differs({**stored, "status": {"replicas": 5}}, wanted), "somebody changed it"


@pytest.mark.parametrize("error", [NotFound(404, "NotFound", "gone"), Conflict(409, "Conflict", "another uid")])
async def test_the_status_of_a_resource_that_is_gone_is_nobodys(setting: Setting, error: ApiError) -> None:
    setting.api.refusal = error
    assert await setting.status.write(falcon(), {"replicas": 1}) == 0
