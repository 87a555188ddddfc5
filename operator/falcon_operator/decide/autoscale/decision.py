"""How many engines there should be."""

from __future__ import annotations

import math

from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import Config, Decision, Fleet, Limit, Signals


def decide(signals: Signals, fleet: Fleet, config: Config, state: State, now: float) -> tuple[Decision, State]:
    """One look; the same inputs give the same answer."""
    busy = sum(s.in_flight + s.held for s in signals.gateways.values())
    busy = busy or sum(s.running + s.waiting for s in signals.engines.values())
    demand = busy / config.per_engine
    wanted = min(max(math.ceil(demand / config.target), config.min_replicas, fleet.replicas), config.max_replicas)
    limited = Limit.MAX_REPLICAS if wanted == config.max_replicas else None
    return Decision(wanted, f"{busy:.0f} requests.", "gateways", limited, demand=demand), state
