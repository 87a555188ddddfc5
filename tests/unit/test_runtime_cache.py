from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from falcon_operator.api import names
from falcon_operator.kube.resources import CONFIG_MAP, DEPLOYMENT, FALCON, HTTP_ROUTE, POD, SERVICE, WATCHED
from falcon_operator.runtime.cache import Cache, owner_of

KEY = ("ns", "web")


def falcon(version: int, uid: str = "u1") -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"namespace": "ns", "name": "web", "uid": uid, "resourceVersion": str(version)},
    }


def child(kind: str, name: str, version: int = 1, uid: str | None = None, owner: str = "web") -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {
            "namespace": "ns",
            "name": name,
            "uid": uid or f"{kind}-{name}",
            "resourceVersion": str(version),
            "labels": names.child_labels(owner, "u1"),
        },
    }


def launcher(name: str) -> dict[str, Any]:
    return {
        "kind": "ConfigMap",
        "metadata": {
            "namespace": "ns",
            "name": name,
            "uid": name,
            "resourceVersion": "1",
            "labels": names.launcher_labels(),
        },
        "binaryData": {"launch.pyz": "x" * 1000},
    }


def version(cache: Cache) -> str | None:
    body = cache.get(FALCON, KEY)
    return body["metadata"]["resourceVersion"] if body else None


def test_only_a_newer_version_is_news() -> None:
    cache = Cache()
    assert cache.upsert(FALCON, falcon(5))
    assert not cache.upsert(FALCON, falcon(5))
    assert not cache.upsert(FALCON, falcon(4))
    assert cache.upsert(FALCON, falcon(12))
    assert version(cache) == "12"


def test_a_late_event_does_not_bring_back_what_was_deleted() -> None:
    cache = Cache()
    cache.upsert(FALCON, falcon(5))
    assert cache.delete(FALCON, falcon(7))
    assert not cache.upsert(FALCON, falcon(6))
    assert version(cache) is None


def test_an_object_that_only_lost_its_label_can_come_back() -> None:
    cache = Cache()
    cache.upsert(DEPLOYMENT, child("Deployment", "web", 5))
    cache.delete(DEPLOYMENT, child("Deployment", "web", 6))
    assert cache.upsert(DEPLOYMENT, child("Deployment", "web", 7))
    assert cache.get(DEPLOYMENT, KEY) is not None


def test_the_deletion_of_an_earlier_object_leaves_the_later_one_of_the_same_name() -> None:
    cache = Cache()
    cache.upsert(FALCON, falcon(5, "old"))
    cache.upsert(FALCON, falcon(9, "new"))
    assert not cache.delete(FALCON, falcon(8, "old"))
    assert version(cache) == "9"


def test_children_are_found_through_their_labels() -> None:
    cache = Cache()
    cache.upsert(DEPLOYMENT, child("Deployment", "web"))
    cache.upsert(SERVICE, child("Service", "web-engines"))
    cache.upsert(SERVICE, child("Service", "other", owner="other"))
    assert sorted(body["metadata"]["name"] for _, body in cache.children(KEY)) == ["web", "web-engines"]
    cache.delete(SERVICE, child("Service", "web-engines", 2))
    assert [kind for kind, _ in cache.children(KEY)] == [DEPLOYMENT]


def test_somebody_elses_object_belongs_to_nobody() -> None:
    body = child("Service", "web")
    del body["metadata"]["labels"][names.LABEL_MANAGED_BY]
    assert owner_of(SERVICE, body) is None


def test_launchers_are_known_by_name_only() -> None:
    cache = Cache()
    cache.upsert(CONFIG_MAP, launcher("falcon-launcher-1"))
    assert cache.launchers("ns") == {"falcon-launcher-1"}
    assert cache.launchers("elsewhere") == frozenset()
    stored = cache.get(CONFIG_MAP, ("ns", "falcon-launcher-1"))
    assert stored is not None
    assert "binaryData" not in stored
    cache.delete(CONFIG_MAP, launcher("falcon-launcher-1"))
    assert cache.launchers("ns") == frozenset()


def test_a_config_map_of_a_resource_is_known_by_its_hashes() -> None:
    cache = Cache()
    body = {**child("ConfigMap", "web-gateway"), "data": {"haproxy.cfg": "x" * 1000}}
    assert cache.upsert(CONFIG_MAP, body)
    assert cache.launchers("ns") == frozenset()
    stored = cache.get(CONFIG_MAP, ("ns", "web-gateway"))
    assert stored is not None
    assert len(stored["data"]["haproxy.cfg"]) < 20
    assert [found for _, found in cache.children(KEY)] == [stored]


def test_a_kind_that_is_no_longer_known_leaves_no_children_behind() -> None:
    cache = Cache()
    cache.upsert(HTTP_ROUTE, child("HTTPRoute", "web"))
    cache.refuse(HTTP_ROUTE)
    assert list(cache.children(KEY)) == []


def test_what_only_costs_memory_is_left_out() -> None:
    cache = Cache()
    body = falcon(1)
    body["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    body["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "yes"}
    cache.upsert(FALCON, body)
    stored = cache.get(FALCON, KEY)
    assert stored is not None
    assert "managedFields" not in stored["metadata"]
    assert stored["metadata"]["annotations"] == {"kept": "yes"}
    assert "managedFields" in body["metadata"], "the caller's object must not change"


def test_a_pod_keeps_what_decisions_look_at() -> None:
    cache = Cache()
    pod = child("Pod", "web-1")
    pod["spec"] = {
        "nodeName": "n1",
        "volumes": [{"name": "cache"}],
        "containers": [{"name": "engine", "image": "i", "env": [{"name": "A", "value": "b"}]}],
    }
    pod["status"] = {"phase": "Running"}
    cache.upsert(POD, pod)
    stored = cache.get(POD, ("ns", "web-1"))
    assert stored is not None
    assert stored["spec"] == {"nodeName": "n1", "containers": [{"name": "engine", "image": "i"}]}
    assert stored["status"] == {"phase": "Running"}


def test_synced_when_each_kind_was_listed() -> None:
    cache = Cache()
    for resource in WATCHED:
        assert not cache.synced
        cache.replace(resource, [], {})
    assert cache.synced


def test_a_list_drops_ghosts_and_reports_news() -> None:
    cache = Cache()
    cache.upsert(SERVICE, child("Service", "ghost"))
    cache.upsert(SERVICE, child("Service", "same"))
    cache.upsert(SERVICE, child("Service", "moved", 1))
    news, gone = cache.replace(
        SERVICE,
        [child("Service", "same"), child("Service", "moved", 3), child("Service", "new")],
        cache.versions(SERVICE),
    )
    assert sorted(body["metadata"]["name"] for body in news) == ["moved", "new"]
    assert [body["metadata"]["name"] for body in gone] == ["ghost"]


def test_what_came_after_the_list_was_asked_for_is_newer_than_the_list() -> None:
    cache = Cache()
    cache.upsert(SERVICE, child("Service", "moved", 1))
    before = cache.versions(SERVICE)
    cache.upsert(SERVICE, child("Service", "moved", 9))
    cache.upsert(SERVICE, child("Service", "born", 8))
    news, gone = cache.replace(SERVICE, [child("Service", "moved", 3)], before)
    assert (news, gone) == ([], [])
    assert sorted(cache.keys(SERVICE)) == [("ns", "born"), ("ns", "moved")]
    assert cache.versions(SERVICE)["ns", "moved"] == 9


def test_a_list_wins_with_a_lower_version_after_a_restore_of_the_store() -> None:
    cache = Cache()
    cache.upsert(SERVICE, child("Service", "web", 900))
    news, _ = cache.replace(SERVICE, [child("Service", "web", 20)], cache.versions(SERVICE))
    assert len(news) == 1
    assert cache.versions(SERVICE)["ns", "web"] == 20


# One object's history as the API server knows it: each step is a new version; None is a deletion.
HISTORY = st.lists(st.booleans(), min_size=1, max_size=8)


@given(HISTORY, st.randoms(use_true_random=False))
def test_events_in_any_order_end_in_the_same_state(steps: list[bool], random: Any) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    incarnation, alive = 0, False
    for number, exists in enumerate(steps, 1):
        if exists:
            incarnation += not alive
            events.append(("MODIFIED", falcon(number, f"u{incarnation}")))
        elif alive:
            events.append(("DELETED", falcon(number, f"u{incarnation}")))
        alive = exists
    doubled = events + random.sample(events, len(events) // 2)
    random.shuffle(doubled)
    cache = Cache()
    for kind, body in doubled:
        if kind == "DELETED":
            cache.delete(FALCON, body)
        else:
            cache.upsert(FALCON, body)
    expected = None
    if events and events[-1][0] == "MODIFIED":
        expected = events[-1][1]["metadata"]["resourceVersion"]
    assert version(cache) == expected
