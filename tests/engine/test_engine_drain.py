"""What counts as idle, and for how long it is waited for."""

from collections.abc import Callable, Iterator

import pytest
from tests.engine.launching import intent

from falcon_engine import drain, loopback, memory

BUSY = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b"} 2.0
vllm:num_requests_running{engine="1",model_name="a b"} 1.0
vllm:num_requests_waiting{engine="0",model_name="a b"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a b",reason="capacity"} 4.0
"""
REFUSED = (0, "")
IDLE = """vllm:num_requests_running{engine="0"} 0.0
vllm:num_requests_waiting{engine="0"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",reason="deferred"} 9.0
"""


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (BUSY, 7.0),
        (IDLE, 0.0),
        ("", None),
        ("vllm:num_requests_running 0.0\n", None),
        ("vllm:num_requests_running 3\nvllm:num_requests_waiting 0\n", 3.0),
        ("vllm:num_requests_running x\nvllm:num_requests_waiting 0\n", None),
    ],
)
def test_requests_are_counted_by_exact_names(text: str, count: float | None) -> None:
    assert drain.pending(text) == count


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Callable[..., tuple[float, str]]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(*answers: tuple[int, str] | None, timeout: int = 60) -> tuple[float, str]:
        """Seconds that passed and what was said, with the engine giving these answers, the last one for ever."""
        now = 0.0
        said: list[str] = []

        def following() -> Iterator[tuple[int, str] | None]:
            yield from answers
            while True:
                yield answers[-1]

        script = following()
        refused = False

        def get(port: int, path: str) -> tuple[int, str] | None:
            nonlocal refused
            answer = next(script)
            refused = answer is REFUSED
            return None if refused else answer

        monkeypatch.setattr(loopback, "get", get)
        monkeypatch.setattr(loopback, "listens", lambda port: not refused)

        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds

        drain.drain(intent(drain_timeout_seconds=timeout), said.append, clock=lambda: now, sleep=sleep)
        return now, said[-1]

    return run


def test_idle_twice_in_a_row_after_the_endpoints_are_gone(play: Callable[..., tuple[float, str]]) -> None:
    seconds, said = play((200, IDLE))
    assert seconds == drain.SETTLE_SECONDS + drain.POLL_SECONDS
    assert "idle" in said
    seconds, _ = play((200, IDLE), (200, BUSY), (200, IDLE), (200, IDLE))
    assert seconds == drain.SETTLE_SECONDS + 3 * drain.POLL_SECONDS


def test_unknown_is_not_zero(play: Callable[..., tuple[float, str]]) -> None:
    for answer in ((503, ""), None):
        seconds, said = play((200, IDLE), answer, timeout=20)
        assert seconds == 20
        assert "still run" in said


def test_no_longer_than_the_drain_timeout(play: Callable[..., tuple[float, str]]) -> None:
    assert play((200, BUSY), timeout=30)[0] == 30


def test_addresses_are_gone_before_the_engine_is_whatever_the_timeout(play: Callable[..., tuple[float, str]]) -> None:
    assert play((200, BUSY), timeout=2)[0] == drain.SETTLE_SECONDS


def test_an_engine_that_goes_away_is_drained(play: Callable[..., tuple[float, str]]) -> None:
    assert play((200, BUSY), (200, BUSY), REFUSED)[1] == "the engine is gone: nothing left to drain"


def test_hook_and_launcher_share_one_timeout(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert drain.seconds_drained() == 0.0
    drain.mark_start()
    assert 0.0 < drain.seconds_drained() < 5.0
    drain.forget()
    assert drain.seconds_drained() == 0.0


def test_kills_are_counted_where_the_kernel_says(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    file = f"{tmp_path}/memory.events"
    monkeypatch.setattr(memory, "_COUNTERS", ("/no/such", file))
    assert memory.kills() == 0
    with open(file, "w") as f:
        f.write("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert memory.kills() == 2
