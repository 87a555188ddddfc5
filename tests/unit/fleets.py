"""Fleets of engines as a scaling rule sees them, and the changes that a rule makes to them."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.autoscale.peers import PEERS
from benchmarks.autoscale.policy import EngineView, Policy, View

Look = Callable[[float, int], View]  # (seconds, replicas)
Steps = list[tuple[float, int]]  # (seconds, replicas)
SEQUENCES = 100


def engine(
    running: int = 0,
    waiting: int = 0,
    kv: float = 0.0,
    *,
    ttft: float | None = None,
    itl: float | None = None,
    finished: int = 0,
    prompted: float = 0.0,
    generated: float = 0.0,
) -> EngineView:
    return EngineView(running, waiting, kv, generated, prompted, finished, ttft, itl)


def view(
    now: float, replicas: int, engines: list[EngineView], starting: int = 0, held: int = 0, arrived: int = 0
) -> View:
    in_flight = sum(each.running + each.waiting for each in engines)
    return View(now, replicas, len(engines), (1.0,) * starting, tuple(engines), held, in_flight, arrived)


def peer(name: str, minimum: int = 1, maximum: int = 32, sequences: int = SEQUENCES) -> Policy:
    return PEERS[name](60.0, sequences, minimum, maximum)


def steps(policy: Policy, replicas: int, until: float, look: Look) -> Steps:
    """The changes that `policy` makes from `replicas` on, asked at its interval from 0 to `until` seconds."""
    found = []
    for turn in range(int(until / policy.interval) + 1):
        now = turn * policy.interval
        wanted = policy.desired(look(now, replicas))
        if wanted != replicas:
            found.append((now, wanted))
            replicas = wanted
    return found


def alike(make: Callable[[float], EngineView], held: int = 0) -> Look:
    """All replicas are ready, and each is the same engine."""
    return lambda now, replicas: view(now, replicas, [make(now)] * replicas, held=held)


def alone(make: Callable[[float], EngineView]) -> Look:
    """One replica is ready, all others start for ever."""
    return lambda now, replicas: view(now, replicas, [make(now)], starting=replicas - 1)


def none_ready(held: int = 0) -> Look:
    """All replicas start for ever."""
    return lambda now, replicas: view(now, replicas, [], starting=replicas, held=held)


def spread(total: Callable[[float], int]) -> Look:
    """All replicas are ready, and `total(now)` requests run in equal parts; at zero they are held."""

    def look(now: float, replicas: int) -> View:
        if not replicas:
            return view(now, 0, [], held=total(now))
        part, rest = divmod(total(now), replicas)
        return view(now, replicas, [engine(part + (index < rest)) for index in range(replicas)])

    return look


def queue(total: Callable[[float], int]) -> Look:
    """All replicas are ready, and `total(now)` requests wait in the first one."""
    return lambda now, replicas: view(
        now, replicas, [engine(waiting=0 if index else total(now)) for index in range(replicas)]
    )


class Fleet:
    """Engines that take `cold` seconds to start, and a load in equal parts."""

    def __init__(self, replicas: int, cold: float, load: Callable[[float], int]) -> None:
        self.cold = cold
        self.load = load
        self.born = [-cold] * replicas

    def look(self, now: float, replicas: int) -> View:
        self.born = [*self.born[:replicas], *[now] * (replicas - len(self.born))]
        ready = sum(now - birth >= self.cold for birth in self.born)
        total = self.load(now)
        engines = []
        for index in range(ready):
            share = total // ready + (index < total % ready)
            running, waiting = min(share, SEQUENCES), max(0, share - SEQUENCES)
            engines.append(
                engine(running, waiting, running / SEQUENCES, ttft=0.1 + 0.02 * waiting, itl=0.002 + 0.0001 * running)
            )
        return view(now, replicas, engines, len(self.born) - ready, held=0 if ready else total)
