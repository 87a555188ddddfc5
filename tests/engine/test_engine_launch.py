"""The launcher as a process beside a stand-in for vLLM: exit codes, termination message, signals, survivors."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.engine.launching import Container, wait_for

from falcon_engine.intent import Source


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def _processes(word: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if word.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_stops_with_0_when_asked_and_leaves_nothing_behind(container: Container) -> None:
    with container.running() as launcher:
        container.wait_until_started()
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0
    assert not container.termination.exists()
    assert _processes(str(container.directory)) == []
    for said in (
        "falcon: the engine is vLLM 0.32.0+cpu, profile 0.32.0",
        f"falcon: the checkpoint is {container.model}",
        "falcon: starting ",
        "falcon: SIGTERM: passing it on",
        "falcon: stopped as asked",
    ):
        assert said in container.log
    assert "(APIServer pid=1) loading" in container.log.splitlines()
    assert container.engine_argv()[:2] == ["serve", str(container.model)]


def test_an_engine_that_dies_with_exit_code_0_is_a_failure(container: Container) -> None:
    with container.running() as launcher:
        container.wait_until_served()
        os.kill(container.core_pid(), signal.SIGKILL)
        assert launcher.wait(20) == 70
    diagnosis = container.diagnosis()
    assert diagnosis.reason == "EngineDied"
    assert diagnosis.exit_code == 70
    assert diagnosis.engine_version == "0.32.0+cpu"
    assert "exit code was 0" in diagnosis.message
    assert "EngineDeadError" in diagnosis.message
    assert diagnosis.log_tail[-1] == "EngineDeadError: EngineCore encountered an issue."
    assert _processes(str(container.directory)) == []


def test_waits_for_running_requests(container: Container) -> None:
    running = container.directory / "running"
    running.write_text("1")
    with container.running() as launcher:
        container.wait_until_served()
        launcher.send_signal(signal.SIGTERM)
        wait_for(lambda: "passing it on" in (container.directory / "serve.log").read_text(), "the signal goes on")
        assert launcher.poll() is None
        running.unlink()
        assert launcher.wait(20) == 0
    assert "killing it" not in container.log


@pytest.fixture
def older(tmp_path: Path) -> Container:
    """A version that ends its requests as soon as it is told to stop."""
    return Container(tmp_path, "0.13.0", "0.13")


def test_waits_itself_where_the_version_does_not(older: Container) -> None:
    running = older.directory / "running"
    running.write_text("1")
    with older.running() as launcher:
        older.wait_until_started()
        launcher.send_signal(signal.SIGTERM)
        wait_for(lambda: "so the launcher does" in (older.directory / "serve.log").read_text(), "it waits")
        with pytest.raises(subprocess.TimeoutExpired):
            launcher.wait(1)
        running.unlink()
        assert launcher.wait(20) == 0
    assert "the engine is idle" in older.log
    assert "passing it on" in older.log


def test_a_second_signal_ends_that_wait(older: Container) -> None:
    (older.directory / "running").write_text("1")
    with older.running() as launcher:
        older.wait_until_started()
        launcher.send_signal(signal.SIGTERM)
        wait_for(lambda: "so the launcher does" in (older.directory / "serve.log").read_text(), "it waits")
        launcher.send_signal(signal.SIGINT)
        assert launcher.wait(20) == 0
    assert "SIGINT: passing it on" in older.log


def test_kills_an_engine_that_hangs_after_its_drain_ran_out(container: Container) -> None:
    (container.directory / "running").write_text("1")
    prelude = "import falcon_engine.drain; falcon_engine.drain.STOP_MARGIN_SECONDS = 0.5"
    with container.running(prelude=prelude, drain_timeout_seconds=1) as launcher:
        container.wait_until_served()
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0
    assert "force killing remaining processes" in container.log
    assert "falcon: the engine did not end in time: killing it" in container.log
    assert _processes(str(container.directory)) == []


def test_a_stop_before_it_served_is_told(container: Container) -> None:
    (container.directory / "hold").touch()
    with container.running() as launcher:
        wait_for(lambda: "loading" in (container.directory / "serve.log").read_text(), "the stand-in loads")
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0
    assert container.diagnosis().reason == "StartInterrupted"


def test_an_unknown_flag_is_refused_before_the_engine_starts(container: Container) -> None:
    assert container.run(extra_args=("--max-num-sequences", "4")) == 2
    diagnosis = container.diagnosis()
    assert diagnosis.reason == "FlagUnknown"
    assert "--max-num-sequences" in diagnosis.message
    assert "--max-num-seqs" in diagnosis.hint
    assert not (container.directory / "argv.json").exists()


def test_a_value_that_the_engine_refuses(container: Container) -> None:
    assert container.run(extra_args=("--load-format", "auto", "--dtype", "fp3")) == 2
    diagnosis = container.diagnosis()
    assert diagnosis.reason == "FlagValueRefused"
    assert "--dtype" in diagnosis.message
    assert "bfloat16" in diagnosis.message


def test_a_path_without_a_checkpoint(container: Container) -> None:
    assert container.run(source=Source(kind="baked", path="/no/such/model")) == 2
    assert container.diagnosis().reason == "CheckpointNotFound"
    assert container.diagnosis().engine_version == "0.32.0+cpu"
    assert "falcon: CheckpointNotFound: There is no /no/such/model in the container." in container.log


def test_an_engine_that_fails_at_the_start(container: Container) -> None:
    container.environment |= {"STANDIN_FAIL": "ValueError: something new", "STANDIN_CODE": "1"}
    assert container.run() == 1
    diagnosis = container.diagnosis()
    assert diagnosis.reason == "EngineStartFailed"
    assert "something new" in diagnosis.message


def test_an_engine_that_ends_with_0_before_it_served_failed(container: Container) -> None:
    container.environment |= {"STANDIN_FAIL": "bye", "STANDIN_CODE": "0"}
    assert container.run() == 1
    assert container.diagnosis().reason == "EngineStartFailed"


def test_no_engine_in_the_image(tmp_path: Path) -> None:
    container = Container(tmp_path, vllm=None)
    container.environment["PATH"] = str(tmp_path / "empty")
    assert container.run() == 2
    assert "There is no vllm in this image" in container.diagnosis().message


def test_the_program_is_used_where_its_python_is_another(tmp_path: Path) -> None:
    container = Container(tmp_path, vllm=None)
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n" + (Path(__file__).parent / "standin_vllm.py").read_text())
    program.chmod(0o755)
    container.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    with container.running(version="0.32.0") as launcher:
        container.wait_until_served()
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0
    assert "EngineVersionUnknown" in container.log
    assert f"falcon: starting {program} serve" in container.log


def test_an_intent_that_is_none(container: Container) -> None:
    done = subprocess.run(
        [sys.executable, str(container.launcher), "serve"],
        env={**container.environment, "FALCON_INTENT": "{}"},
        check=False,
    )
    assert done.returncode == 2
    assert "lacks the field 'device'" in container.diagnosis().message


def test_no_place_for_a_termination_message_is_no_failure(container: Container) -> None:
    container.environment["FALCON_TERMINATION_LOG"] = "/no/such/place"
    assert container.run(extra_args=("--nonsense",)) == 2


def test_drain_waits_until_idle(container: Container) -> None:
    running = container.directory / "running"
    running.write_text("1")
    settle = "import falcon_engine.drain as d; d.SETTLE_SECONDS = d.POLL_SECONDS = 0.05"
    with container.running():
        container.wait_until_served()
        with container.running("drain", prelude=settle) as hook:
            wait_for(lambda: list((container.directory / "tmp").glob("falcon-drain-*")), "the hook marks its start")
            assert hook.poll() is None
            running.unlink()
            assert hook.wait(20) == 0
    assert "falcon: the engine is idle after" in (container.directory / "drain.log").read_text()


def test_drain_of_an_engine_that_is_not_there_returns_at_once(container: Container) -> None:
    assert container.run("drain", timeout=4) == 0
    assert "nothing to drain" in container.log


def test_version(container: Container) -> None:
    assert container.run("version") == 0
    assert container.log.strip() == "0.32.0+cpu"


def test_an_unknown_command_says_which_there_are(container: Container) -> None:
    assert container.run("surf") == 2
    assert "serve | drain | version" in container.log
