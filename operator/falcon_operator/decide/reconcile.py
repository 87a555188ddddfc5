"""The decision: from what is there to what is to be done."""

from __future__ import annotations

from datetime import datetime

from falcon_operator.decide.types import Plan, Renderer, Snapshot


def decide(snapshot: Snapshot, renderer: Renderer, now: datetime) -> Plan:
    """Compute everything from what is there; the same inputs give the same plan."""
    raise NotImplementedError
