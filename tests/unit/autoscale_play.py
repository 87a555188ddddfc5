"""Plays load against the autoscaler's decision: engines that start after a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from falcon_operator.decide.autoscale.decision import decide
from falcon_operator.decide.autoscale.engine_law import DEFAULT, Engine
from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import Config, Decision, EngineSample, Fleet, GatewaySample, Signals

PROMPT, ANSWER = 1000.0, 200.0
# One engine of the default law under these requests, and how many a second fill it.
ENGINE = Engine.of(DEFAULT, PROMPT, ANSWER, 256)
FULL = ENGINE.rate


def in_flight(use: float) -> float:
    """Requests in flight in one engine that is used to such a share: the law the other way round."""
    if use <= 0:
        return 0.0
    low, high = 0.0, ENGINE.most
    while high - low > 1e-6 * ENGINE.most:
        middle = (low + high) / 2
        low, high = (middle, high) if ENGINE.use(middle) < min(use, 1.0) else (low, middle)
    return high


@dataclass
class Play:
    """Requests come evenly, and engines serve as the law says; two gateways take half of them each."""

    config: Config
    replicas: int = 1
    now: float = 1000.0
    state: State | None = None
    started: list[float] = field(default_factory=list)  # when each engine was created; negative: long ago
    arrived: float = 0.0
    held: float = 0.0
    finished: float = 0.0
    moves: list[tuple[float, int, Decision]] = field(default_factory=list)
    last: Decision | None = None
    unplaced: int = 0
    look: float = 2.0  # seconds between two looks

    def __post_init__(self) -> None:
        self.state = self.state or State(since=self.now)
        self.started = [-1e9] * self.replicas

    def signals(self, rate: float) -> Signals:
        """What two gateways and the engines say."""
        ready = self.ready
        flying = in_flight(rate / FULL / ready) * ready if ready else 0.0
        half = GatewaySample(self.now, flying / 2, self.held / 2, self.arrived / 2)
        each = EngineSample(
            self.now,
            flying / max(ready, 1),
            0.0,
            self.finished * PROMPT / max(ready, 1),
            self.finished * ANSWER / max(ready, 1),
            self.finished / max(ready, 1),
        )
        engines = {f"engine-{n}": each for n in range(ready)}
        return Signals({"a": half, "b": half}, 2, engines, ready)

    @property
    def ready(self) -> int:
        """Engines that serve."""
        cold = self.config.cold_start or 60.0
        return sum(self.now - at >= cold for at in self.started)

    @property
    def fleet(self) -> Fleet:
        """As the cluster has it."""
        starting = tuple(self.now - at for at in self.started if self.now - at < (self.config.cold_start or 60.0))
        return Fleet(self.replicas, self.ready, starting, self.unplaced)

    def run(
        self, seconds: float, rate: float, change: Callable[[Signals], Signals] = lambda signals: signals
    ) -> list[tuple[float, int]]:
        """Go on at so many requests a second; returns the moves, by seconds from now."""
        begin, first = self.now, len(self.moves)
        while self.now < begin + seconds - 1e-9:
            self.now += self.look
            self.arrived += rate * self.look
            served = min(rate * self.look + self.held, self.ready * FULL * self.look)
            self.held += rate * self.look - served
            self.finished += served
            assert self.state is not None
            self.last, self.state = decide(change(self.signals(rate)), self.fleet, self.config, self.state, self.now)
            if self.last.replicas != self.replicas:
                self.moves.append((self.now, self.last.replicas, self.last))
                self.started = sorted(self.started)[: self.last.replicas]
                self.started += [self.now] * (self.last.replicas - len(self.started))
                self.replicas = self.last.replicas
        return [(at - begin, replicas) for at, replicas, _ in self.moves[first:]]
