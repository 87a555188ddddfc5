"""Edits, deletions and restarts: what is there at the end depends on the spec alone."""

import pytest
from tests.cluster.conftest import Start
from tests.cluster.world import QUIET_SECONDS, AuditLog, World, steady, wait_for, wait_quiet

from falcon_operator.api import names

pytestmark = pytest.mark.cluster


def intent(world: World, name: str = "web") -> str:
    """What the engine is told, as its Deployment has it."""
    body = world.get("Deployment", name)
    if body is None:
        return ""
    (container,) = body["spec"]["template"]["spec"]["containers"]
    value: str = next(item["value"] for item in container["env"] if item["name"] == "FALCON_INTENT")
    return value


def nothing_left(world: World) -> bool:
    """Nothing that belongs to a resource; the launcher stays until a sweep."""
    return [child for child in world.children() if not child[1].startswith("falcon-launcher-")] == []


def test_a_restart_writes_nothing(world: World, start: Start, audit: AuditLog) -> None:
    first = start()
    for name in ("one", "two", "three"):
        world.resource(name)
    for name in ("one", "two", "three"):
        world.wait_ready(name)
    before = wait_quiet(audit.writes, QUIET_SECONDS)
    first.kill()
    again = start()
    wait_for(lambda: again.metric("controller_runtime_reconcile_total", result="success") >= 3, "three reconciliations")
    steady(audit.writes, 4)
    assert audit.writes() == before


def test_sigterm_ends_it_at_once_and_well(world: World, start: Start) -> None:
    operator = start()
    world.resource("web")
    world.settled("web")
    assert operator.stop() == 0
    assert "Traceback" not in operator.tail(200)


def test_a_resource_that_is_deleted_while_the_operator_is_down_leaves_nothing(world: World, start: Start) -> None:
    operator = start()
    world.resource("web")
    world.settled("web")
    operator.stop()
    world.delete(names.KIND, "web")
    wait_for(lambda: world.get(names.KIND, "web") is None, "end of the resource: nobody holds it", 10)
    wait_for(lambda: nothing_left(world), "end of its children", 90)
    start()
    steady(lambda: nothing_left(world), 3)


def test_two_edits_in_a_row_end_in_the_second(world: World, start: Start) -> None:
    start()
    world.resource("web")
    world.wait_ready("web")
    world.resource("web", {"engine": {"maxModelLen": 4096}})
    world.resource("web", {"engine": {"maxModelLen": 8192}})
    wait_for(lambda: '"maxModelLen":8192' in intent(world), "the second edit")
    ready = world.wait_ready("web")
    assert ready["status"]["observedGeneration"] == 3
    assert '"maxModelLen":8192' in intent(world)


def test_edits_made_while_the_operator_is_down_are_found(world: World, start: Start) -> None:
    operator = start()
    world.resource("web")
    world.wait_ready("web")
    operator.kill()
    world.resource("web", {"engine": {"maxModelLen": 4096}, "replicas": 2})
    world.merge("Service", "web", {"spec": {"selector": {names.LABEL_INSTANCE: "other"}}})
    start()
    ready = world.wait_ready("web")
    assert ready["status"]["readyReplicas"] == 2
    assert '"maxModelLen":4096' in intent(world)
    service = world.get("Service", "web")
    assert service is not None
    assert service["spec"]["selector"][names.LABEL_INSTANCE] == "web"


def test_a_resource_that_is_made_again_at_once_gets_children_of_its_own(world: World, start: Start) -> None:
    start()
    first = world.resource("web")
    world.settled("web")
    world.delete(names.KIND, "web")
    second = world.resource("web")
    assert first["metadata"]["uid"] != second["metadata"]["uid"]

    def owners() -> set[str]:
        return {
            reference["uid"]
            for kind, name in world.children()
            for reference in (world.get(kind, name) or {"metadata": {}})["metadata"].get("ownerReferences", ())
        }

    wait_for(lambda: owners() == {second["metadata"]["uid"]} and world.is_ready("web"), "children of the new one", 120)


def test_orphans_are_taken_over_by_a_resource_of_the_same_name(world: World, start: Start) -> None:
    start()
    world.resource("web")
    world.settled("web")
    before = world.get("Deployment", "web")
    assert before is not None
    world.delete(names.KIND, "web", propagationPolicy="Orphan")
    wait_for(lambda: world.get(names.KIND, "web") is None, "end of the resource")
    second = world.resource("web")
    world.wait_ready("web")
    after = world.get("Deployment", "web")
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"], "the engines kept running"
    assert [r["uid"] for r in after["metadata"]["ownerReferences"]] == [second["metadata"]["uid"]]


def test_a_spec_that_is_not_acted_on_says_so_and_its_correction_is_enough(world: World, start: Start) -> None:
    start()
    world.resource("web", {"monitoring": {"podMonitor": "Off"}})
    stalled = wait_for(
        lambda: c if (c := world.condition("web", "Stalled")).get("status") == "True" else None, "Stalled"
    )
    assert stalled["reason"] == "NotYetImplemented"
    assert "spec.monitoring.podMonitor" in stalled["message"]
    assert world.get("Deployment", "web") is None
    world.merge(names.KIND, "web", {"spec": {"monitoring": None}})
    world.wait_ready("web")
    assert world.condition("web", "Stalled")["status"] == "False"


def test_a_bad_edit_leaves_what_runs_and_taking_it_back_restores_everything(world: World, start: Start) -> None:
    start()
    world.resource("web")
    world.settled("web")
    before = world.get("Deployment", "web")
    assert before is not None
    world.merge(names.KIND, "web", {"spec": {"monitoring": {"podMonitor": "Off"}}})
    wait_for(lambda: world.condition("web", "Stalled").get("status") == "True", "Stalled")
    held = world.get("Deployment", "web")
    assert held is not None
    assert held["spec"] == before["spec"]
    world.merge(names.KIND, "web", {"spec": {"monitoring": None}})
    world.wait_ready("web")
    after = world.get("Deployment", "web")
    assert after is not None
    assert after["spec"] == before["spec"]


def test_an_operator_of_one_namespace_leaves_the_others_alone(world: World, start: Start) -> None:
    start()
    other = World(world.client, "default")
    other.resource("not-ours")
    try:
        world.resource("web")
        world.wait_ready("web")
        assert other.get("Deployment", "not-ours") is None
    finally:
        other.delete(names.KIND, "not-ours")


def test_a_launcher_that_nothing_refers_to_is_deleted(world: World, start: Start) -> None:
    start("--sweep-seconds", "2")
    world.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "falcon-launcher-0123456789", "labels": names.launcher_labels()},
            "data": {"old": "yes"},
        }
    )
    world.resource("web")
    world.settled("web")
    wait_for(lambda: world.get("ConfigMap", "falcon-launcher-0123456789") is None, "end of the old launcher")
    launchers = [name for _, name in world.children() if name.startswith("falcon-launcher-")]
    assert len(launchers) == 1, "the one in use stays"
    world.delete(names.KIND, "web")
    wait_for(lambda: world.children() == [], "end of everything, the launcher too", 90)


def test_endpoints_and_series_come_and_go_with_what_they_describe(world: World, start: Start) -> None:
    operator = start()
    health = operator.answer("/healthz")
    assert health is not None
    assert (health.status_code, health.text) == (200, "ok\n")
    series = {"namespace": world.namespace, "name": "web"}
    assert operator.metric("falcon_deployment_replicas", **series) == 0
    world.resource("web")
    world.wait_ready("web")
    assert operator.metric("falcon_deployment_replicas", state="ready", **series) == 1
    assert operator.metric("falcon_deployment_condition", type="Ready", status="True", **series) == 1
    assert operator.metric("falcon_operator_info") == 1
    assert operator.metric("rest_client_requests_total", method="PATCH") >= 5
    assert operator.metric("workqueue_adds_total") >= 1
    world.delete(names.KIND, "web")
    wait_for(lambda: operator.metric("falcon_deployment_condition", **series) == 0, "end of the resource's series")
