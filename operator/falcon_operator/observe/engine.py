"""Asks a Ready engine what it serves: `/v1/models` and `/version`, once for each start of its container."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from falcon_operator.api import names
from falcon_operator.decide.types import EngineFacts

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 2.0
READ_SECONDS = 5.0
BODY_BYTES = 256 * 1024
AT_ONCE = 8
# A Ready engine that does not answer is asked again, less and less often.
RETRY_SECONDS = (2.0, 5.0, 15.0, 60.0, 300.0)

log = logging.getLogger(__name__)


@dataclass
class _Asked:
    start: tuple[str, int]  # address and restarts: another value is another start of the engine


class EngineObserver:
    """Facts by pod UID. Asking happens in the background; `changed` gets the owner's key when facts are new."""

    def __init__(
        self, changed: Callable[[tuple[str, str]], None], *, client: Callable[[], httpx.AsyncClient] | None = None
    ) -> None:
        self.facts: dict[str, EngineFacts] = {}
        self._changed = changed
        self._make_client = client or _client
        self._client: httpx.AsyncClient | None = None
        self._asked: dict[str, _Asked] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)

    def want(self, pod: Mapping[str, Any], owner: tuple[str, str]) -> None:
        """Ask this pod, unless that was done since its container started."""
        uid, address = pod["metadata"]["uid"], (pod.get("status") or {}).get("podIP")
        if not address:
            return
        start = (address, _restarts(pod))
        asked = self._asked.get(uid)
        if asked is not None and asked.start == start:
            return
        self._asked[uid] = _Asked(start)
        self._spawn(uid, owner)

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self.facts.pop(uid, None)
        self._asked.pop(uid, None)

    async def close(self) -> None:
        """Stop asking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def _spawn(self, uid: str, owner: tuple[str, str]) -> None:
        task = asyncio.create_task(self._ask(uid, owner), name=f"ask {uid}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, uid: str, owner: tuple[str, str]) -> None:
        asked = self._asked[uid]
        for delay in chain((0.0,), RETRY_SECONDS, repeat(RETRY_SECONDS[-1])):
            await asyncio.sleep(delay)
            if self._asked.get(uid) is not asked:
                return
            async with self._slots:
                facts = await self.read(uid, asked.start[0])
            if self._asked.get(uid) is not asked:
                return  # gone, or started again meanwhile: that start has its own task
            if self.facts.get(uid) != facts:
                self.facts[uid] = facts
                self._changed(owner)
            if facts.error is None:
                return

    async def read(self, uid: str, address: str) -> EngineFacts:
        """Ask one engine; whatever it answers, the result is facts or a sentence."""
        base = f"http://{f'[{address}]' if ':' in address else address}:{names.ENGINE_PORT}"
        try:
            models = await self._json(f"{base}/v1/models")
            served = [model for model in models["data"] if isinstance(model, dict) and isinstance(model.get("id"), str)]
            lengths = [model["max_model_len"] for model in served if isinstance(model.get("max_model_len"), int)]
        except _Unreadable as problem:
            return EngineFacts(uid, (), None, None, str(problem))
        except (KeyError, TypeError):
            return EngineFacts(
                uid, (), None, None, f"{base}/v1/models answered with something that is no list of models"
            )
        return EngineFacts(
            pod_uid=uid,
            model_names=tuple(model["id"] for model in served),
            max_model_len=min(lengths, default=None),
            version=await self._version(f"{base}/version"),
            error=None,
        )

    async def _version(self, url: str) -> str | None:
        try:
            version = (await self._json(url))["version"]
        except (_Unreadable, KeyError, TypeError):
            return None
        return version if isinstance(version, str) and len(version) <= 64 else None

    async def _json(self, url: str) -> Any:
        import httpx  # 7 MB that an operator without a Ready engine does not need

        if self._client is None:
            self._client = self._make_client()
        try:
            async with self._client.stream("GET", url) as response:
                if response.status_code != 200:
                    raise _Unreadable(f"{url} answered with status {response.status_code}")
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > BODY_BYTES:
                        raise _Unreadable(f"{url} answered with more than {BODY_BYTES // 1024} KiB")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise _Unreadable(f"{url} does not answer: {type(error).__name__}") from error
        try:
            return json.loads(bytes(body))
        except (ValueError, RecursionError) as error:
            raise _Unreadable(f"{url} answered with something that is not JSON") from error


class _Unreadable(Exception):
    pass


def _client() -> httpx.AsyncClient:
    import httpx

    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    # No proxy of the environment: pods are reached directly. No redirects: an engine sends none.
    return httpx.AsyncClient(timeout=timeout, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def _restarts(pod: Mapping[str, Any]) -> int:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") == names.CONTAINER_NAME:
            return int(status.get("restartCount") or 0)
    return 0
