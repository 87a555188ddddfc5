"""How much of its time an engine may be used: less where requests come in crowds."""

from __future__ import annotations

from math import sqrt

from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import Config

# So many deviations of the requests in flight are to find room.
_DEVIATIONS = 1.3
# Engines are added where they would be used further than so far from the limit to all of their time, and fewer are kept
# where they would not have been used that far: between the two nothing is done.
_UP, _DOWN = 0.4, 0.33


def limit(config: Config, state: State, steady: float) -> float:
    """The share of its full rate at which an engine should serve, for a load of `steady` engines.

    It is what comes of `target` of the sequences that fill it, less what crowds need: of n requests in flight that have
    nothing to do with each other the deviation is the root, a small share where there are many of them.
    """
    engine = state.learned.engine(config.per_engine)
    if engine is None:
        return config.target
    # As many requests as there are now, in the mean of the last minute; where load has become more, as there will be.
    grown = max(steady / state.used, 1.0) if state.used > 0 else 1.0
    # Load that rises while engines start needs room as well as crowds do.
    crowds = sqrt(state.arrivals.swings.dispersion / max(state.in_flight * grown, 1.0))
    return min(max(1 - _DEVIATIONS * crowds, config.target), engine.use(config.target * engine.most))


def too_much(limit: float) -> float:
    """The use at which engines are added."""
    return limit + (1 - limit) * _UP


def enough(limit: float) -> float:
    """The use that fewer engines would have had to stay below."""
    return limit + (1 - limit) * _DOWN
