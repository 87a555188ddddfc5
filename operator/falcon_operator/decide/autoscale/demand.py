"""The load in engines' worth of work, and the work that has piled up."""

from __future__ import annotations

from dataclasses import dataclass

from falcon_operator.decide.autoscale.engine_law import Learned
from falcon_operator.decide.autoscale.sight import Sight
from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import Config, Fleet

# A start of which nothing is known.
_COLD_START = 60.0
# What piles up is to be gone after such a part of a cold start, and no sooner than after so many seconds: to hurry more
# would take engines that are hardly used afterwards.
_CLEARED_AFTER = 1.0
_SOONEST = 60.0
# A second of waiting is within what anyone bears.
_WORTH = 1.0


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


def used(sight: Sight, fleet: Fleet, config: Config, learned: Learned) -> float:
    """The work that engines do at this moment, in engines: as many as there are at most."""
    engine = learned.engine(config.per_engine)
    if engine is None:
        return sight.in_flight / config.per_engine
    if not fleet.ready:
        return 0.0
    return fleet.ready * engine.use(min(sight.in_flight / fleet.ready, engine.most))


def demand(sight: Sight, fleet: Fleet, config: Config, state: State, rate: float) -> Demand:
    """`state` has this look in it already; `rate` is of the requests that come, in a second."""
    engine = state.learned.engine(config.per_engine)
    if engine is None:
        # Nothing is known of the requests: count them.
        return Demand(state.used + sight.held / config.per_engine, 0.0)
    # Requests that come rarely and stay long are seen by what engines are used, and only then by their arrivals.
    steady = max(rate / engine.rate, state.used)
    # What an engine has beyond its fill only waits in it.
    waits = sight.held + max(sight.in_flight - fleet.ready * engine.most, 0.0)
    cold = cold_start(config)
    remaining = max(cold - max(fleet.starting), 0.0) if fleet.starting else cold
    work = waits / engine.rate  # engine-seconds
    if work > _WORTH:
        work += max(steady - fleet.ready, 0.0) * remaining
    return Demand(steady, work / max(_SOONEST, cold * _CLEARED_AFTER) if work > _WORTH else 0.0)
