import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from falcon_operator.observe import engine
from falcon_operator.observe.engine import EngineObserver

OWNER = ("ns", "web")
MODELS = {"object": "list", "data": [{"id": "falcon", "max_model_len": 65536}, {"id": "lora", "max_model_len": 4096}]}

Answer = Callable[[httpx.Request], httpx.Response]


def pod(uid: str = "p1", restarts: int = 0, address: str | None = "10.1.2.3") -> dict[str, Any]:
    return {
        "metadata": {"uid": uid},
        "status": {"podIP": address, "containerStatuses": [{"name": "engine", "restartCount": restarts}]},
    }


def serving(request: httpx.Request) -> httpx.Response:
    bodies = {"/v1/models": MODELS, "/version": {"version": "0.33.0"}}
    return httpx.Response(200, json=bodies[request.url.path])


class Asked:
    """An observer of engines that answer as a function says, and what it asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.urls: list[str] = []
        self.changes: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.observer = EngineObserver(self.changes.put_nowait, client=self._client)

    def _client(self) -> httpx.AsyncClient:
        def handle(request: httpx.Request) -> httpx.Response:
            self.urls.append(str(request.url))
            return self.answer(request)

        return httpx.AsyncClient(transport=httpx.MockTransport(handle))

    async def changed(self) -> tuple[str, str]:
        return await asyncio.wait_for(self.changes.get(), 5)


async def test_a_ready_engine_is_asked_once_for_each_start() -> None:
    asked = Asked(serving)
    for _ in range(3):
        asked.observer.want(pod(), OWNER)
    assert await asked.changed() == OWNER
    facts = asked.observer.facts["p1"]
    assert facts.model_names == ("falcon", "lora")
    assert (facts.max_model_len, facts.version, facts.error) == (4096, "0.33.0", None)
    assert asked.urls == ["http://10.1.2.3:8000/v1/models", "http://10.1.2.3:8000/version"]
    asked.answer = lambda _: httpx.Response(200, json={"data": [{"id": "changed"}]})
    asked.observer.want(pod(restarts=1), OWNER)
    await asked.changed()
    assert asked.observer.facts["p1"].model_names == ("changed",)
    await asked.observer.close()


async def test_an_engine_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RETRY_SECONDS", (0.01,))

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    asked = Asked(refuse)
    asked.observer.want(pod(), OWNER)
    await asked.changed()
    assert asked.observer.facts["p1"].error == "http://10.1.2.3:8000/v1/models does not answer: ConnectError"
    asked.answer = serving
    await asked.changed()
    assert asked.observer.facts["p1"].error is None
    await asked.observer.close()


async def test_nothing_is_remembered_of_a_pod_that_is_gone() -> None:
    asked = Asked(serving)
    asked.observer.want(pod(), OWNER)
    await asked.changed()
    asked.observer.forget("p1")
    assert asked.observer.facts == {}
    await asked.observer.close()


async def test_a_pod_without_an_address_is_not_asked() -> None:
    asked = Asked(serving)
    asked.observer.want(pod(address=None), OWNER)
    await asked.observer.close()
    assert asked.urls == []


async def test_an_ipv6_address_is_put_in_brackets() -> None:
    asked = Asked(serving)
    asked.observer.want(pod(address="fd00::1"), OWNER)
    await asked.changed()
    assert asked.urls[0] == "http://[fd00::1]:8000/v1/models"
    await asked.observer.close()


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
async def test_garbage_is_a_sentence(body: bytes, part: str) -> None:
    asked = Asked(lambda _: httpx.Response(200, content=body))
    facts = await asked.observer.read("p1", "10.1.2.3")
    assert part in (facts.error or "")
    await asked.observer.close()


@pytest.mark.parametrize("entry", [None, 7, "x", {"id": 3}, {"name": "no id"}])
async def test_an_odd_entry_of_the_list_is_left_out(entry: Any) -> None:
    asked = Asked(lambda r: httpx.Response(200, content=json.dumps({"data": [entry, {"id": "falcon"}]})))
    facts = await asked.observer.read("p1", "10.1.2.3")
    assert facts.model_names == ("falcon",)
    await asked.observer.close()


async def test_another_status_is_a_sentence_and_a_missing_version_is_not() -> None:
    asked = Asked(lambda r: httpx.Response(503) if r.url.path == "/v1/models" else serving(r))
    assert (await asked.observer.read("p1", "h")).error == "http://h:8000/v1/models answered with status 503"
    asked.answer = lambda r: serving(r) if r.url.path == "/v1/models" else httpx.Response(404)
    facts = await asked.observer.read("p1", "h")
    assert (facts.error, facts.version, facts.model_names) == (None, None, ("falcon", "lora"))
    await asked.observer.close()
