"""The load in engines' worth of work, and the work that has piled up."""

from __future__ import annotations

from dataclasses import dataclass

from falcon_operator.decide.autoscale.sight import Sight
from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import Config, Fleet

# A start of which nothing is known.
_COLD_START = 60.0
# What piles up is to be gone after such a part of a cold start, and no sooner than after so many seconds: to hurry more
# would take engines that are hardly used afterwards.
_CLEARED_AFTER = 1.0
_SOONEST = 20.0


@dataclass(frozen=True)
class Demand:
    """What requests ask for, in engines that are busy all the time."""

    steady: float  # what comes, and goes on to come
    backlog: float  # beside it, to work off what waits and what will have piled up until engines have started

    @property
    def both(self) -> float:
        """All of it."""
        return self.steady + self.backlog


def cold_start(config: Config) -> float:
    """Seconds that a start takes."""
    return config.cold_start if config.cold_start and config.cold_start > 0 else _COLD_START


def demand(sight: Sight, fleet: Fleet, config: Config, state: State, now: float) -> Demand:
    """`state` has this look in it already."""
    engine = state.learned.engine(config.per_engine)
    if engine is None:
        # Nothing is known of the requests: count them.
        return Demand((state.in_flight + sight.held) / config.per_engine, 0.0)
    steady = state.arrivals.rate(now) / engine.rate
    if fleet.ready:
        # Requests that come rarely and stay long are seen here first.
        steady = max(steady, fleet.ready * engine.use(state.in_flight / fleet.ready))
    cold = cold_start(config)
    remaining = max(cold - max(fleet.starting), 0.0) if fleet.starting else cold
    work = sight.held / engine.rate  # engine-seconds
    if work > 1.0:
        work += max(steady - fleet.ready, 0.0) * remaining
    return Demand(steady, work / max(_SOONEST, cold * _CLEARED_AFTER))
