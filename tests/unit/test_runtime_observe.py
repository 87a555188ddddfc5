import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from falcon_operator.observe import engine
from falcon_operator.observe.engine import EngineObserver

OWNER = ("ns", "web")
MODELS = {"object": "list", "data": [{"id": "falcon", "max_model_len": 65536}, {"id": "lora", "max_model_len": 4096}]}

Answer = Callable[[web.Request], web.StreamResponse]


def pod(uid: str = "p1", restarts: int = 0, address: str | None = "127.0.0.1") -> dict[str, Any]:
    return {
        "metadata": {"uid": uid},
        "status": {"podIP": address, "containerStatuses": [{"name": "engine", "restartCount": restarts}]},
    }


def serving(request: web.Request) -> web.StreamResponse:
    return web.json_response({"/v1/models": MODELS, "/version": {"version": "0.33.0"}}[request.path])


class Engine:
    """An engine that answers as a function says, what it was asked, and an observer that asks it."""

    def __init__(self) -> None:
        self.answer: Answer = serving
        self.paths: list[str] = []
        self.changes: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        return self.answer(request)

    async def changed(self) -> tuple[str, str]:
        return await asyncio.wait_for(self.changes.get(), 5)

    def start(self, port: int) -> None:
        self.port = port
        self.observer = EngineObserver(self.changes.put_nowait, port=port)


@pytest.fixture
async def asked() -> AsyncIterator[Engine]:
    asked = Engine()
    application = web.Application()
    application.router.add_get("/{path:.*}", asked.handle)
    server = TestServer(application)
    await server.start_server()
    assert server.port is not None
    asked.start(server.port)
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
    assert asked.paths == ["/v1/models", "/version"]
    asked.answer = lambda _: web.json_response({"data": [{"id": "changed"}]})
    asked.observer.want(pod(restarts=1), OWNER)
    await asked.changed()
    assert asked.observer.facts["p1"].model_names == ("changed",)


async def test_an_engine_that_does_not_answer_is_asked_again(asked: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RETRY_SECONDS", (0.01,))
    asked.answer = lambda _: web.Response(status=503)
    asked.observer.want(pod(), OWNER)
    await asked.changed()
    assert asked.observer.facts["p1"].error == f"http://127.0.0.1:{asked.port}/v1/models answered with status 503"
    asked.answer = serving
    await asked.changed()
    assert asked.observer.facts["p1"].error is None


async def test_a_closed_port_is_named() -> None:
    observer = EngineObserver(lambda _: None, port=1)
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
    observer = EngineObserver(lambda _: None, port=1)
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
