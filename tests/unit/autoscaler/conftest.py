"""Fixtures of the tests of the autoscaler's looking."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.unit.autoscaler.setting import ONE, TWO, Setting
from tests.unit.load_pods import Gateway, running

from falcon_operator.runtime import sources, watched


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """All periods are a tenth, and a turn a hundredth of a second."""
    for module, name, value in (
        (watched, "GATEWAY_SECONDS", 0.1),
        (watched, "IDLE_SECONDS", 0.5),
        (watched, "DOUBT_SECONDS", 0.02),
        (watched, "DOUBT_AGAIN_SECONDS", 0.04),
        (watched, "ENGINE_SECONDS", 0.5),
        (watched, "LOAD_SECONDS", 0.1),
        (watched, "NO_LOAD_SECONDS", 0.5),
        (watched, "PLAN_SECONDS", 0.02),
        (watched, "GATHER_SECONDS", 0.02),
        (watched, "WORDS_SECONDS", 0.3),
        (sources, "LOOK_SECONDS", 0.45),
        (sources, "NEWS_SECONDS", 2.5),
        (sources, "AGAIN_SECONDS", 0.1),
        (sources, "PATIENT_SECONDS", 0.5),
        (sources, "TURNS", 100),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Gateway, Gateway, Setting]]:
    first, second = Gateway(ONE), Gateway(TWO)
    async with running(first, second) as port:
        setting = Setting(port)
        yield first, second, setting
        await setting.autoscaler.close()
        names = [task.get_name() for task in asyncio.all_tasks() if not task.cancelling()]
        assert [name for name in names if name.startswith(("connect to", "load of"))] == []
