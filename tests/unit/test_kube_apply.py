import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falcon_operator.kube.apply import applied_hash, controller_uid, differences

CONTAINER = {
    "name": "engine",
    "image": "falcon:1",
    "args": ["serve"],
    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
    "resources": {"requests": {"cpu": "2", "memory": "12Gi"}, "limits": {"nvidia.com/gpu": 1}},
}
DESIRED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "ns", "labels": {"a": "b"}},
    "spec": {
        "replicas": 1,
        "template": {
            "spec": {
                "containers": [CONTAINER],
                "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "shm", "emptyDir": {"sizeLimit": "1Gi"}}],
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                "hostNetwork": False,
            }
        },
    },
}


def live() -> dict[str, Any]:
    """The same object as the API server stores it: with its defaults and its own forms of values."""
    body = copy.deepcopy(DESIRED)
    body["metadata"] |= {"uid": "u", "resourceVersion": "7"}
    body["spec"] |= {"revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}
    pod = body["spec"]["template"]["spec"]
    pod |= {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}
    del pod["hostNetwork"]
    pod["containers"][0] |= {"terminationMessagePath": "/dev/termination-log"}
    pod["containers"][0]["resources"] = {
        "requests": {"cpu": "2000m", "memory": "12288Mi"},
        "limits": {"nvidia.com/gpu": "1"},
    }
    pod["volumes"][1]["emptyDir"]["sizeLimit"] = "1024Mi"
    body["status"] = {"replicas": 1}
    return body


def pod_of(body: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = body["spec"]["template"]["spec"]
    return spec


def test_defaults_and_other_forms_of_a_quantity_are_no_difference() -> None:
    assert differences(DESIRED, live()) == frozenset()


def test_each_changed_field_is_named() -> None:
    body = live()
    body["spec"]["replicas"] = 4
    body["metadata"]["labels"] = {"a": "c"}
    pod_of(body)["containers"][0]["image"] = "other"
    pod_of(body)["containers"][0]["resources"]["requests"]["cpu"] = "3"
    assert differences(DESIRED, body) == {
        ".spec.replicas",
        ".metadata.labels.a",
        ".spec.template.spec.containers[engine].image",
        ".spec.template.spec.containers[engine].resources.requests.cpu",
    }


def test_a_list_with_keys_is_compared_by_key_and_may_hold_more() -> None:
    body = live()
    container = pod_of(body)["containers"][0]
    pod_of(body)["containers"].insert(0, {"name": "injected"})
    container["env"] = [{"name": "C", "value": "3"}, *reversed(container["env"])]
    assert differences(DESIRED, body) == frozenset()
    container["env"] = [item for item in container["env"] if item["name"] != "B"]
    assert differences(DESIRED, body) == {".spec.template.spec.containers[engine].env[B]"}


def test_other_lists_are_compared_as_a_whole() -> None:
    body = live()
    pod_of(body)["tolerations"].append({"operator": "Exists"})
    pod_of(body)["containers"][0]["args"] = ["serve", "--more"]
    assert differences(DESIRED, body) == {
        ".spec.template.spec.tolerations",
        ".spec.template.spec.containers[engine].args",
    }


@pytest.mark.parametrize(("desired", "stored"), [({}, None), ([], None), (False, None), ("", None), (0, None)])
def test_empty_values_are_not_stored(desired: Any, stored: Any) -> None:
    assert differences({"field": desired}, {} if stored is None else {"field": stored}) == frozenset()


@pytest.mark.parametrize(
    ("desired", "stored"),
    [(True, None), ("x", None), ({"a": 1}, None), ([1], None), ({}, [1]), ([], {"a": 1}), (1, "1")],
)
def test_what_is_missing_or_of_another_type_is_a_difference(desired: Any, stored: Any) -> None:
    assert differences({"field": desired}, {} if stored is None else {"field": stored}) == {".field"}


JSON = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=2), JSON, max_size=4))
def test_an_object_holds_itself_whatever_is_added_beside(body: dict[str, Any]) -> None:
    assert differences(body, {**copy.deepcopy(body), "added": 1}) == frozenset()


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=2), st.integers(1, 9), min_size=1, max_size=4), st.data())
def test_a_change_anywhere_is_found(body: dict[str, int], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(body)))
    assert differences({"spec": body}, {"spec": {**body, key: body[key] + 1}}) == {f".spec.{key}"}


def test_hash_and_controller_are_read_from_where_they_are() -> None:
    body = {
        "metadata": {
            "annotations": {"serving.falcon-operator.io/applied": "abc"},
            "ownerReferences": [{"uid": "a"}, {"uid": "b", "controller": True}],
        }
    }
    assert (applied_hash(body), controller_uid(body)) == ("abc", "b")
    assert (applied_hash({"metadata": {}}), controller_uid({"metadata": {}})) == (None, None)
