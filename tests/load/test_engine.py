"""The fake engine under the real launcher, and alone: vLLM's measured manners at start, drain and death."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from testbed.images.recipes import REPOSITORY
from tests.engine.launching import Container, free_port, wait_for
from tests.load.client import Ask, Client, Outcome

INSTALL = REPOSITORY / "testbed/images/fake-engine/install.py"
MANNERS = {"FAKE_LOAD": "0.2", "FAKE_TEARDOWN": "0", "FAKE_PACE": "0.02"}


def install(site: Path, version: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(INSTALL.parent)!r}); import install, pathlib; "
    subprocess.run(
        [sys.executable, "-c", f"{code}install.install(pathlib.Path({str(site)!r}), {version!r})"], check=True
    )
    # where the image has it, this repository takes its place
    program = site / "vllm/entrypoints/cli/main.py"
    text = program.read_text()
    assert "/opt/fake-engine" in text
    paths = [str(REPOSITORY), str(REPOSITORY / "operator")]
    program.write_text(text.replace('sys.path.insert(0, "/opt/fake-engine")', f"sys.path[:0] = {paths!r}"))


class Launched(Container):
    """The launcher as in a container, beside the fake engine in vLLM's place."""

    def __init__(self, directory: Path, version: str = "0.32.0", **manners: str) -> None:
        super().__init__(directory, vllm=None)
        install(directory / "site", version)
        self.environment |= MANNERS | manners

    def serves(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=2, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, name: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=2, trust_env=False).text
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name}{{")))

    def logged(self, text: str) -> bool:
        return text in (self.directory / "serve.log").read_text()


@contextmanager
def asking(port: int, *asks: Ask) -> Iterator[Callable[[], list[Outcome]]]:
    """Streams that are open meanwhile; the value waits for their outcomes."""
    outcomes: list[Outcome] = []

    async def run() -> None:
        outcomes.extend(await asyncio.gather(*(Client("127.0.0.1", port).ask(ask) for ask in asks)))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()

    def ended() -> list[Outcome]:
        thread.join(60)
        assert len(outcomes) == len(asks), "streams did not end"
        return outcomes

    try:
        yield ended
    finally:
        thread.join(60)


def one(port: int, ask: Ask) -> Outcome:
    return asyncio.run(Client("127.0.0.1", port).ask(ask))


def test_the_launcher_starts_it_and_asks_its_canary_and_it_streams(tmp_path: Path) -> None:
    container = Launched(tmp_path)
    with container.running() as process:
        container.wait_until_started()
        outcome = one(container.port, Ask(20, pace=0.001))
        assert (outcome.kind, outcome.tokens) == ("ok", 20), outcome.detail
        report = container.report()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert report["engine"]["version"] == "0.32.0"
    assert report["canary"]["state"] == "passed"


def test_it_refuses_connections_until_it_is_loaded(tmp_path: Path) -> None:
    container = Launched(tmp_path, FAKE_LOAD="1.5")
    with container.running():
        wait_for(lambda: container.logged("Initializing"), "it loads")
        assert one(container.port, Ask(3)).kind == "connect"
        container.wait_until_started()
        assert one(container.port, Ask(3, pace=0.001)).kind == "ok"


def test_it_ends_where_the_version_has_no_such_flag(tmp_path: Path) -> None:
    container = Launched(tmp_path)
    assert container.run(extra_args=("--no-such-flag=1",)) != 0
    assert "--no-such-flag" in container.log


def test_so_many_run_at_once_and_the_others_wait_in_order(tmp_path: Path) -> None:
    container = Launched(tmp_path)
    with container.running(max_num_seqs=2):
        container.wait_until_started()
        with asking(container.port, *[Ask(150, pace=0.02)] * 5) as ended:
            # What runs at once is bounded: of five that came, three wait.
            wait_for(lambda: container.metric("vllm:num_requests_waiting") == 3, "two run, three wait")
            outcomes = ended()
    assert [o.kind for o in outcomes] == ["ok"] * 5
    assert sum(o.first is not None and o.first > 0.7 for o in outcomes) == 3


def test_work_is_aborted_when_the_client_hangs_up(tmp_path: Path) -> None:
    container = Launched(tmp_path)
    with container.running(max_num_seqs=1):
        container.wait_until_started()
        with asking(container.port, *[Ask(100_000 // 2, pace=1, limit=0.5)] * 2) as ended:
            kinds = [o.kind for o in ended()]
            wait_for(lambda: container.metric("vllm:num_requests_running") == 0, "nothing runs")
            assert container.metric("vllm:num_requests_waiting") == 0
    assert kinds == ["truncated"] * 2


@pytest.mark.parametrize(
    ("version", "health", "kind"), [("0.26.0", False, "connect"), ("0.32.0", True, "status")], ids=["0.26", "0.32"]
)
def test_it_drains_as_its_version_does(tmp_path: Path, version: str, health: bool, kind: str) -> None:
    container = Launched(tmp_path, version)
    with container.running() as process:
        container.wait_until_started()
        with asking(container.port, Ask(60, pace=0.03)) as ended:
            wait_for(lambda: container.metric("vllm:num_requests_running") == 1, "it streams")
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: container.logged("draining up to"), "it drains")
            wait_for(lambda: container.serves() is health, "its /health")
            late = one(container.port, Ask(3))
            process.send_signal(signal.SIGTERM)
            [outcome] = ended()
        assert process.wait(20) == 0
    assert (outcome.kind, outcome.detail) == ("ok", "")
    assert late.kind == kind
    if kind == "status":
        assert late.status == 500
        assert "after shutdown" in late.detail


def test_a_drain_that_runs_out_leaves_its_streams_open_until_it_is_killed(tmp_path: Path) -> None:
    container = Launched(tmp_path)
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", "m", "--host", "127.0.0.1"]
    command += ["--port", str(container.port), "--served-model-name", "falcon-h1r-7b-nvfp4", "--shutdown-timeout", "1"]
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=container.environment, stderr=log)
    try:
        wait_for(container.serves, "it serves")
        with asking(container.port, Ask(60_000, pace=0.1)) as ended:
            wait_for(lambda: container.metric("vllm:num_requests_running") == 1, "it streams")
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: container.logged("force killing"), "its time is over")
            assert process.poll() is None
            process.kill()
            [outcome] = ended()
    finally:
        process.kill()
        process.wait()
    assert outcome.kind == "truncated"
    assert 0 < outcome.tokens < 60


def test_the_death_of_its_core_ends_its_streams_with_an_error_and_itself_with_0(tmp_path: Path) -> None:
    port = free_port()
    container = Launched(tmp_path)
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", "falcon-h1r-7b-nvfp4", "--host", "127.0.0.1"]
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen([*command, "--port", str(port)], env=container.environment, stderr=log)
    container.port = port
    try:
        wait_for(container.serves, "it serves")
        with asking(port, Ask(60_000, pace=0.05)) as ended:
            wait_for(lambda: container.metric("vllm:num_requests_running") == 1, "it streams")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            [core] = [c for c in children if b"EngineCore" in Path(f"/proc/{c}/cmdline").read_bytes()]
            subprocess.run(["kill", "-KILL", core], check=True)
            [outcome] = ended()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert outcome.kind == "error"
    assert "EngineCore encountered an issue" in outcome.detail
