"""The benchmark of the engine on GPUs: what it asks for is what the operator renders, and what it measures is right."""

import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from benchmarks.gpu import driver, greedy, load, plan, report, steps
from benchmarks.gpu.driver import Driver, Setting
from benchmarks.gpu.load import Load, Stream
from benchmarks.gpu.plan import Session
from tests.engine.launching import write_checkpoint
from tests.load.test_engine import install

from falcon_operator.api.spec import Spec
from falcon_operator.desired.intent import intent

ROOT = Path(driver.__file__).parents[2]


def test_an_engine_is_asked_for_as_the_operator_asks() -> None:
    rendered = asdict(intent(Spec(), ""))
    # Each form of the checkpoint is measured by itself, on a port of its own, and stopped at once.
    apart = {"port", "source", "drain_timeout_seconds", "version", "compute_format"}
    ours = {name: value for name, value in driver.DEFAULTS.items() if name in rendered and name not in apart}
    assert ours == {name: value for name, value in rendered.items() if name not in apart}


def test_every_session_has_a_checkpoint_that_a_step_makes() -> None:
    made = {step.makes for step in steps.STEPS}
    for gpus in (1, 2):
        sessions = [session for lane in plan.lanes(gpus) for session in lane]
        assert {session.checkpoint for session in sessions} <= made
        assert len({session.name for session in sessions}) == len(sessions)
        assert {session.name for session in plan.PAIRS} <= {session.name for session in sessions}
        assert {len(lane) > 0 for lane in plan.lanes(gpus)} == {True}


def test_the_last_attempt_counts_and_no_folder_of_the_machine_is_told(tmp_path: Path) -> None:
    rows = [
        {"machine": {"gpu": "NVIDIA H200, 580, 143771 MiB\nNVIDIA H200, 580, 143771 MiB"}, "gpus": 2},
        {"at": 1.0, "step": "tune", "command": "x", "seconds": 9.0, "output": ["written: /srv/w/a=1,b=H200.json"]},
        {"at": 2.0, "session": "fp8 fork", "checkpoint": "bf16", "error": "Died: /srv/w/run/x"},
        {"at": 3.0, "of": "fp8 fork", "load": "1 x 128/128", "failed": 0, "tokens_per_second": 150.0},
        {"at": 4.0, "session": "fp8 fork", "checkpoint": "fp8", "gpu": 1},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = report.collect(tmp_path)
    assert document["device"] == "NVIDIA H200"
    assert "/root" not in json.dumps(document)
    assert document["steps"][0]["output"] == ["written: a=1,b=H200.json"]
    assert [session.get("error") for session in document["sessions"]] == [None]
    assert report.speed(document, "fp8 fork", "1 x 128/128") == 150.0


def test_the_page_has_the_tables_and_pictures_of_what_was_measured() -> None:
    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"), key=lambda path: path.stem != "nvidia-h200")
    documents = {path.stem: json.loads(path.read_text()) for path in results}
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert report.fill(page, documents) == page
    assert all(f"results/{path.name}" in page for path in results)
    for name, svg in report.pictures(list(documents.values())).items():
        assert (ROOT / "docs" / "benchmarks" / name).read_text() == svg
        assert f"benchmarks/{name}" in page


def test_a_table_is_of_the_run_that_it_names() -> None:
    page = "<!-- table: starts -->\nx\n<!-- end -->\n<!-- table: starts of old -->\nx\n<!-- end -->\n"
    session = {"phases": {"weights": 1.0}, "ready_seconds": 2.0, "loads": [], "facts": [], "gpu": 0}
    empty = {"device": "", "date": "", "machine": {}, "steps": [], "tuned": [], "answers": []}
    documents = {name: {**empty, "sessions": [{**session, "session": name}]} for name in ("new", "old")}
    filled = report.fill(page, documents)
    assert [line.split(" | ")[0] for line in filled.splitlines() if "**" in line] == ["| new", "| old"]
    assert report.fill(filled, {"new": documents["new"]}) == filled  # a run of one's own leaves the others' tables
    assert report.fill(page, {"new": documents["new"]}).endswith(page.partition("\n<!-- end -->\n")[2])


def test_the_summary_of_streams() -> None:
    streams = [
        Stream(began=10.0, first=10.1, last=11.1, tokens=11, gaps=[0.1] * 10),
        Stream(began=10.5, first=10.7, last=12.0, tokens=14, gaps=[0.1] * 13),
        Stream(began=10.0, error="TimeoutError: "),
    ]
    row = load.summary(streams)
    assert (row["completed"], row["failed"], row["errors"]) == (2, 1, ["TimeoutError: "])
    assert row["tokens_per_second"] == pytest.approx(25 / 2.0)
    assert row["ttft_ms_p50"] == pytest.approx(200)
    assert row["tpot_ms_p99"] == pytest.approx(100)


def test_prompts_begin_alike_in_all_processes_and_end_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def streams(port: int, bodies: list[bytes], concurrency: int) -> list[Stream]:
        asked.extend(bodies)
        return []

    monkeypatch.setattr(load, "_streams", streams)
    wanted = Load(2, 4, 12, 1, shared=8)
    for seed in ("1-0", "1-1"):
        load._process(1, "model", 2, 2, wanted, seed, (100, 900), 0.0)
    prompts = [json.loads(body)["prompt"].split() for body in asked]
    assert wanted.name == "2 x 12/1, 8 alike"
    assert [len(prompt) for prompt in prompts] == [12] * 4
    assert len({tuple(prompt[:8]) for prompt in prompts}) == 1
    assert len({tuple(prompt[8:]) for prompt in prompts}) == 4


def test_winning_flags_are_those_that_were_faster_together() -> None:
    def rows(name: str, *speeds: float) -> list[dict[str, Any]]:
        loads = [wanted.name for wanted in plan.KNOB]
        return [
            {"of": name, "load": of, "completed": 1, "tokens_per_second": speed}
            for of, speed in zip(loads, speeds, strict=False)
        ]

    measured = [
        *rows(plan.BASE, 100, 100, 100),
        *rows("fp8 flashinfer mamba", 120, 110, 99),
        *rows("fp8 humming", 100, 100, 100.5),
        *rows("fp8 two API servers", 105, 101),
        *rows("fp8 1024 sequences", 200),
        *rows("nvfp4 humming", 200),
    ]
    assert plan.winning(measured) == ["--mamba-backend", "flashinfer"]
    assert plan.winning([]) == []


def answer(*places: tuple[str, float]) -> greedy.Answer:
    return [(token, {token: math.log(p), "other": math.log(1 - p)}) for token, p in places]


def test_agreement_counts_places_up_to_the_first_difference() -> None:
    reference = [answer(("a", 0.5), ("b", 0.5), ("c", 0.5)), answer(("a", 0.5), ("b", 0.5), ("c", 0.5))]
    other = [answer(("a", 0.5), ("b", 0.5), ("c", 0.5)), answer(("a", 0.5), ("x", 0.5), ("y", 0.5))]
    told = greedy.compare(reference, other)
    assert told["first_token_agreement"] == 1.0
    assert told["places"] == 5
    assert told["next_token_agreement"] == pytest.approx(4 / 5)
    assert told["whole_answers_equal"] == 0.5
    assert greedy.compare(reference, reference)["kl_mean"] == 0.0
    far = [answer(("a", 0.9), ("b", 0.5), ("c", 0.5))] * 2
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert greedy.compare(reference, far)["first_token_kl_mean"] == pytest.approx(expected, abs=1e-5)


def test_a_run_measures_and_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path / "site", "0.26.0")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{ROOT}:{ROOT / 'operator'}")
    for name, value in (("FAKE_LOAD", "0.1"), ("FAKE_TEARDOWN", "0"), ("FAKE_LAW", "0.002,0.00002,100000")):
        monkeypatch.setenv(name, value)
    write_checkpoint(tmp_path / "source")
    commands = {step.name: f"cp -r {tmp_path / 'source'} {{{step.makes}}}" for step in steps.STEPS}
    sessions = [
        Session("broken", "fp8", arguments=("--no-such-flag",), loads=(), seconds=10),
        Session("by hand", "bf16", "vllm", arguments=plan.CARD, loads=(Load(40, 80, 16, 8),), seconds=10),
        Session("ours", "nvfp4", loads=(Load(2, 4, 16, 8), Load(1, 1, 16, 8, sampled=True)), seconds=10),
    ]
    work, results = tmp_path / "work", tmp_path / "results"
    setting = Setting(work, results, 1, time.monotonic() + 120, sys.executable, commands=commands, words=(100, 900))
    before = [step.name for step in steps.STEPS]
    Driver(setting).run([before], [sessions])
    rows = [json.loads(line) for line in (results / "rows.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row.get("step")] == before
    assert {row["exit_code"] for row in rows if row.get("step")} == {0}
    measured = {(row["of"], row["load"]): row for row in rows if "load" in row}
    assert {name for name, _ in measured} == {"by hand", "ours"}
    assert measured["by hand", "40 x 16/8"]["completed"] == 80
    assert measured["by hand", "40 x 16/8"]["output_tokens"] == 640
    assert measured["ours", "2 x 16/8"]["tpot_ms_p50"] == pytest.approx(2.0, rel=2.0)
    ended = {row["session"]: row for row in rows if "session" in row}
    assert "no-such-flag" in ended["broken"]["error"]
    assert ended["ours"]["ready_seconds"] > 0.1
    assert "imports of the engine core" in ended["ours"]["phases"]
    capsys.readouterr()
    Driver(setting).run([before], [sessions])
    said = capsys.readouterr().out
    assert "broken: starting" in said
    assert "ours: starting" not in said
    assert "by hand: starting" not in said
