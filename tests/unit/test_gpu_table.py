"""The gate on the table of node shapes: verdict, reason and tier, and the scheduler's agreement on every row."""

from typing import Any

import pytest
import yaml
from tests.unit import gpu_cluster
from tests.unit.gpu_cluster import Row

from falcon_operator.decide.gpu import judge

ROWS = list(gpu_cluster.rows())
_KEYS = {
    "is",
    "gfd",
    "product",
    "mib",
    "cc",
    "driver",
    "count",
    "replicas",
    "sharing",
    "renamed",
    "slice",
    "labels",
} | {*("others", "offers", "cordoned", "taints", "spec", "version", "verdict", "tier", "reason")}


def _name(row: Row) -> str:
    return str(row["is"])


def test_the_table_is_large_and_holds_no_row_twice() -> None:
    assert len(ROWS) >= 60
    assert len({_name(row) for row in ROWS}) == len(ROWS)
    written = [yaml.safe_dump({k: v for k, v in row.items() if k != "is"}) for row in ROWS]
    assert len(set(written)) == len(ROWS)
    assert [key for row in ROWS for key in row if key not in _KEYS] == []


@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_a_node_is_judged_as_the_table_says(row: Row) -> None:
    found = judge(gpu_cluster.spec_of(row), gpu_cluster.profile_of(row), gpu_cluster.node_of(row))
    expected: tuple[Any, ...] = (row["verdict"], gpu_cluster.reason_of(row), row.get("tier"))
    assert (found.verdict, found.reason, found.tier) == expected


@pytest.mark.parametrize("row", [row for row in ROWS if row["verdict"] is not None], ids=_name)
def test_the_scheduler_refuses_what_is_rejected_and_nothing_else(row: Row) -> None:
    takes = gpu_cluster.scheduler_takes(gpu_cluster.spec_of(row), gpu_cluster.node_of(row))
    assert takes == (row["verdict"] in ("Eligible", "Unknown"))
