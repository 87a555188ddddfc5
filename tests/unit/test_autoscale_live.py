"""What the live benchmark of the autoscaler counts, without a cluster."""

import math
from pathlib import Path
from typing import Any

import pytest
from benchmarks.autoscale.live import react, trace, wake
from benchmarks.autoscale.trace import read
from tests.load.client import Outcome
from tests.load.scaling import Seen

REACTION: dict[str, Any] = {"before": 1, "kept": 6, "first": 0.9, "enough": 2.9, "writes": 3, "lost": 0}
OK: dict[str, Any] = {"began": 10.0, "first": 1.9, "ended": 12.3, "tokens": 11}


def test_a_load_of_so_many_engines_is_what_the_law_says() -> None:
    # 12 sequences: a token each 0.032 s and 0.00375 s of prompts between; 20 tokens an answer: 16.8 requests a second
    assert [react.engines(rate, 1.0) for rate in (16.7, 16.9, 33.5)] == [1, 2, 2]
    assert react.engines(react.RATE, react.TARGET) == 1
    assert react.engines(react.RATE * react.FACTOR, react.BORNE) < react.engines(react.RATE * react.FACTOR, 0.7)


@pytest.mark.parametrize(
    "change", [{"first": 1.1}, {"first": math.inf}, {"enough": 3.1}, {"kept": 9}, {"lost": 1}], ids=str
)
def test_a_step_is_met_within_all_limits_alone(change: dict[str, Any]) -> None:
    assert react.Reaction(**REACTION).met
    assert not react.Reaction(**REACTION | change).met


def test_requests_of_a_step_are_the_same_again_and_eight_times_as_many() -> None:
    found = react.requests(3)
    assert found == react.requests(3) != react.requests(4)
    after = sum(each.at >= react.WARM_SECONDS for each in found) / react.STEP_SECONDS
    before = [each for each in found if react.LEARN_SECONDS <= each.at < react.WARM_SECONDS]
    assert 6 < after / (len(before) / (react.WARM_SECONDS - react.LEARN_SECONDS)) < 10


def test_a_trace_is_read_by_the_simulator_as_it_is_asked(tmp_path: Path) -> None:
    made = trace.make(2)
    trace.write(made, tmp_path / "trace.csv")
    load = read(tmp_path / "trace.csv")
    # two may come within the same microsecond
    assert sorted(zip(load.prompt, load.answer, strict=True)) == sorted((each.prompt, each.tokens) for each in made)
    assert load.at == pytest.approx([each.at - made[0].at for each in made], abs=2e-6)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_trace_comes_to_the_same_at_whatever_moments_it_is_looked_at(seed: int, tmp_path: Path) -> None:
    """Gateways are looked at twice a second and engines once in ten: when is chance, on a cluster."""
    trace.write(trace.make(seed), tmp_path / "trace.csv")
    found = [trace.simulated(tmp_path / "trace.csv", 6.0, n * 1.03).slo_attainment for n in range(10)]
    assert max(found) - min(found) <= trace.AGREE


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"first": 2.1, "ended": 12.5}, False),
        ({"ended": 12.5}, False),
        ({"kind": "status"}, False),
        ({"first": None}, False),
        ({"tokens": 1, "ended": 99.0}, True),
    ],
    ids=str,
)
def test_a_request_is_served_well_by_its_first_token_and_its_pace(change: dict[str, Any], good: bool) -> None:
    assert trace.met(Outcome(**OK | change)) is good


def test_what_a_watch_saw_is_kept_by_its_moment() -> None:
    seen = Seen()
    for at, count in ((1.0, 1), (2.0, 1), (3.0, 4), (5.0, 2)):
        seen.deployment({"spec": {"replicas": count}}, "MODIFIED", at)
    assert seen.replicas == [(1.0, 1), (3.0, 4), (5.0, 2)]
    assert [seen.replicas_at(at) for at in (0.5, 1.0, 2.9, 3.0, 9.0)] == [0, 1, 1, 4, 2]
    pod: dict[str, Any] = {"metadata": {"name": "a"}, "status": {}}
    running: dict[str, Any] = {"containerStatuses": [{"state": {"running": {}}}]}
    ready: dict[str, Any] = {"conditions": [{"type": "Ready", "status": "True"}]}
    for at, status in ((1.0, {}), (2.0, running), (3.0, running | ready), (4.0, running | ready)):
        seen.pod({**pod, "status": status}, "MODIFIED", at)
    seen.pod(pod, "DELETED", 5.0)
    assert (seen.created, seen.started, seen.ready, seen.gone) == ({"a": 1.0}, {"a": 2.0}, {"a": 3.0}, {"a": 5.0})


def test_a_wake_counts_what_is_neither_kubernetes_nor_the_engine() -> None:
    found = wake.Wake(write=0.1, pod=5.0, node=5.0, start=60.0, answer=0.15, ok=True)
    assert found.own == pytest.approx(0.25)
    assert found.met
    assert not wake.Wake(0.2, 0.0, 0.0, 0.0, 0.15, ok=True).met
    assert not wake.Wake(0.1, 0.0, 0.0, 0.0, 0.1, ok=False).met
