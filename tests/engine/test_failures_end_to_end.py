"""Each failure on its whole way: an engine's last words, the launcher, its termination message, status and event."""

import os
import signal
from pathlib import Path

import pytest
from tests.engine.failures import FAILURES, Failure
from tests.engine.launching import Container, wait_for
from tests.unit.world import World, at, crash_loop, schedule, terminated

from falcon_operator.api.status import Status

SERVING = "INFO:     Application startup complete.\n"
NO_RETRIES = "import falcon_engine.attend as a; a.TRANSIENT_SECONDS = 0.0"
QUICK_CANARY = "import falcon_engine.watch as w; w.CANARY_PAUSES = (0.05,); w.PROBE_SECONDS = 0.05"
# The kernel's count of killed processes goes up by one while the engine runs.
COUNTED = "import itertools, falcon_engine.memory as m; m.kills = itertools.count().__next__"


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def reported(container: Container, code: int, ran: float = 20) -> World:
    """What the operator makes of the container's end."""
    world = World(spec={"startup": {"budget": "10m"}})
    world.step()
    pod = world.add_pod()
    schedule(pod, at(1))
    message = container.termination.read_text()
    crash_loop(pod, terminated(code, message, begin=0, end=ran))
    world.step(seconds=ran + 10)
    Status.model_validate(world.status)
    return world


def check(world: World, reason: str, words: tuple[str, ...], final: bool) -> None:
    failure = world.status["lastFailure"]
    assert failure["reason"] == reason
    [event] = world.events
    assert (event.type, event.reason) == ("Warning", reason)
    for kind in ("Ready", "Available"):
        assert world.state(kind) == ("False", reason)
    assert world.state("Stalled") == (("True", reason) if final else ("False", "NotStalled"))
    for word in words:
        assert word in f"{failure['message']} {failure['hint']}"
        assert word in event.note
        assert word in world.condition("Ready")["message"]
    before = world.status
    world.settle()
    assert world.status == before
    assert len(world.events) == 1


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: f.log)
def test_a_failure_is_told_with_its_way_out(container: Container, failure: Failure) -> None:
    text = SERVING + failure.text if failure.served else failure.text
    container.environment |= {"STANDIN_FAIL": text, "STANDIN_CODE": str(failure.engine_code)}
    with container.running(prelude=NO_RETRIES, canary=False) as launcher:
        code = launcher.wait(60)
    assert code == failure.code
    assert failure.text.rstrip().splitlines()[-1] in container.log, "the engine's log goes through"
    check(reported(container, code), failure.reason, failure.words, final=failure.code == 2)


@pytest.mark.parametrize(
    ("code", "reason", "word"),
    [(-9, "EngineKilled", "SIGKILL"), (-7, "SharedMemoryTooSmall", "SIGBUS"), (-11, "EngineStartFailed", "SIGSEGV")],
)
def test_a_signal(container: Container, code: int, reason: str, word: str) -> None:
    container.environment |= {"STANDIN_FAIL": "loading", "STANDIN_CODE": str(code)}
    assert container.run() == 1
    check(reported(container, 1), reason, (word,), final=False)


def test_the_containers_memory_limit(container: Container) -> None:
    container.environment |= {"STANDIN_FAIL": "loading", "STANDIN_CODE": "-9"}
    with container.running(prelude=COUNTED) as launcher:
        assert launcher.wait(30) == 1
    check(reported(container, 1), "OutOfMemory", ("container's memory limit", "spec.resources"), final=False)


def test_an_engine_core_that_dies_while_it_serves(container: Container) -> None:
    with container.running() as launcher:
        container.wait_until_served()
        os.kill(container.core_pid(), signal.SIGKILL)
        assert launcher.wait(30) == 70
    check(reported(container, 70), "EngineDied", ("exit code was 0", "EngineCore encountered an issue"), final=False)


def test_a_startup_probe_that_is_too_short(container: Container) -> None:
    (container.directory / "hold").touch()
    with container.running() as launcher:
        wait_for(lambda: "loading" in (container.directory / "serve.log").read_text(), "the stand-in loads")
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(30) == 0
    world = reported(container, 0, ran=600)
    check(world, "StartupBudgetExceeded", ("600 s", "spec.startup.budget", "spec.cache"), final=False)


def test_a_canary_that_fails(container: Container) -> None:
    (container.directory / "completion").write_text("500")
    with container.running(prelude=QUICK_CANARY, canary=True) as launcher:
        wait_for(lambda: container.report().get("canary", {}).get("state") == "failed", "the canary fails")
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(30) == 0
    world = reported(container, 0, ran=600)
    check(world, "CanaryFailed", ("did not complete a token", "spec.startup.canary"), final=False)
