"""Starts that fail for a reason that passes, or that fewer sequences cure: the launcher tries again."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.engine.launching import Container, wait_for

TAKEN = (
    "(EngineCore pid=9) ValueError: Free memory on device cuda:0 (12.01/139.8 GiB) on startup is less than desired GPU "
    "memory utilization (0.88, 123.02 GiB). Decrease GPU memory utilization."
)
TOO_MANY = (
    "(EngineCore pid=9) ValueError: max_num_seqs (256) exceeds available Mamba cache blocks (99). Each decode sequence "
    "requires one Mamba cache block, so CUDA graph capture cannot proceed. Please lower max_num_seqs to at most 99 or "
    "increase gpu_memory_utilization."
)
QUICK = "import falcon_engine.attend as a; a.PAUSES = (0.05,)"
PATIENT = "import falcon_engine.attend as a; a.PAUSES = (60.0,)"


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def fails(container: Container, *texts: str) -> None:
    (container.directory / "failures").write_text(json.dumps(texts))


def test_memory_that_another_engine_still_holds_is_waited_for(container: Container) -> None:
    fails(container, TAKEN, TAKEN, TAKEN)
    with container.running(prelude=QUICK) as launcher:
        container.wait_until_started()
        retries = container.report()["retries"]
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0
    assert [retry["reason"] for retry in retries] == ["GPUMemoryTaken"] * 3
    assert "12.01 of 139.8 GiB" in retries[0]["message"]
    assert [retry["at"] for retry in retries] == sorted(retry["at"] for retry in retries)
    assert container.log.count("falcon: starting ") == 4
    assert "Starting the engine again in 0 s" in container.log
    assert not container.termination.exists()


def test_it_is_not_waited_for_without_end(container: Container) -> None:
    fails(container, *[TAKEN] * 100)
    prelude = f"{QUICK}; a.TRANSIENT_SECONDS = 1.5"
    with container.running(prelude=prelude) as launcher:
        assert launcher.wait(20) == 1
    diagnosis = container.diagnosis()
    assert diagnosis.reason == "GPUMemoryTaken"
    assert diagnosis.exit_code == 1
    assert "falcon: GPUMemoryTaken: " in container.log.splitlines()[-1]


def test_a_stop_while_it_waits_ends_it_at_once(container: Container) -> None:
    fails(container, TAKEN)
    with container.running(prelude=PATIENT) as launcher:
        wait_for(lambda: container.report().get("retries"), "the first start fails")
        assert (container.get("/started") or (0,))[0] == 503
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(5) == 0
    assert (container.diagnosis().reason, container.diagnosis().exit_code) == ("GPUMemoryTaken", 0)
    assert container.log.count("falcon: starting ") == 1


def test_the_engine_is_asked_for_as_many_sequences_as_it_holds(container: Container) -> None:
    fails(container, TOO_MANY)
    with container.running() as launcher:
        container.wait_until_started()
        report = container.report()
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0
    argv = container.engine_argv()
    assert argv[argv.index("--max-num-seqs") + 1] == "99"
    assert report["engine"]["maxNumSeqs"] == 99
    assert report["clamped"] == {
        "asked": 256,
        "given": 99,
        "why": "The engine holds 99 sequences on this GPU, and was asked for 256.",
    }
    assert [retry["reason"] for retry in report["retries"]] == ["SequencesExceedMemory"]


def test_it_is_lowered_once(container: Container) -> None:
    fails(container, TOO_MANY, TOO_MANY.replace("256", "99").replace("(99)", "(98)", 2))
    with container.running() as launcher:
        assert launcher.wait(20) == 2
    assert container.diagnosis().reason == "SequencesExceedMemory"
    assert container.log.count("falcon: starting ") == 2


@pytest.mark.parametrize(
    "changes", [{"fit": "Refuse"}, {"extra_args": ("--max-num-seqs", "256")}], ids=["refuse", "extra-arguments"]
)
def test_it_is_not_lowered_against_the_resources_will(container: Container, changes: dict[str, Any]) -> None:
    fails(container, TOO_MANY)
    assert container.run(**changes) == 2
    assert container.diagnosis().reason == "SequencesExceedMemory"
    assert container.log.count("falcon: starting ") == 1


def test_what_does_not_pass_is_not_tried_again(container: Container) -> None:
    fails(container, "ValueError: something new", "ValueError: something new")
    assert container.run() == 1
    assert container.log.count("falcon: starting ") == 1
