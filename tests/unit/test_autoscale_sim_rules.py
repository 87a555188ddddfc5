"""The policies, the oracle's search and what is written of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from benchmarks.autoscale import __main__ as main
from benchmarks.autoscale import oracle, report, running
from benchmarks.autoscale.engine import ENGINES, EngineLaw
from benchmarks.autoscale.falcon import Falcon
from benchmarks.autoscale.oracle import Plan, Planned, Work
from benchmarks.autoscale.policy import View
from benchmarks.autoscale.rules import RULES, names, rule
from benchmarks.autoscale.simulation import Outcome, Setting, Simulation
from benchmarks.autoscale.trace import Load

LAW = ENGINES["h200"]


def hill() -> Load:
    """Five minutes, in the middle of which four times as much comes."""
    rows = [(i / 4, 1000, 200) for i in range(1200) if i % 4 == 0 or 400 <= i < 800]
    return Load.of(rows * 4)


@pytest.fixture(scope="module")
def ran() -> tuple[Setting, list[Outcome]]:
    setting = Setting(LAW, 20.0, 1, 8)
    with running.runner(hill(), setting) as run:
        found = running.outcomes(run, setting, oracle.work(hill(), LAW), None, None)
    return setting, found


def test_all_has_every_rule_static_fleets_and_the_oracle(ran: tuple[Setting, list[Outcome]]) -> None:
    found = [outcome.policy for outcome in ran[1]]
    assert found[0] == "falcon"
    assert found[-1] == "oracle"
    assert set(RULES) <= set(found)
    assert sum(name.startswith("static-") for name in found) >= 2
    assert len(found) == len(set(found))


def test_the_oracle_is_not_beaten_by_a_fleet_of_fewer_gpu_hours(ran: tuple[Setting, list[Outcome]]) -> None:
    own = ran[1][-1]
    assert own.slo_attainment > 0.95
    for outcome in ran[1]:
        if outcome.policy.startswith("static-") and outcome.gpu_hours < own.gpu_hours:
            assert outcome.slo_attainment <= own.slo_attainment
    always = max(o.slo_attainment for o in ran[1] if o.policy.startswith("static-"))
    assert own.slo_attainment >= always - oracle.WITHIN


def test_all_rules_begin_alike(ran: tuple[Setting, list[Outcome]]) -> None:
    begins = {outcome.moves[0][1] for outcome in ran[1] if not outcome.policy.startswith("static-")}
    assert len(begins) == 1


def test_the_same_run_gives_the_same_numbers() -> None:
    def once() -> Outcome:
        return Simulation(hill(), Setting(LAW, 20.0, 1, 8, 1), Falcon(20.0, 256, 1, 8)).run()

    assert once() == once()


def test_falcon_is_the_production_decision_and_scales_this_hill() -> None:
    found = Simulation(hill(), Setting(EngineLaw(17_000.0, 0.02, 0.0005), 20.0, 1, 8, 1), Falcon(20.0, 256, 1, 8)).run()
    assert max(count for _, count in found.moves) > 1


def test_falcon_rests_after_ten_seconds_without_a_request() -> None:
    rule = Falcon(20.0, 256, 1, 8)
    for look in range(30):
        rule.desired(View(look / 2, 1, 1, (), (), 0, 0, arrived=5))
        assert rule.rests() == (look / 2 >= 10)
    rule.desired(View(15.0, 1, 1, (), (), 0, 1, arrived=6))
    assert not rule.rests()


def test_work_of_an_answer_falls_on_the_time_that_it_takes() -> None:
    found = oracle.work(Load.of([(0.0, 17_000, 2000), (200.0, 0, 1)]), LAW)
    assert found.demand[0] == pytest.approx(1.0 / oracle.SLICE, rel=0.2)  # the prompt: a second
    lasting = [i * oracle.SLICE for i, value in enumerate(found.demand) if value > 0]
    assert 80 <= lasting[-2] <= 110  # 2000 tokens of at most 50 ms
    assert found.demand[60] == 0.0


def test_a_plan_is_ahead_by_the_cold_start_and_keeps_what_soon_comes_again() -> None:
    short = (0.5,) * 50 + (1.5,) * 10 + (0.5,) * 5 + (1.5,) * 10 + (0.5,) * 50
    plan = oracle.plan(Work(short, 2.0), 20.0, 0.8, 0.0, 1, 8)
    assert plan.steps == ((0.0, 1), (100.0 - 20.0, 2), (150.0, 1))
    long = (0.5,) * 50 + (1.5,) * 10 + (0.5,) * 40 + (1.5,) * 10 + (0.5,) * 50
    plan = oracle.plan(Work(long, 2.0), 20.0, 0.8, 0.0, 1, 8)
    assert plan.steps == ((0.0, 1), (80.0, 2), (120.0, 1), (180.0, 2), (220.0, 1))
    early = oracle.plan(Work((0.5,) * 5 + (1.5,) * 50, 2.0), 20.0, 0.8, 0.0, 1, 8)
    assert early.initial == 2  # nobody can start it before the trace begins


def test_the_cheapest_good_plan_is_chosen() -> None:
    def one(share: float, hours: float) -> tuple[Plan, Outcome]:
        return Plan(((0.0, int(hours)),)), Outcome("x", share, hours, 0, 0, 0, 0, 3600, ((0.0, 1),), ())

    runs = [one(0.999, 12.0), one(0.9945, 8.0), one(0.98, 5.0), one(0.9941, 8.0)]
    assert oracle.best(runs) == runs[1]


def test_a_planned_policy_follows_its_steps() -> None:
    rule = Planned("x", Plan(((0.0, 2), (10.0, 5), (12.0, 1))))
    assert [rule.desired(View(at, 1, 1, (), (), 0, 0, 0)) for at in (0.0, 9.0, 10.0, 15.0)] == [2, 2, 5, 1]


def test_names_are_known_or_told() -> None:
    assert names("all") is None
    assert names("falcon, static-4,oracle,falcon") == ["falcon", "static-4", "oracle"]
    with pytest.raises(ValueError, match="--policy 'static-0' is not known; there are all, falcon"):
        names("static-0")
    with pytest.raises(ValueError, match="names no policy"):
        names(",")
    assert rule("static-4", 60.0, 256, 1, 8).desired(View(0.0, 1, 1, (), (), 0, 0, 0)) == 4


def outcome(name: str, share: float, hours: float) -> Outcome:
    return Outcome(name, share, hours, 0.1, 1.0, 2.0, 0, 3600, ((0.0, 1),), ())


def test_dominated_means_better_and_cheaper() -> None:
    ours = outcome("falcon", 0.9, 10.0)
    others = [outcome("a", 0.95, 9.0), outcome("b", 0.95, 10.0), outcome("c", 0.9, 9.0), outcome("oracle", 1.0, 5.0)]
    assert report.dominating([ours, *others], "falcon", ("oracle",)) == ["a"]
    assert "a: better attainment than falcon" in report.remark([ours, *others], "falcon", "oracle")
    assert "No rule has both" in report.remark([ours, *others[1:]], "falcon", "oracle")


def test_the_command_writes_a_list_of_objects_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(f"{i},100,20\n" for i in range(60)))
    out = tmp_path / "out.json"
    command = ["x", "--trace", str(trace), "--scale", "2", "--policy", "falcon,static-2", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    assert main.main() == 0
    found = json.loads(out.read_text())
    assert [one["policy"] for one in found] == ["falcon", "static-2"]
    for one in found:
        assert tuple(one) == ("policy", "slo_attainment", "gpu_hours", "ttft_p50", "ttft_p99", "scalings_per_hour")
        assert 0 <= one["slo_attainment"] <= 1
    assert found[1]["gpu_hours"] == pytest.approx(2 * 59 / 3600, rel=0.1)
    assert (tmp_path / "out.svg").read_text().startswith("<svg ")
    printed = capsys.readouterr().out
    assert "falcon" in printed
    assert "SLO %" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "best"], "--policy 'best' is not known"),
        (["--min-replicas", "9", "--max-replicas", "8"], "--min-replicas 9 is above --max-replicas 8"),
        (["--initial", "40"], "--initial 40 is not between 1 and 32"),
        (["--policy", "static-40"], "--policy static-40 is not between 1 and 32"),
        (["--json", "/nowhere/out.json"], "there is no folder /nowhere"),
        (["--scale", "0.0000001"], "leaves none of"),
    ],
)
def test_wrong_options_are_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\n")
    monkeypatch.setattr(sys, "argv", ["x", "--trace", str(trace), *arguments])
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert said in str(caught.value)
