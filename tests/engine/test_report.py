"""The report and /started, through the real launcher and its stand-in engine; and clients that misbehave."""

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.engine.launching import Container, wait_for

from falcon_engine import canary, loopback, serving
from falcon_engine.enginelog import PHASES
from falcon_engine.report import Clamped, Report

STARTS = Path(__file__).parent / "logs" / "starts"
QUICK = "import falcon_engine.watch as w; w.CANARY_PAUSES = (0.05,); w.PROBE_SECONDS = 0.05"


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def asked(container: Container) -> list[Any]:
    """The completions that the stand-in was asked for: path, body, Authorization."""
    file = container.directory / "asked"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_the_report_shows_a_start_while_it_goes_on(container: Container) -> None:
    (container.directory / "hold").touch()
    start = (STARTS / "real-0.26-h200-nvfp4.log").read_bytes()
    (container.directory / "says").write_bytes(start[: start.index(b"Application startup complete")])
    with container.running() as launcher:
        wait_for(lambda: container.report().get("phase") == "captured", "the log is read")
        report = container.report()
        assert container.get("/started") == (503, "The engine does not answer yet; it has come to: captured.\n")
        (container.directory / "hold").unlink()
        container.wait_until_started()
        ready = container.report()
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0
    assert report["schema"] == 1
    assert report["engine"] == {
        "version": "0.26.0",
        "profile": "0.32",
        "nvfp4Kernel": "MarlinNvFp4LinearKernel",
        "attentionBackend": "FLASH_ATTN",
        "quantization": "modelopt_fp4",
        "maxNumSeqs": 256,
    }
    assert report["checkpoint"] == {"path": str(container.model), "nvfp4": False}
    assert report["capacity"] == {
        "blocks": None,
        "blockTokens": 3328,
        "tokens": 2719744,
        "maxConcurrency": 41.5,
        "kvAvailableGiB": 115.91,
        "weightsGiB": 5.19,
    }
    assert (report["gpus"], report["clamped"], report["retries"]) == ([], None, [])
    assert report["canary"] == {"state": "pending", "seconds": None, "error": None}
    assert list(report["phases"]) == ["prepared", "imported", "loaded", "compiled", "captured"]
    assert list(ready["phases"]) == list(PHASES)
    assert list(ready["phases"].values()) == sorted(ready["phases"].values())
    assert ready["phase"] == "ready"
    assert ready["canary"]["state"] == "passed"
    assert ready["canary"]["seconds"] >= 0


def test_the_start_is_over_only_when_a_token_has_come(container: Container) -> None:
    told = container.directory / "completion"
    told.write_text("500")
    with container.running(prelude=QUICK) as launcher:
        wait_for(lambda: container.report().get("canary", {}).get("state") == "failed", "the canary fails")
        status, sentence = container.get("/started") or (0, "")
        wait_for(lambda: len(asked(container)) > 2, "it is asked again")
        told.unlink()
        container.wait_until_started()
        assert container.report()["canary"]["error"] is None
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0
    assert status == 503
    assert sentence == (
        "The engine is healthy, but a completion of one token was answered with status 500: "
        "EngineCore encountered an issue.\n"
    )
    assert container.log.count("warning: the engine is healthy, but not ready") == 1
    assert not container.termination.exists()
    assert asked(container)[0][:2] == [
        "/v1/completions",
        {"model": "falcon-h1r-7b-nvfp4", "prompt": "1", "max_tokens": 1, "temperature": 0},
    ]


def test_the_canary_has_the_engines_key(container: Container) -> None:
    container.environment["VLLM_API_KEY"] = "s3cret"
    with container.running():
        container.wait_until_started()
    assert asked(container)[0][2] == "Bearer s3cret"
    assert "s3cret" not in container.log


def test_without_a_canary_health_alone_decides(container: Container) -> None:
    (container.directory / "completion").write_text("500")
    with container.running(canary=False):
        container.wait_until_started()
        assert container.report()["canary"]["state"] == "off"
    assert asked(container) == []


def test_a_stop_of_an_engine_whose_canary_fails_says_so(container: Container) -> None:
    (container.directory / "completion").write_text("500")
    with container.running(prelude=QUICK) as launcher:
        wait_for(lambda: container.report().get("canary", {}).get("state") == "failed", "the canary fails")
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0
    diagnosis = container.diagnosis()
    assert (diagnosis.reason, diagnosis.exit_code) == ("CanaryFailed", 0)
    assert "status 500: EngineCore encountered an issue." in diagnosis.message
    assert "spec.startup.canary: false" in diagnosis.hint


@contextmanager
def engine_that_says(answer: bytes) -> Iterator[int]:
    """Takes one connection, sends these bytes and hangs up; without any it stays silent. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            client, _ = server.accept()
            # All of it: a connection that is closed with something unread is reset, and its answer lost.
            with client.makefile("rb") as request:
                length = 0
                while line := request.readline().strip():
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                request.read(length)
            if answer:
                client.sendall(answer)
                client.close()

        threading.Thread(target=talk, daemon=True).start()
        yield server.getsockname()[1]


def test_an_engine_that_hangs_in_its_first_completion_has_not_answered() -> None:
    with engine_that_says(b"") as port:
        begin = time.monotonic()
        assert (canary.ask(port, "m", {}, 0.2) or "").startswith("no answer to a completion of one token within ")
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"choices": []}', b'{"choices": [{"text": null}]}', b"\xff\xfe", b"<html>" * 100]
)
def test_only_a_completion_passes_for_one(body: bytes) -> None:
    with engine_that_says(b"HTTP/1.1 200 OK\r\n\r\n" + body) as port:
        error = canary.ask(port, "m", {}, 5)
    assert error is not None
    assert error.startswith("a completion of one token was answered with something else: ")
    assert len(error) < 300


def test_whoever_hangs_keeps_nobody_else_from_an_answer(container: Container) -> None:
    (container.directory / "hold").touch()
    with container.running() as launcher:
        wait_for(container.report, "the report is served")
        hanging = []
        for number in range(3 * serving.MOST_CLIENTS):
            client = socket.create_connection(("127.0.0.1", container.report_port), 5)
            client.send(b"GET /report HTTP/1.1\r\nX: " if number % 2 else b"")
            hanging.append(client)
        assert container.report()["phase"] == "prepared"
        threads = len(list(Path(f"/proc/{launcher.pid}/task").iterdir()))
        assert threads < serving.MOST_CLIENTS + 12
        for client in hanging:
            client.close()
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 0


def test_it_answers_two_paths_and_no_others(container: Container) -> None:
    with container.running():
        wait_for(container.report, "the report is served")
        assert container.get("/metrics") == (404, "/report or /started\n")
        assert loopback.request("POST", container.report_port, "/report", 2.0, b"{}") is not None
        assert (loopback.request("POST", container.report_port, "/report", 2.0, b"{}") or (0,))[0] == 501
        assert (container.get("/report?pretty") or (0,))[0] == 200


def test_a_taken_port_is_said_and_the_engine_runs(container: Container) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", container.report_port))
        taken.listen()
        with container.running() as launcher:
            container.wait_until_served()
            launcher.send_signal(signal.SIGTERM)
            assert launcher.wait(20) == 0
    assert f"falcon: warning: no report: port {container.report_port} cannot be listened on" in container.log


@pytest.mark.parametrize(("stated", "port"), [("", 8001), ("9001", 9001), ("many", 8001), ("70000", 8001)])
def test_the_port(monkeypatch: pytest.MonkeyPatch, stated: str, port: int) -> None:
    monkeypatch.setenv(serving.VARIABLE, stated)
    assert serving.port() == port


def test_a_report_stays_small_and_starts_anew_with_the_engine() -> None:
    now = [0.0]
    report = Report(lambda: now[0])
    report.prepared()
    for _ in range(40):
        log = report.begin(canary=True)
        now[0] += 1
        log.feed(b"Using X attention backend out of potential backends: []", report.seconds())
        log.feed(b"Model loading took 5.19 GiB memory", report.seconds())
        report.retry("GPUMemoryTaken", "long " * 4000)
    report.put(clamped=Clamped(256, 99, "why " * 4000))
    text = report.to_json()
    assert len(text) < 64 * 1024
    report.begin(canary=False)
    document = json.loads(report.to_json())
    assert document["engine"]["attentionBackend"] is None
    assert document["phases"] == {"prepared": 0.0}
    assert len(document["retries"]) == 40
    assert document["canary"]["state"] == "off"
