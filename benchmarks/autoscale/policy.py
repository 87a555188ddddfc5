"""What an autoscaling rule sees of the simulated fleet, and what it has to be able to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class EngineView:
    """One ready engine; `generated` and `prompted` (tokens) and `finished` (requests) are counters since it started."""

    running: int
    waiting: int
    kv: float  # share of the KV cache in use, 0 to 1
    generated: float
    prompted: float
    finished: int
    ttft: float | None  # seconds, of lately begun answers; None where there were none
    itl: float | None  # seconds between tokens, likewise
    token_seconds: float = 0.0  # a counter: the sum of which `itl` is the mean
    uid: int = 0  # stays with the engine; a new engine has a new one


@dataclass(frozen=True)
class View:
    """The fleet at `now` seconds; counts are of requests, `arrived` is a counter."""

    now: float
    replicas: int  # desired at present
    ready: int
    starting: tuple[float, ...]  # seconds since each engine that is not ready yet was asked for
    engines: tuple[EngineView, ...]  # the ready ones
    held: int  # waiting in the gateway
    in_flight: int  # sent to engines and not finished
    arrived: int

    @property
    def waiting(self) -> int:
        """Requests that no engine works on yet."""
        return self.held + sum(engine.waiting for engine in self.engines)


class Policy(Protocol):
    """A rule, asked every `interval` seconds for the number of replicas."""

    name: str
    interval: float

    def desired(self, view: View) -> int:
        """How many replicas there should be from now on."""
        ...
