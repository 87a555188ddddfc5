"""What the operator makes of a resource, and what it does about others who touch it."""

from typing import Any

import pytest
from tests.cluster.conftest import Start
from tests.cluster.world import QUIET_SECONDS, AuditLog, Json, World, steady, wait_for, wait_quiet

from falcon_operator.api import names

pytestmark = pytest.mark.cluster

WRITES_UNTIL_READY = 5
# What is not written for the engines: the gateway and what surrounds both is, once each.
BESIDE = ("events", "controllerrevisions", "configmaps", "-gateway", "poddisruptionbudgets", "networkpolicies")


def controller_of(body: Json) -> Json:
    return next(r for r in body["metadata"]["ownerReferences"] if r.get("controller"))


def test_a_resource_becomes_ready_with_few_writes_and_then_none(world: World, start: Start, audit: AuditLog) -> None:
    start()
    found = world.resource("web")
    ready = world.wait_ready("web")
    assert len([w for w in audit.writes() if not any(what in w for what in BESIDE)]) <= WRITES_UNTIL_READY, (
        audit.writes()
    )
    world.settled("web")
    revision = ready["status"]["revision"]["current"]
    launchers = [name for kind, name in world.children() if kind == "ConfigMap" and name != "web-gateway"]
    assert world.children() == [
        ("ConfigMap", launchers[0]),
        ("ConfigMap", "web-gateway"),
        ("ControllerRevision", f"web-{revision}"),
        ("Deployment", "web"),
        ("Deployment", "web-gateway"),
        ("NetworkPolicy", "web"),
        ("NetworkPolicy", "web-gateway"),
        ("PodDisruptionBudget", "web"),
        ("PodDisruptionBudget", "web-gateway"),
        ("Service", "web"),
        ("Service", "web-engines"),
    ]
    for kind, name in world.children():
        if name not in launchers:
            body = world.get(kind, name)
            assert body is not None
            assert controller_of(body)["uid"] == found["metadata"]["uid"]
    assert "finalizers" not in ready["metadata"]
    assert not ready["metadata"].get("annotations")
    wait_for(lambda: [w for w in audit.writes() if "events" in w], "event that it is ready")
    wait_quiet(audit.writes, QUIET_SECONDS)
    assert all(write.endswith(("200", "201")) for write in audit.writes()), audit.writes()


CHANGES: list[tuple[str, str, Json]] = [
    ("Deployment", "web", {"spec": {"replicas": 3}}),
    ("Deployment", "web", {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}),
    ("Deployment", "web", {"metadata": {"labels": {names.LABEL_UID: "other"}}}),
    ("Deployment", "web", {"metadata": {"annotations": {names.ANNOTATION_APPLIED: None}}}),
    ("Deployment", "web", {"metadata": {"labels": {names.LABEL_MANAGED_BY: None}}}),
    ("Service", "web", {"spec": {"selector": {names.LABEL_INSTANCE: "other"}}}),
    ("Service", "web", {"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 9999}]}}),
    ("Service", "web-engines", {"metadata": {"labels": {names.LABEL_COMPONENT: "other"}}}),
]


@pytest.mark.parametrize(("kind", "name", "patch"), CHANGES, ids=lambda value: str(value)[:60])
def test_what_somebody_else_changes_is_changed_back(
    world: World, start: Start, kind: str, name: str, patch: Json
) -> None:
    start()
    world.resource("web")
    world.settled("web")
    before = world.get(kind, name)
    assert before is not None
    world.merge(kind, name, patch)

    def healed() -> bool:
        now = world.get(kind, name)
        assert now is not None
        return all(now[part] == before[part] for part in ("spec",)) and all(
            now["metadata"].get(part) == before["metadata"].get(part) for part in ("labels", "ownerReferences")
        ) and applied(now) == applied(before)  # fmt: skip

    wait_for(healed, f"healed {kind} {name}")


def applied(body: Json) -> Any:
    return body["metadata"]["annotations"].get(names.ANNOTATION_APPLIED)


def test_a_field_that_nobody_asked_for_stays_with_whoever_set_it(world: World, start: Start, audit: AuditLog) -> None:
    start()
    world.resource("web")
    world.settled("web")
    wait_quiet(audit.writes, QUIET_SECONDS)
    world.merge("Deployment", "web", {"metadata": {"annotations": {"team": "ours"}}})
    world.merge("Service", "web", {"spec": {"sessionAffinity": "ClientIP"}})
    steady(audit.writes, 3)
    service = world.get("Service", "web")
    assert service is not None
    assert service["spec"]["sessionAffinity"] == "ClientIP"


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "web"), ("Service", "web"), ("Service", "web-engines")])
def test_a_deleted_child_comes_back(world: World, start: Start, kind: str, name: str) -> None:
    start()
    world.resource("web")
    world.settled("web")
    before = world.get(kind, name)
    assert before is not None
    world.delete(kind, name)

    def again() -> bool:
        now = world.get(kind, name)
        return now is not None and now["metadata"]["uid"] != before["metadata"]["uid"]

    wait_for(again, f"new {kind} {name}")
    world.wait_ready("web")


def foreign(kind: str) -> Json:
    metadata = {"name": "web", "labels": {"app": "somebody"}}
    if kind == "Service":
        spec: Json = {"selector": {"app": "somebody"}, "ports": [{"port": 80}]}
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}
    pod = {
        "metadata": {"labels": {"app": "somebody"}},
        "spec": {"containers": [{"name": "c", "image": "c"}], "nodeSelector": {"type": "kwok"}},
    }
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": "somebody"}}, "template": pod}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("kind", ["Deployment", "Service"])
def test_somebody_elses_object_of_the_same_name_is_left_alone_and_said_to_be_in_the_way(
    world: World, start: Start, kind: str
) -> None:
    theirs = world.create(foreign(kind))
    start()
    world.resource("web")
    stalled = wait_for(
        lambda: c if (c := world.condition("web", "Stalled")).get("status") == "True" else None, "Stalled"
    )
    assert stalled["reason"] == "NameTaken"
    assert f"{kind} web" in stalled["message"]
    now = world.get(kind, "web")
    assert now is not None
    assert (now["spec"], now["metadata"]["labels"]) == (theirs["spec"], theirs["metadata"]["labels"])
    assert "ownerReferences" not in now["metadata"]
    world.delete(kind, "web")
    world.wait_ready("web", 90)


def test_what_a_quota_refuses_is_said_and_made_once_it_is_raised(world: World, start: Start) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"services": "0"}},
    }
    world.create(quota)
    wait_for(lambda: (world.get("ResourceQuota", "none") or {}).get("status", {}).get("hard"), "quota in force")
    start()
    world.resource("web")
    stalled = wait_for(
        lambda: c if (c := world.condition("web", "Stalled")).get("status") == "True" else None, "Stalled"
    )
    assert stalled["reason"] == "Refused"
    assert "exceeded quota" in stalled["message"]
    world.delete("ResourceQuota", "none")
    world.wait_ready("web", 90)
    wait_for(lambda: world.condition("web", "Stalled").get("status") == "False", "end of Stalled")
