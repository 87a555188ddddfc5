"""One resource that the autoscaler looks at: how often its pods are asked, and what was decided last.

It has no task of its own: timers and answers call in, since hundreds of resources are looked at twice a second.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from falcon_operator.api.reasons import Reason
from falcon_operator.decide.autoscale.engine_law import Learned
from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import (
    Config,
    Decision,
    EngineSample,
    Fleet,
    GatewaySample,
    Limit,
    Signals,
)
from falcon_operator.decide.pods import Pod
from falcon_operator.decide.types import Scaling, Watch
from falcon_operator.runtime.cache import Key
from falcon_operator.runtime.sources import EngineSource, GatewaySource, Means, Source

# Without a request for so long a resource is idle: then its gateways tell when that ends.
IDLE_SECONDS = 10.0
# Each gateway is asked once in so many seconds; a single one twice.
GATEWAY_SECONDS = 1.0
# Where there may be more load than usual, gateways are asked once more so soon, and not again for so long.
DOUBT_SECONDS, DOUBT_AGAIN_SECONDS = 0.15, 0.4
# Engines, which are asked for the lengths and times of requests where gateways say how many there are.
ENGINE_SECONDS = 10.0
# Engines, where they are asked for everything: with load and without.
LOAD_SECONDS, NO_LOAD_SECONDS = 1.0, 5.0
# Between two decisions that plans ask for: each may lead to the other.
PLAN_SECONDS = 0.2
# Between two decisions that engines ask for, each on its own.
GATHER_SECONDS = 0.25
# A plan is asked for at once where the number of engines changes, or load becomes known or unknown; for other words,
# which may change with each look, once in so many seconds at most.
WORDS_SECONDS = 30.0

log = logging.getLogger(__name__)

Decide = Callable[[Signals, Fleet, Config, State, float], tuple[Decision, State]]


@dataclass(frozen=True)
class Figures:
    """What the operator's metrics say of one resource; None is not known."""

    desired: int | None = None
    requests: float | None = None  # in flight and held
    held: float | None = None
    demand: float | None = None  # engines' worth


class Watched:
    """Everything of one resource. `phase`, 0 to 1, is when within a second it is looked at."""

    def __init__(
        self, key: Key, watch: Watch, means: Means, decide: Decide, changed: Callable[[Key], None], phase: float
    ) -> None:
        self._key, self._means, self._decide, self._changed, self._phase = key, means, decide, changed, phase
        now = means.clock()
        self._state = State(since=now, learned=_learned(key, watch))
        self._watch, self._since = watch, now
        self._gateways: dict[str, GatewaySource] = {}
        self._engines: dict[str, EngineSource] = {}
        self._decision: Decision | None = None
        self._seen = 0  # of how many engines it was made
        self._told: tuple[Decision, int] | None = None  # what the newest plan went by: a decision, and its `seen`
        self._queued = self._decided = self._doubted = -math.inf
        self._busy = now  # when there was a request last
        self._later: asyncio.TimerHandle | None = None
        self._broken = False
        self.update(watch)

    def update(self, watch: Watch) -> None:
        """A plan has looked again."""
        self._watch, self._since = watch, self._means.clock()
        for uid, address in _changes(self._gateways, watch.gateways):
            self._gateways[uid] = GatewaySource(address, self._means, self._gateway_said, self._idle)
        for uid, address in _changes(self._engines, watch.engines):
            self._engines[uid] = EngineSource(address, self._means, self._engine_said)
        for engine in self._engines.values():
            engine.called(watch.version)
        self._lay_beats()
        self._decide_after(PLAN_SECONDS)

    def scaling(self) -> Scaling | None:
        """The newest decision, which counts as told from here on."""
        if self._decision is None:
            return None
        self._told = self._decision, self._seen
        return Scaling(self._decision, self._state.learned, self._seen)

    def figures(self) -> Figures:
        """For the operator's metrics: what is not wholly known is not said."""
        decision = self._decision
        if decision is None or decision.unknown is not None:
            return Figures()
        requests = held = None
        if self._watch.config.gateway:
            found = [s.sample for s in self._gateways.values() if s.sample is not None and s.problem is None]
            if len(found) == len(self._watch.gateways):
                held = sum(sample.held for sample in found)
                requests = held + sum(sample.in_flight for sample in found)
        else:
            loads = [s.sample for s in self._engines.values() if s.sample is not None and s.problem is None]
            if len(loads) == len(self._watch.engines):
                requests = sum(sample.running + sample.waiting for sample in loads)
        return Figures(decision.replicas, requests, held, decision.demand)

    def close(self) -> None:
        """Ask nothing more, and decide nothing."""
        sources: list[Source[Any]] = [*self._gateways.values(), *self._engines.values()]
        for source in sources:
            source.close()
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _idle(self) -> bool:
        return self._means.clock() - self._busy >= IDLE_SECONDS

    def _lay_beats(self) -> None:
        """Gateways in turn, evenly over the second."""
        count = len(self._gateways)
        period = GATEWAY_SECONDS if count > 1 else GATEWAY_SECONDS / 2
        for place, (_, gateway) in enumerate(sorted(self._gateways.items())):
            gateway.beat(period, (self._phase + place / count) % 1)
        seconds = self._engine_seconds()
        for place, (_, engine) in enumerate(sorted(self._engines.items())):
            if seconds is None:
                engine.rest()
            else:
                engine.beat(seconds, (self._phase + place / len(self._engines)) % 1)

    def _engine_seconds(self) -> float | None:
        """How often engines are asked; None where there is nothing to learn from them."""
        if self._watch.config.gateway:
            return None if self._idle() else ENGINE_SECONDS
        return NO_LOAD_SECONDS if self._idle() else LOAD_SECONDS

    def _gateway_said(self, source: Source[GatewaySample], before: GatewaySample | None) -> None:
        sample = source.sample
        if source.problem is None and sample is not None:
            came = _grown(before.arrived, sample.arrived) if before is not None else False
            self._note(came or sample.in_flight + sample.held > 0)
        if self._watch.config.gateway:
            self._decide_now()

    def _engine_said(self, source: Source[EngineSample], before: EngineSample | None) -> None:
        if self._watch.config.gateway:
            if self._idle():
                self._lay_beats()
            return
        sample = source.sample
        if source.problem is None and sample is not None:
            came = _grown(before.finished, sample.finished) if before is not None else False
            self._note(came or sample.running + sample.waiting > 0)
            self._lay_beats()
        self._decide_after(GATHER_SECONDS)

    def _note(self, busy: bool) -> None:
        """Whether there are requests."""
        if not busy:
            return
        idle, self._busy = self._idle(), self._means.clock()
        if idle:
            for gateway in self._gateways.values():
                gateway.wake()
            self._lay_beats()

    def _decide_after(self, seconds: float) -> None:
        """Decide soon, so long after the last decision at the earliest."""
        if self._later is None:
            wait = max(seconds + self._decided - self._means.clock(), 0.0)
            self._later = asyncio.get_running_loop().call_later(min(wait, seconds), self._decide_now)

    def _decide_now(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        watch, now = self._watch, self._means.clock()
        sources: Mapping[str, Source[Any]] = self._gateways if watch.config.gateway else self._engines
        if self._decision is None and not all(source.tried for source in sources.values()):
            return  # an operator that begins is not blind: it has yet to look
        self._decided = now
        fleet = watch.fleet
        self._seen = fleet.replicas
        if fleet.starting:
            fleet = replace(fleet, starting=tuple(age + now - self._since for age in fleet.starting))
        try:
            self._decision, self._state = self._decide(self._signals(), fleet, watch.config, self._state, now)
            self._broken = False
        except Exception as error:
            # An error of ours must not stop the other resources, nor move this one.
            if not self._broken:
                log.exception("%s/%s: no decision on the number of engines; it stays as it is", *self._key)
            self._broken = True
            self._decision = _frozen(fleet, error)
        if self._decision.doubtful and now - self._doubted >= DOUBT_AGAIN_SECONDS:
            self._doubted = now
            for gateway in self._gateways.values():
                gateway.hurry(asyncio.get_running_loop().time() + DOUBT_SECONDS)
        if self._is_news(self._decision, now):
            self._queued = now
            self._changed(self._key)

    def _signals(self) -> Signals:
        watch = self._watch
        sources: Mapping[str, Source[Any]] = self._gateways if watch.config.gateway else self._engines
        problems = (sources[uid].problem for uid in sorted(sources))
        return Signals(
            gateways={uid: s.sample for uid, s in self._gateways.items() if s.sample is not None},
            gateways_expected=len(watch.gateways),
            engines={uid: s.sample for uid, s in self._engines.items() if s.sample is not None},
            engines_expected=len(watch.engines),
            problem=next((problem for problem in problems if problem is not None), None),
        )

    def _is_news(self, decision: Decision, now: float) -> bool:
        """Whether a plan would come out differently from the newest one."""
        if self._told is None:
            return True
        told, seen = self._told
        # One that found another number of engines has not acted on what it was told.
        moves = decision.replicas != self._seen and self._seen != seen
        if self._watch.native and (decision.replicas != told.replicas or moves):
            return True
        if (decision.unknown is None) != (told.unknown is None):
            return True
        same = (decision.unknown, decision.limited_by) == (told.unknown, told.limited_by)
        return not same and now - self._queued >= WORDS_SECONDS


def _changes(known: dict[str, Any], pods: Iterable[Pod]) -> list[tuple[str, str]]:
    """Drop the pods that are gone; the UIDs and addresses of those that are new."""
    addresses = {pod.uid: str(pod.status.get("podIP") or "") for pod in pods}
    for uid in [uid for uid, source in known.items() if addresses.get(uid) != source.address]:
        known.pop(uid).close()
    return [(uid, address) for uid, address in addresses.items() if address and uid not in known]


def _grown(before: float, now: float) -> bool:
    """Whether a counter has counted; where it went back, its process began anew."""
    return now > before or 0 < now < before


def _learned(key: Key, watch: Watch) -> Learned:
    try:
        return Learned.from_status(watch.learned)
    except (TypeError, ValueError, KeyError, AttributeError):
        log.warning("%s/%s: status.autoscaling.learned cannot be read; it is learned anew", *key)
        return Learned()


def _frozen(fleet: Fleet, error: Exception) -> Decision:
    words = (
        f"The operator failed to find the number of engines ({type(error).__name__}, its log has more); it stays "
        f"{fleet.replicas}."
    )
    unknown = Reason.METRICS_UNKNOWN, words
    return Decision(fleet.replicas, words, "nothing", Limit.METRICS, unknown)
