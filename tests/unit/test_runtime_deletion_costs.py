"""Costs are written as far as pods and the API server answer in time; whatever they do, it comes to an end."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

import pytest

from falcon_operator.api import names
from falcon_operator.decide.deletion_cost import ANNOTATION, UNKNOWN_COST
from falcon_operator.decide.pods import Pod
from falcon_operator.kube.client import KubeClient
from falcon_operator.kube.errors import ApiError, Conflict, Forbidden, Unavailable
from falcon_operator.kube.resources import POD, Resource
from falcon_operator.observe.http import Unreadable
from falcon_operator.runtime import deletion_costs
from falcon_operator.runtime.deletion_costs import DeletionCosts

Json = dict[str, Any]
FOR_EVER = 3600.0


def pod(name: str, cost: str | None = None) -> Pod:
    annotations = {} if cost is None else {ANNOTATION: cost}
    return Pod({"metadata": {"name": name, "uid": f"uid-{name}", "annotations": annotations},
                "status": {"podIP": f"10.0.0.{name}"}})  # fmt: skip


class Setting:
    """Engines that say what the test wants, and an API server that keeps what it is sent."""

    def __init__(self, loads: dict[str, Any], seconds: float = 5.0) -> None:
        self.loads = loads
        self.refuse: Callable[[str], ApiError | None] = lambda _: None
        self.hang: set[str] = set()
        self.patches: list[Json] = []
        self.at_once = self.most_at_once = 0
        self.costs = DeletionCosts(cast(KubeClient, self), self._load, seconds=seconds)

    async def _load(self, address: str) -> float:
        found = self.loads[address.rpartition(".")[2]]
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await asyncio.sleep(FOR_EVER if found == "hangs" else 0)
        self.at_once -= 1
        if isinstance(found, Exception):
            raise found
        return float(found)

    async def apply(self, resource: Resource, body: Json, manager: str, *, force: bool = False) -> Json:
        assert (resource, manager, force) == (POD, names.MANAGER_COSTS, False)
        name = body["metadata"]["name"]
        await asyncio.sleep(FOR_EVER if name in self.hang else 0)
        problem = self.refuse(name)
        if problem is not None:
            raise problem
        self.patches.append(body)
        return body

    @property
    def written(self) -> dict[str, str]:
        return {body["metadata"]["name"]: body["metadata"]["annotations"][ANNOTATION] for body in self.patches}


async def test_each_pod_gets_what_runs_in_it_where_it_does_not_have_that_yet() -> None:
    setting = Setting({"1": 3, "2": 0, "3": 7, "4": 2, "5": 0})
    await setting.costs.write("ns", [pod("1"), pod("2"), pod("3", "7"), pod("4", "9"), pod("5", "4")])
    assert setting.written == {"1": "3", "4": "2", "5": "0"}
    assert setting.patches[0] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "ns", "name": "1", "uid": "uid-1", "annotations": {ANNOTATION: "3"}},
    }


async def test_an_engine_that_does_not_answer_counts_as_the_busiest(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting({"1": Unreadable("it answered with status 500"), "2": 900, "3": 0})
    await setting.costs.write("ns", [pod("1"), pod("2"), pod("3")])
    assert setting.written == {"1": str(UNKNOWN_COST), "2": "900"}
    assert "ns: 1 of 3 engines do not say" in caplog.text
    assert "it answered with status 500" in caplog.text


async def test_the_time_is_that_of_all_pods_together(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting({"1": "hangs", "2": 4, "3": "hangs"}, seconds=0.05)
    setting.hang = {"3"}
    await asyncio.wait_for(setting.costs.write("ns", [pod("1"), pod("2"), pod("3")]), 5)
    assert setting.written == {"1": str(UNKNOWN_COST), "2": "4"}
    assert "ns: 2 of 3 engines do not say" in caplog.text
    assert "count as the busiest: no answer in time" in caplog.text
    assert "ns: 1 of 3 deletion costs are not written, so a scale-down may take a busy pod: no answer" in caplog.text


async def test_where_time_runs_out_it_is_the_emptiest_that_have_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion_costs, "AT_ONCE", 1)
    setting = Setting({"1": 2, "2": 9, "3": 5}, seconds=0.05)
    setting.hang = {"3"}
    await setting.costs.write("ns", [pod("1"), pod("2"), pod("3")])
    assert setting.written == {"2": "9"}


async def test_many_pods_are_asked_side_by_side_but_not_all_at_once() -> None:
    many = [str(n) for n in range(100)]
    setting = Setting({name: 1 for name in many})
    await setting.costs.write("ns", [pod(name) for name in many])
    assert setting.most_at_once == deletion_costs.AT_ONCE
    assert len(setting.written) == 100


async def test_a_right_that_is_missing_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting({"1": 2, "2": 5})
    setting.refuse = lambda _: Forbidden(403, "Forbidden", 'pods "1" is forbidden')
    for _ in range(3):
        await setting.costs.write("ns", [pod("1"), pod("2")])
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "the operator may not patch pods" in caplog.text
    assert 'pods "1" is forbidden' in caplog.text


@pytest.mark.parametrize("problem", [Unavailable(503, "Unavailable", "no"), Conflict(409, "Conflict", "it is theirs")])
async def test_one_pod_that_cannot_be_written_does_not_keep_the_others(
    problem: ApiError, caplog: pytest.LogCaptureFixture
) -> None:
    setting = Setting({"1": 2, "2": 5, "3": 1})
    setting.refuse = lambda name: problem if name == "2" else None
    await setting.costs.write("ns", [pod("1"), pod("2"), pod("3")])
    assert setting.written == {"1": "2", "3": "1"}
    assert f"1 of 3 deletion costs are not written, so a scale-down may take a busy pod: {problem}" in caplog.text


async def test_an_error_of_ours_does_not_hold_the_scale_down_up(caplog: pytest.LogCaptureFixture) -> None:
    setting = Setting({"1": RuntimeError("a bug"), "2": 1})
    await setting.costs.write("ns", [pod("1"), pod("2")])
    assert setting.patches == []
    assert "internal error over deletion costs" in caplog.text
