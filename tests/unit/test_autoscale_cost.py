"""The benchmark of the autoscaler's cost measures what it says."""

import pytest
from benchmarks.autoscale import cost
from benchmarks.autoscale.fake_pods import serving


async def test_all_resources_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "WARM_SECONDS", 2.0)  # a gateway is asked once in one
    with serving() as port:
        found = await cost.measure(port, resources=3, engines=1, seconds=2.0)
    assert (found["known"], found["gateways"], found["engines"]) == (3, 6, 3)
    assert found["decisions_per_second"] > 0
    assert 0 < found["deciding_cores"] < found["cores"]
    assert found["cores"] == pytest.approx(found["deciding_cores"] + found["reading_cores"], abs=0.0001)
