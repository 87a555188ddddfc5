"""What the autoscaler remembers between two looks."""

from __future__ import annotations

from dataclasses import dataclass, field

from falcon_operator.decide.autoscale.arrivals import Arrivals
from falcon_operator.decide.autoscale.engine_law import Learned
from falcon_operator.decide.autoscale.history import History
from falcon_operator.decide.autoscale.learning import Evidence


@dataclass(frozen=True)
class State:
    """Nothing of it must survive a restart but `learned`: a new state keeps the number until it knows better."""

    since: float  # when this state began
    learned: Learned = field(default_factory=Learned)
    evidence: Evidence = field(default_factory=Evidence)
    arrivals: Arrivals = field(default_factory=Arrivals)
    history: History = field(default_factory=lambda: History.over(0))
    used: float = 0.0  # engines' worth of work that engines did, a mean over the last minute
    in_flight: float = 0.0  # requests, a mean over the last minute
    looked: float | None = None  # when load was last known
    requested: float | None = None  # when a request was last there
    replicas: int | None = None  # as last seen
    removed: float | None = None  # when engines were last removed
    added: float | None = None  # when engines were last added
