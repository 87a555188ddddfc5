"""What the autoscaler remembers between two looks."""

from __future__ import annotations

from dataclasses import dataclass

from falcon_operator.decide.autoscale.engine_law import Learned


@dataclass(frozen=True)
class State:
    """Nothing of it must survive a restart but `learned`: a new state keeps the number until it knows better."""

    since: float  # when this state began
    learned: Learned = Learned()
