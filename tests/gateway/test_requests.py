"""What one request may be, and what becomes of it."""

from __future__ import annotations

import json

import pytest
from tests.gateway.conftest import Start, StartEngine
from tests.gateway.gateway import CHAT, Gateway


@pytest.fixture
async def served(start: Start, start_engine: StartEngine) -> Gateway:
    """A gateway with one engine, which answers at once."""
    gateway = await start(body_bytes=1_000_000)
    gateway.names.ports = [(await start_engine()).port]
    return gateway


async def test_an_answer_comes_whole(served: Gateway) -> None:
    asked = await served.ask("a", chunks=5)
    lines = (await asked.answer()).decode().split("\n\n")
    assert [line.split()[1] for line in lines[:-2]] == ["0", "1", "2", "3", "4"]
    assert lines[-2:] == ["data: [DONE]", ""]
    assert asked.status == 200


async def test_chunks_are_not_kept_back(start: Start, start_engine: StartEngine) -> None:
    gateway = await start()
    engine = await start_engine(automatic=False)
    gateway.names.ports = [engine.port]
    asked = await gateway.ask("a", chunks=3)
    await asked.begin()
    for number in range(3):
        engine.taken[0].more.release()
        assert await asked.chunk() == f"data: {number} \n\n".encode()


@pytest.mark.parametrize(
    "path", ["/invocations", "/metrics", "/tokenize", "/v1/chat/completions/", "/v1/embeddings", "/"]
)
async def test_other_paths_are_closed(served: Gateway, path: str) -> None:
    for asked in (await served.get(path), await served.ask(path=path)):
        assert (await asked.error())["code"] == "unknown_url"
        assert asked.status == 404
