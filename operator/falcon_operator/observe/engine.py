"""Asks a Ready engine what it serves: `/v1/models` and `/version`, once for each start of its container."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from time import monotonic
from typing import Any

import aiohttp

from falcon_operator.api import names
from falcon_operator.decide.types import EngineFacts

TIMEOUT = aiohttp.ClientTimeout(total=5.0, sock_connect=2.0)
BODY_BYTES = 256 * 1024
AT_ONCE = 8
# Most engines answer within milliseconds: not worth a status that says that they were asked.
PATIENCE_SECONDS = 1.0
# A Ready engine that does not answer is asked again, less and less often.
RETRY_SECONDS = (2.0, 5.0, 15.0, 60.0, 300.0)

_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.ECONNRESET: "connection reset",
}


@dataclass
class _Asked:
    start: tuple[str, int]  # address and restarts: another value is another start of the engine
    since: float
    answered: bool = False


class EngineObserver:
    """Facts by pod UID. Asking happens in the background; `changed` gets the owner's key when facts are new."""

    def __init__(self, changed: Callable[[tuple[str, str]], None], *, port: int = names.ENGINE_PORT) -> None:
        self.facts: dict[str, EngineFacts] = {}
        self._changed, self._port = changed, port
        self._session: aiohttp.ClientSession | None = None
        self._asked: dict[str, _Asked] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(AT_ONCE)

    def want(self, pod: Mapping[str, Any], owner: tuple[str, str]) -> bool:
        """Ask this pod, unless that was done since its container started; True while its answer may come any moment."""
        uid, address = pod["metadata"]["uid"], (pod.get("status") or {}).get("podIP")
        if not address:
            return False
        start = (address, _restarts(pod))
        asked = self._asked.get(uid)
        if asked is None or asked.start != start:
            asked = self._asked[uid] = _Asked(start, monotonic())
            self._spawn(uid, owner)
        return not asked.answered and monotonic() - asked.since < PATIENCE_SECONDS

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self.facts.pop(uid, None)
        self._asked.pop(uid, None)

    async def close(self) -> None:
        """Stop asking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

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
            asked.answered = True
            if self._asked.get(uid) is not asked:
                return  # gone, or started again meanwhile: that start has its own task
            if self.facts.get(uid) != facts:
                self.facts[uid] = facts
                self._changed(owner)
            if facts.error is None:
                return

    async def read(self, uid: str, address: str) -> EngineFacts:
        """Ask one engine; whatever it answers, the result is facts or a sentence."""
        base = f"http://{f'[{address}]' if ':' in address else address}:{self._port}"
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
        if self._session is None:
            # A connection for each question: there are two of them in an engine's life.
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), timeout=TIMEOUT)
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise _Unreadable(f"{url} answered with status {response.status}")
                body = await response.content.read(BODY_BYTES + 1)
                while len(body) <= BODY_BYTES and not response.content.at_eof():
                    body += await response.content.read(BODY_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _Unreadable(f"{url} does not answer: {_why(error)}") from error
        if len(body) > BODY_BYTES:
            raise _Unreadable(f"{url} answered with more than {BODY_BYTES // 1024} KiB")
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _Unreadable(f"{url} answered with something that is not JSON") from error


class _Unreadable(Exception):
    pass


def _why(error: Exception) -> str:
    """A few words that are the same for the same problem: they go into a condition."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    reason = getattr(error, "os_error", error)
    if isinstance(reason, OSError) and reason.errno in _WORDS:
        return _WORDS[reason.errno]
    return type(error).__name__


def _restarts(pod: Mapping[str, Any]) -> int:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") == names.CONTAINER_NAME:
            return int(status.get("restartCount") or 0)
    return 0
