import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from falcon_operator.decide.types import Event
from falcon_operator.kube.client import KubeClient
from falcon_operator.kube.errors import Conflict, NotFound, Unavailable
from falcon_operator.kube.events import EventRecorder, event_name
from falcon_operator.kube.limiter import Limiter

RESOURCE = {"apiVersion": "g/v1", "kind": "K", "metadata": {"namespace": "ns", "name": "web", "uid": "u1"}}
FAILED = Event("Warning", "EngineFailed", "Start", "the engine failed")


class FakeApi:
    """The API server's Events: create, get and merge-patch."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.writes = 0
        self.problem: Exception | None = None

    async def create_event(self, event: dict[str, Any]) -> dict[str, Any]:
        self._write()
        if event["metadata"]["name"] in self.events:
            raise Conflict(409, "AlreadyExists", "it exists")
        self.events[event["metadata"]["name"]] = event
        return event

    async def patch_event(self, namespace: str, name: str, patch: dict[str, Any]) -> dict[str, Any]:
        self._write()
        if name not in self.events:
            raise NotFound(404, "NotFound", "no")
        self.events[name] |= patch
        return self.events[name]

    async def get(self, resource: object, namespace: str, name: str) -> dict[str, Any]:
        return self.events[name]

    def _write(self) -> None:
        self.writes += 1
        if self.problem is not None:
            raise self.problem


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


def recorder(api: FakeApi, **more: Any) -> EventRecorder:
    return EventRecorder(cast(KubeClient, api), "test", now=lambda: datetime(2026, 11, 24, tzinfo=UTC), **more)


async def said(recorder: EventRecorder, *events: Event) -> list[bool]:
    answers = [recorder.record(RESOURCE, event) for event in events]
    task = asyncio.create_task(recorder.run())
    await recorder._queue.join()
    task.cancel()
    return answers


async def test_the_same_thing_is_one_event_with_a_count(api: FakeApi) -> None:
    await said(recorder(api), FAILED, FAILED, FAILED)
    (event,) = api.events.values()
    assert event["count"] == 3
    assert event["message"] == "the engine failed"
    assert event["involvedObject"] == {
        "apiVersion": "g/v1", "kind": "K", "namespace": "ns", "name": "web", "uid": "u1"
    }  # fmt: skip


async def test_counting_goes_on_after_a_restart(api: FakeApi) -> None:
    await said(recorder(api), FAILED, FAILED)
    await said(recorder(api), FAILED)
    assert [event["count"] for event in api.events.values()] == [3]


async def test_what_expired_is_said_anew(api: FakeApi) -> None:
    one = recorder(api)
    await said(one, FAILED)
    api.events.clear()
    await said(one, FAILED)
    assert [event["count"] for event in api.events.values()] == [1]


async def test_a_flood_is_cut(api: FakeApi) -> None:
    answers = await said(recorder(api, limiter=Limiter(5, 300)), *[FAILED] * 50)
    assert answers.count(True) == 5
    assert api.writes == 5


async def test_an_api_server_that_fails_is_no_problem(api: FakeApi) -> None:
    one = recorder(api)
    api.problem = Unavailable(503, "Unavailable", "no")
    await said(one, FAILED)
    api.problem = None
    await said(one, FAILED)
    assert [event["count"] for event in api.events.values()] == [1]


async def test_a_long_note_is_shortened_to_what_the_api_server_takes(api: FakeApi) -> None:
    await said(recorder(api), Event("Normal", "R", "A", "ä" * 2000))
    (event,) = api.events.values()
    assert len(event["message"].encode()) <= 1024
    assert event["message"].endswith("...")


def test_names_differ_by_what_is_said_and_of_whom() -> None:
    other = {**{"uid": "u1", "name": "web"}}
    names = {
        event_name(other, FAILED),
        event_name({**other, "uid": "u2"}, FAILED),
        event_name(other, Event("Normal", "EngineFailed", "Start", "the engine failed")),
        event_name(other, Event("Warning", "EngineFailed", "Start", "another")),
    }
    assert len(names) == 4
    assert all(name.startswith("web.") for name in names)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_then_a_trickle(clock: Callable[[], float]) -> None:
    assert isinstance(clock, Clock)
    limiter = Limiter(3, 10, clock=clock)
    assert [limiter.wait("a") for _ in range(3)] == [0, 0, 0]
    assert limiter.wait("a") == pytest.approx(10)
    clock.now = 4
    assert limiter.wait("a") == pytest.approx(6)
    assert limiter.wait("b") == 0, "keys do not share"
    clock.now = 10
    assert limiter.wait("a") == 0
    assert limiter.wait("a") > 0
    limiter.forget("a")
    assert limiter.wait("a") == 0


def test_buckets_do_not_pile_up(clock: Callable[[], float]) -> None:
    limiter = Limiter(1, 10, clock=clock, keys=2)
    for key in "abc":
        limiter.wait(key)
    assert limiter.wait("a") == 0, "the oldest was forgotten"
    assert limiter.wait("c") > 0
