"""Asks the pods: a Ready engine what it serves, once for each start, and a starting one's launcher how far it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from time import monotonic
from typing import Any

from falcon_engine import profiles
from falcon_engine.drain import pending
from falcon_operator.api import names
from falcon_operator.decide.pods import Pod
from falcon_operator.decide.report import CacheFigures, Report
from falcon_operator.decide.types import EngineFacts
from falcon_operator.observe import exposition, report
from falcon_operator.observe.http import Http, Unreadable, url_of

BODY_BYTES = 256 * 1024
AT_ONCE = 8
# Most engines answer within milliseconds: not worth a status that says that they were asked.
PATIENCE_SECONDS = 1.0
# A Ready engine that does not answer is asked again, less and less often.
RETRY_SECONDS = (2.0, 5.0, 15.0, 60.0, 300.0)
# The launcher of a starting engine is asked so often, the less the longer it has had nothing new to say.
STARTING_SECONDS = (2.0, 2.0, 3.0, 5.0, 10.0)
# One that does not answer is yet to begin, or of a revision without a report: it is given up after these.
MISSED_SECONDS = (2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
LAUNCHER_SECONDS = 2.0
# Of metrics that are read from many engines at a time; an engine that is slow to answer is busy.
LOAD_BYTES = 1024 * 1024
LOAD_SECONDS = 2.0


@dataclass(frozen=True)
class _Start:
    """Another value is another start of the engine, or its end: it is Ready."""

    address: str
    restarts: int
    serving: bool


@dataclass
class _Asked:
    start: _Start
    since: float
    answered: bool = False


class EngineObserver:
    """Facts by pod UID. Asking happens in the background; `changed` gets the owner's key when facts are new."""

    def __init__(
        self,
        changed: Callable[[tuple[str, str]], None],
        *,
        port: int = names.ENGINE_PORT,
        launcher_port: int = names.LAUNCHER_PORT,
    ) -> None:
        self.facts: dict[str, EngineFacts] = {}
        self._changed, self._port, self._launcher_port = changed, port, launcher_port
        self._http = Http()
        self._asked: dict[str, _Asked] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Starting pods have places of their own: they must not hold up what decides over Ready.
        self._slots, self._starting_slots = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE)

    def want(self, pod: Mapping[str, Any], owner: tuple[str, str]) -> bool:
        """Ask this pod, unless that is done for this start; True while what it serves may be known any moment."""
        found = Pod(pod)
        address = found.status.get("podIP")
        if not address:
            return False
        start = _Start(address, found.restarts, found.ready)
        asked = self._asked.get(found.uid)
        if asked is None or asked.start != start:
            asked = self._asked[found.uid] = _Asked(start, monotonic())
            self._spawn(self._ask if start.serving else self._follow, found.uid, owner)
        return start.serving and not asked.answered and monotonic() - asked.since < PATIENCE_SECONDS

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self.facts.pop(uid, None)
        self._asked.pop(uid, None)

    async def close(self) -> None:
        """Stop asking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    def _spawn(self, ask: Callable[[str, tuple[str, str], _Asked], Any], uid: str, owner: tuple[str, str]) -> None:
        task = asyncio.create_task(ask(uid, owner, self._asked[uid]), name=f"ask {uid}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, uid: str, owner: tuple[str, str], asked: _Asked) -> None:
        for delay in chain((0.0,), RETRY_SECONDS, repeat(RETRY_SECONDS[-1])):
            await asyncio.sleep(delay)
            if self._asked.get(uid) is not asked:
                return
            async with self._slots:
                facts = await self.read(uid, asked.start.address, asked.start.restarts)
            asked.answered = True
            if self._asked.get(uid) is not asked:
                return  # gone, or started again meanwhile: that start has its own task
            self._take(facts, owner)
            if facts.error is None:
                return

    async def _follow(self, uid: str, owner: tuple[str, str], asked: _Asked) -> None:
        """Until the pod is Ready, starts again or is gone; an engine that is quickly Ready is not asked at all."""
        start, same, missed = asked.start, 0, 0
        delay = STARTING_SECONDS[0]
        while True:
            await asyncio.sleep(delay)
            if self._asked.get(uid) is not asked:
                return
            async with self._starting_slots:
                said = await self._report(start.address)
            if self._asked.get(uid) is not asked:
                return
            if said is None:
                if missed == len(MISSED_SECONDS):
                    return
                delay, missed = MISSED_SECONDS[missed], missed + 1
                continue
            facts = EngineFacts(uid, (), None, said.version, None, said, None, start.restarts, serving=False)
            missed, same = 0, 0 if self._take(facts, owner) else same + 1
            delay = STARTING_SECONDS[min(same, len(STARTING_SECONDS) - 1)]

    def _take(self, facts: EngineFacts, owner: tuple[str, str]) -> bool:
        """Keep facts; True if they are new."""
        if self.facts.get(facts.pod_uid) == facts:
            return False
        self.facts[facts.pod_uid] = facts
        self._changed(owner)
        return True

    async def read(self, uid: str, address: str, restarts: int = 0) -> EngineFacts:
        """Ask one engine; whatever it answers, the result is facts or a sentence."""
        base = url_of(address, self._port)
        said, models = await asyncio.gather(self._report(address), self._models(base))
        before = self.facts.get(uid)
        if said is None and before is not None and before.restarts == restarts:
            said = before.report  # what it said while it started
        if isinstance(models, str):
            return EngineFacts(uid, (), None, None, models, said, None, restarts)
        served, length = models
        version = await self._version(f"{base}/version") or (said.version if said else None)
        cache = await self._cache(f"{base}/metrics", version)
        return EngineFacts(uid, served, length, version, None, said, cache, restarts)

    async def load(self, address: str) -> float:
        """How many requests run and wait in an engine at this moment. Raises `Unreadable`."""
        url = f"{url_of(address, self._port)}/metrics"
        body = await self._http.get(url, at_most=LOAD_BYTES, seconds=LOAD_SECONDS)
        found = pending(body.decode(errors="replace"))
        if found is None:
            raise Unreadable(f"{url} does not say how many requests run and wait")
        return found

    async def _models(self, base: str) -> tuple[tuple[str, ...], int | None] | str:
        """The names and the least length, or why they cannot be read."""
        url = f"{base}/v1/models"
        try:
            models = await self._json(url)
            served = [model for model in models["data"] if isinstance(model, dict) and isinstance(model.get("id"), str)]
        except Unreadable as problem:
            return str(problem)
        except (KeyError, TypeError):
            return f"{url} answered with something that is no list of models"
        lengths = [model["max_model_len"] for model in served if isinstance(model.get("max_model_len"), int)]
        return tuple(model["id"] for model in served), min(lengths, default=None)

    async def _version(self, url: str) -> str | None:
        try:
            version = (await self._json(url))["version"]
        except (Unreadable, KeyError, TypeError):
            return None
        return version if isinstance(version, str) and len(version) <= 64 else None

    async def _report(self, address: str) -> Report | None:
        """Launchers of older revisions have no report, and that is no error."""
        url = f"{url_of(address, self._launcher_port)}/report"
        try:
            return report.parse(await self._http.get(url, at_most=report.BODY_BYTES, seconds=LAUNCHER_SECONDS))
        except Unreadable:
            return None

    async def _cache(self, url: str, version: str | None) -> CacheFigures | None:
        known = profiles.select(version)[0].facts.get("metrics")
        called = known["value"]["cache_config_info"] if known else [exposition.CACHE_CONFIG]
        if not called:
            return None
        try:
            return exposition.cache_figures(await self._http.get(url, at_most=exposition.BODY_BYTES), called)
        except Unreadable:
            return None

    async def _json(self, url: str) -> Any:
        body = await self._http.get(url, at_most=BODY_BYTES)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"{url} answered with something that is not JSON") from error
