"""A scale-down takes the pod with the least to lose, and writes nothing that is so already."""

import functools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.world import Json, World, conditions, copied

from falcon_operator.decide.deletion_cost import UNKNOWN_COST, changes, cost, due

LOADS = st.dictionaries(st.text("abc", min_size=1), st.none() | st.integers(0, 5000).map(float), max_size=6)
ANNOTATED = st.dictionaries(st.text("abc", min_size=1), st.integers(0, 5000).map(str) | st.just("?"), max_size=6)


@given(LOADS, ANNOTATED)
def test_the_emptiest_pod_is_cheapest_and_a_second_look_writes_nothing(
    loads: dict[str, float | None], annotated: dict[str, str]
) -> None:
    wrote = changes(loads, annotated)
    after = {**annotated, **wrote}
    assert set(wrote) <= set(loads)
    assert all(annotated.get(pod, "0") != value for pod, value in wrote.items())
    assert not changes(loads, after)
    by_cost = sorted(loads, key=lambda pod: (int(after.get(pod, "0")), pod))
    assert by_cost == sorted(loads, key=lambda pod: (math.inf if (load := loads[pod]) is None else load, pod))


@pytest.mark.parametrize("load", [None, math.nan, math.inf, -1.0, 2.0**31, 1e300])
def test_a_load_that_is_not_known_or_not_sensible_counts_as_busy(load: float | None) -> None:
    assert cost(load) == UNKNOWN_COST == 2147483647


@given(st.integers(0, 8), st.integers(0, 8))
def test_nothing_is_due_unless_pods_go(wanted: int, live: int) -> None:
    assert due(wanted, live) == (live - wanted > 0 and wanted > 0)


@functools.cache
def served(replicas: int) -> World:
    return World(spec={"replicas": replicas}).serve()


def serving(replicas: int) -> World:
    """A world of one's own, which takes long to make."""
    return copied(served(replicas))


def asked(w: World) -> list[str]:
    return [pod.name for pod in w.plan().costs]


@given(wanted=st.integers(0, 5), live=st.integers(0, 5), suspend=st.booleans())
def test_pods_are_asked_only_before_some_of_them_go(wanted: int, live: int, suspend: bool) -> None:
    w = serving(live)
    assert asked(w) == [], "nothing goes"
    w.change({"replicas": wanted, "suspend": suspend})
    some_go = 0 < wanted < live and not suspend
    assert asked(w) == ([f"demo-{n}" for n in range(1, live + 1)] if some_go else [])
    w.step()
    assert asked(w) == [], "the Deployment is lowered: it is decided"


def test_only_ready_pods_are_asked_and_only_where_there_is_a_choice() -> None:
    w = serving(3)
    w.change({"replicas": 1})
    w.pods[0]["metadata"]["deletionTimestamp"] = "2026-05-01T12:00:00Z"
    assert asked(w) == ["demo-2", "demo-3"]
    w.pods[1]["status"]["conditions"] = conditions(Ready=("False", "", ""))
    assert asked(w) == []


@pytest.mark.parametrize(
    "spec", [{"engine": {"maxModelLen": 8192}}, {"podMetadata": {"annotations": {"example.com/new": "1"}}}]
)
def test_a_template_that_changes_with_the_number_is_written_with_it(spec: Json) -> None:
    w = serving(3)
    before = w.template()
    w.change({"replicas": 2, **spec})
    plan = w.plan()
    assert [pod.name for pod in plan.costs] == ["demo-1", "demo-2", "demo-3"]
    (lowered,) = [b for b in plan.apply if b["kind"] == "Deployment" and b["metadata"]["name"] == "demo"]
    assert lowered["spec"]["replicas"] == 2
    assert lowered["spec"]["template"] != before


def test_a_refused_spec_takes_no_pod_and_asks_none() -> None:
    w = serving(3)
    w.change({"replicas": 1, "engine": {"extraArgs": ["--trust-remote-code"]}})
    assert (w.plan().apply, asked(w)) == ((), [])
