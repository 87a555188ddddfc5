"""What the table of the loss scenarios says, and the resources that they are run with."""

from typing import Any

import pytest
from tests.load.client import Outcome
from tests.load.loss import Row, table
from tests.load.scenarios import ENGINES, SCENARIOS, Scenario, spec_of
from tests.load.tally import Tally

from falcon_operator.api.pending import not_yet_implemented
from falcon_operator.api.spec import Spec


def row(name: str, may_lose: int = 0, victim: str = "", **counts: Any) -> Row:
    tally: dict[str, Any] = {**Tally().summary(), "requests": 100, "ok": 100, **counts}
    return Row(SCENARIOS[name], tally, 10.0, may_lose, victim)


@pytest.mark.parametrize("counts", [{"failed": 1}, {"truncated": 1}, {"requests": 0}])
def test_a_planned_disruption_may_cost_nothing_and_says_something_only_with_requests(counts: dict[str, Any]) -> None:
    assert row("rollout").met
    assert not row("rollout", **counts).met


def test_a_gateway_that_dies_may_cost_what_it_carried() -> None:
    assert row("gateway-killed", 7, truncated=7).met
    assert not row("gateway-killed", 7, truncated=7, failed=1).met


def test_an_engine_that_dies_may_cost_its_own_and_no_other() -> None:
    own = {"lost": {"died": 8}, "truncated": 8}
    assert row("engine-killed", 7, "died", **own).met, "one came after the count"
    assert not row("engine-killed", 7, "died", **own, failed=1).met
    assert not row("engine-killed", 7, "died", lost={"other": 1}, truncated=1).met
    assert not row("engine-killed", 7, "died", lost={"": 1}, failed=1).met


def test_a_tally_knows_whose_requests_were_lost() -> None:
    tally = Tally()
    for server, kind in (("a", "ok"), ("a", "truncated"), ("b", "ok"), ("", "connect")):
        tally.add(Outcome(0.0, kind=kind, server=server))
    assert tally.summary()["lost"] == {"a": 1, "": 1}


def test_the_table_sums_up_planned_disruptions_only() -> None:
    *_, last = table([row("rollout", truncated=2), row("scale-down"), row("engine-killed", 7, truncated=7)])
    assert last == "planned disruptions: 200 requests, 2 lost, in 30 s"


def test_the_table_says_how_many_a_dead_process_cost() -> None:
    text = "\n".join(table([row("gateway-killed", 7, truncated=5)]))
    assert "met: lost 5, of 7 that it carried just before" in text
    text = "\n".join(table([row("engine-killed", 7, "died", lost={"died": 4, "": 1}, truncated=5)]))
    assert "MISSED: lost 5, 4 of them its own, of 7 that it carried just before" in text


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_each_scenario_has_a_resource_that_the_operator_takes(scenario: Scenario, engine: str) -> None:
    spec = Spec.model_validate(spec_of(scenario, engine))
    assert spec.replicas == scenario.replicas
    assert not_yet_implemented(spec) == []
