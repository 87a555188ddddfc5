"""A scale-down takes the pod with the least to lose, and writes nothing that is so already."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert due(wanted, live) == (live - wanted > 0)
