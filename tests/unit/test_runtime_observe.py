import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from falcon_operator.decide.report import CacheFigures
from falcon_operator.decide.types import EngineFacts
from falcon_operator.observe import engine
from falcon_operator.observe.engine import EngineObserver
from falcon_operator.observe.http import Unreadable

OWNER = ("ns", "web")
MODELS = {"object": "list", "data": [{"id": "falcon", "max_model_len": 65536}, {"id": "lora", "max_model_len": 4096}]}

Answer = Callable[[web.Request], web.StreamResponse]


METRICS = (
    'vllm:cache_config_info_created{num_gpu_blocks="1"} 1.7e9\n'
    'vllm:cache_config_info{block_size="3328",kv_cache_max_concurrency="41.5",kv_cache_size_tokens="2719744",'
    'num_gpu_blocks="1660"} 1.0\n'
)


def pod(uid: str = "p1", restarts: int = 0, address: str | None = "127.0.0.1", ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"uid": uid},
        "status": {
            "podIP": address,
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "engine", "restartCount": restarts}],
        },
    }


def serving(request: web.Request) -> web.StreamResponse:
    if request.path == "/metrics":
        return web.Response(text=METRICS)
    answers = {"/v1/models": MODELS, "/version": {"version": "0.33.0"}, "/report": said("ready")}
    return web.json_response(answers[request.path])


def said(phase: str, **more: Any) -> dict[str, Any]:
    """A report of a start that is so far."""
    return {"schema": 1, "engine": {"version": "0.26.0"}, "phase": phase, "phases": {phase: 1.5}, **more}


class Engine:
    """An engine that answers as a function says, what it was asked, and an observer that asks it."""

    def __init__(self) -> None:
        self.answer: Answer = serving
        self.paths: list[str] = []
        self.handle_with: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self.asked = asyncio.Event()
        self.changes: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.others: set[asyncio.Task[Any]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.asked.set()
        if request.path in self.handle_with:
            return await self.handle_with[request.path](request)
        return self.answer(request)

    async def changed(self) -> tuple[str, str]:
        return await asyncio.wait_for(self.changes.get(), 5)

    def start(self, port: int) -> None:
        self.port = port
        self.observer = EngineObserver(self.changes.put_nowait, port=port, launcher_port=port)


@pytest.fixture
async def asked() -> AsyncIterator[Engine]:
    asked = Engine()
    application = web.Application()
    application.router.add_get("/{path:.*}", asked.handle)
    server = TestServer(application)
    await server.start_server()
    assert server.port is not None
    asked.start(server.port)
    asked.others = asyncio.all_tasks()
    yield asked
    await asked.observer.close()
    await server.close()


async def test_a_ready_engine_is_asked_once_for_each_start(asked: Engine) -> None:
    assert [asked.observer.want(pod(), OWNER) for _ in range(3)] == [True] * 3
    assert await asked.changed() == OWNER
    assert not asked.observer.want(pod(), OWNER), "it has answered"
    facts = asked.observer.facts["p1"]
    assert facts.model_names == ("falcon", "lora")
    assert (facts.max_model_len, facts.version, facts.error) == (4096, "0.33.0", None)
    assert facts.cache == CacheFigures(1660, 3328, 2719744, 41.5)
    assert facts.report is not None
    assert facts.report.phase == "ready"
    assert sorted(asked.paths) == ["/metrics", "/report", "/v1/models", "/version"]
    asked.answer = lambda _: web.json_response({"data": [{"id": "changed"}]})
    asked.observer.want(pod(restarts=1), OWNER)
    await asked.changed()
    assert asked.observer.facts["p1"] == EngineFacts("p1", ("changed",), None, None, None, restarts=1)


async def test_an_engine_that_does_not_answer_is_asked_again(asked: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RETRY_SECONDS", (0.01,))
    asked.answer = lambda _: web.Response(status=503)
    asked.observer.want(pod(), OWNER)
    await asked.changed()
    assert asked.observer.facts["p1"].error == f"http://127.0.0.1:{asked.port}/v1/models answered with status 503"
    asked.answer = serving
    await asked.changed()
    assert asked.observer.facts["p1"].error is None


RUNNING = 'vllm:num_requests_running{engine="0",model_name="falcon"} '
WAITING = 'vllm:num_requests_waiting{engine="0",model_name="falcon"} '
BY_REASON = 'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 90.0\n'


async def test_the_load_of_an_engine_is_what_runs_and_waits(asked: Engine) -> None:
    asked.answer = lambda _: web.Response(text=f"{METRICS}{RUNNING}3.0\n{WAITING}2.0\n{BY_REASON}")
    assert await asked.observer.load("127.0.0.1") == 5
    assert asked.paths == ["/metrics"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: web.Response(status=500, text=f"{RUNNING}0\n{WAITING}0\n"), "answered with status 500"),
        (lambda: web.Response(text=METRICS), "does not say how many requests run and wait"),
        (lambda: web.Response(text=f"{RUNNING}0.0\n{BY_REASON}"), "does not say how many requests run and wait"),
        (lambda: web.Response(body=b"\xff" * 100 + b"\n"), "does not say how many requests run and wait"),
        (lambda: web.Response(body=b"x" * 2 * engine.LOAD_BYTES), "more than 1024 KiB"),
    ],
    ids=["an error", "other metrics", "one of two", "no text", "too much"],
)
async def test_a_load_that_is_not_known_is_not_zero(
    asked: Engine, answer: Callable[[], web.Response], words: str
) -> None:
    asked.answer = lambda _: answer()
    with pytest.raises(Unreadable, match=words):
        await asked.observer.load("127.0.0.1")


async def test_a_closed_port_is_named() -> None:
    observer = EngineObserver(lambda _: None, port=1, launcher_port=1)
    facts = await observer.read("p1", "127.0.0.1")
    assert facts.error == "http://127.0.0.1:1/v1/models does not answer: connection refused"
    await observer.close()


async def test_nothing_is_remembered_of_a_pod_that_is_gone(asked: Engine) -> None:
    asked.observer.want(pod(), OWNER)
    await asked.changed()
    asked.observer.forget("p1")
    assert asked.observer.facts == {}


async def test_a_pod_without_an_address_is_not_asked(asked: Engine) -> None:
    asked.observer.want(pod(address=None), OWNER)
    await asked.observer.close()
    assert asked.paths == []


async def test_an_ipv6_address_is_put_in_brackets() -> None:
    observer = EngineObserver(lambda _: None, port=1, launcher_port=1)
    facts = await observer.read("p1", "::1")
    assert (facts.error or "").startswith("http://[::1]:1/v1/models does not answer")
    await observer.close()


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"<html>", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no list of models"),
        (b"{}", "no list of models"),
        (b'{"data": 7}', "no list of models"),
        (b'{"data": null}', "no list of models"),
        (b"x" * 300_000, "more than 256 KiB"),
    ],
)
async def test_garbage_is_a_sentence(asked: Engine, body: bytes, part: str) -> None:
    asked.answer = lambda _: web.Response(body=body)
    facts = await asked.observer.read("p1", "127.0.0.1")
    assert part in (facts.error or "")


@pytest.mark.parametrize("entry", [None, 7, "x", {"id": 3}, {"name": "no id"}])
async def test_an_odd_entry_of_the_list_is_left_out(asked: Engine, entry: Any) -> None:
    asked.answer = lambda _: web.Response(text=json.dumps({"data": [entry, {"id": "falcon"}]}))
    facts = await asked.observer.read("p1", "127.0.0.1")
    assert facts.model_names == ("falcon",)


async def test_an_engine_without_a_version_is_read_all_the_same(asked: Engine) -> None:
    asked.answer = lambda request: serving(request) if request.path == "/v1/models" else web.Response(status=404)
    facts = await asked.observer.read("p1", "127.0.0.1")
    assert (facts.error, facts.version, facts.model_names) == (None, None, ("falcon", "lora"))


@pytest.mark.parametrize(
    "report",
    [lambda: web.Response(status=404), lambda: web.Response(text="<html>"), lambda: web.json_response({"schema": 9})],
    ids=["none", "HTML", "another schema"],
)
async def test_an_engine_without_a_report_is_read_all_the_same(
    asked: Engine, report: Callable[[], web.Response]
) -> None:
    asked.answer = lambda request: report() if request.path == "/report" else serving(request)
    facts = await asked.observer.read("p1", "127.0.0.1")
    assert (facts.error, facts.version, facts.report) == (None, "0.33.0", None)


@pytest.mark.parametrize("metrics", [b"<html>", b"vllm:cache_config_info 1.0\n", b"x" * 5_000_000, b"\n" * 5_000_000])
async def test_metrics_without_the_cache_are_no_error(asked: Engine, metrics: bytes) -> None:
    asked.answer = lambda request: web.Response(body=metrics) if request.path == "/metrics" else serving(request)
    facts = await asked.observer.read("p1", "127.0.0.1")
    assert (facts.error, facts.cache) == (None, None)


async def test_an_answer_without_an_end_is_left_at_its_bound(asked: Engine) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"x" * 65536)
                sent += 65536
        return response

    asked.handle_with = {"/metrics": endless}
    facts = await asked.observer.read("p1", "127.0.0.1")
    assert (facts.model_names, facts.cache) == (("falcon", "lora"), None)
    assert sent < 50_000_000, "a stream of 100 MB is not read to its end"


async def test_the_launcher_of_a_starting_engine_is_followed(asked: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STARTING_SECONDS", (0.01,))
    phases = iter(["prepared", "imported", "imported", "imported"])
    asked.answer = lambda _: web.json_response(said(next(phases, "loaded")))
    assert not asked.observer.want(pod(ready=False), OWNER), "a start takes its time: no status waits for it"
    assert not asked.observer.want(pod(ready=False), OWNER)
    seen = []
    for _ in range(3):
        await asked.changed()
        facts = asked.observer.facts["p1"]
        assert facts.report is not None
        seen.append((facts.serving, facts.report.phase, facts.model_names))
    assert seen == [(False, phase, ()) for phase in ("prepared", "imported", "loaded")], "only news is news"
    assert set(asked.paths) == {"/report"}, "the engine itself does not listen yet"
    asked.answer = serving
    asked.observer.want(pod(), OWNER)
    while not asked.observer.facts["p1"].serving:
        await asked.changed()
    assert asked.observer.facts["p1"].model_names == ("falcon", "lora")


async def test_a_launcher_without_a_report_is_given_up(asked: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STARTING_SECONDS", (0.0,))
    monkeypatch.setattr(engine, "MISSED_SECONDS", (0.0, 0.0))
    asked.answer = lambda _: web.Response(status=404)
    asked.observer.want(pod(ready=False), OWNER)
    [task] = asyncio.all_tasks() - {asyncio.current_task()} - asked.others
    await asyncio.wait_for(task, 5)
    assert asked.paths == ["/report"] * 3
    assert asked.observer.facts == {}


async def test_what_was_said_during_the_start_is_kept_where_the_launcher_no_longer_answers(
    asked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "STARTING_SECONDS", (0.0,))
    asked.observer.want(pod(ready=False), OWNER)
    await asked.changed()
    asked.answer = lambda request: web.Response(status=404) if request.path == "/report" else serving(request)
    facts = await asked.observer.read("p1", "127.0.0.1")
    assert facts.report is not None
    assert (await asked.observer.read("p1", "127.0.0.1", restarts=1)).report is None, "of this start only"


async def test_starting_pods_do_not_hold_up_ready_ones(asked: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STARTING_SECONDS", (0.0,))
    hangs = asyncio.Event()

    async def hanging(request: web.Request) -> web.StreamResponse:
        if asked.paths.count("/report") <= engine.AT_ONCE:
            await hangs.wait()
        return serving(request)

    asked.handle_with = {"/report": hanging}
    for number in range(2 * engine.AT_ONCE):
        asked.observer.want(pod(f"s{number}", ready=False), OWNER)
    while asked.paths.count("/report") < engine.AT_ONCE:
        await asyncio.wait_for(asked.asked.wait(), 5)
        asked.asked.clear()
    asked.observer.want(pod(), OWNER)
    await asked.changed()
    assert asked.observer.facts["p1"].serving
    hangs.set()
