"""How pods are replaced: a new one first, or the old one first; and what that costs, said before it happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from falcon_operator.api.lifecycle import Strategy
from falcon_operator.api.spec import Spec
from falcon_operator.decide import free_gpus
from falcon_operator.decide.free_gpus import Free, Wanted
from falcon_operator.decide.nodes import NodeIndex
from falcon_operator.decide.placement import Placement


@dataclass(frozen=True)
class Manner:
    """Whether a new pod starts first. `look`: what must be looked for before that is known; until then, in place."""

    surge: bool
    why: str | None = None
    look: Wanted | None = None


def manner(
    spec: Spec,
    deployment: Mapping[str, Any] | None,
    changes: bool,
    placement: Placement,
    nodes: NodeIndex | None,
    free: Free | None,
    crowded: bool,
) -> Manner:
    """Decide it anew only where the pods' template is about to change: a rollout stays as it has begun.

    `changes`: there is a Deployment, and its template is another one. `free`: what a look has found, if one was made.
    `crowded`: no node takes the new pod beside the old ones; somebody else was quicker, and waiting could be for ever.
    """
    strategy = spec.rollout.strategy
    if strategy is not Strategy.AUTO:
        return Manner(strategy is Strategy.SURGE, f"spec.rollout.strategy is {strategy.value}")
    replicas = int(((deployment or {}).get("spec") or {}).get("replicas") or 0)
    wanted = free_gpus.wanted(spec, placement, nodes)
    if not changes or not replicas:
        # With what was found before the template was written, as long as that is at hand.
        why = free_gpus.said(wanted, free) if free is not None and isinstance(wanted, Wanted) else None
        return Manner(_surges(deployment) and not crowded, why)
    if isinstance(wanted, str):
        return Manner(False, wanted)
    if free is None:
        return Manner(False, None, wanted)
    return Manner(free.node is not None, free_gpus.said(wanted, free))


def cost(surge: bool, replicas: int, gateway: bool, start_seconds: float | None) -> str:
    """What a replacement costs the clients, in one sentence without its full stop."""
    if surge:
        return "a new pod starts first, and an old one leaves once it is ready"
    about = "until the new pod is ready" if start_seconds is None else f"for about {start_seconds:.0f} s"
    if replicas > 1:
        return f"in place, one pod at a time, each missing {about}"
    held = "are held by the gateway" if gateway else "find no pod"
    return f"in place: the old pod leaves first, and new requests {held} {about}"


def _surges(deployment: Mapping[str, Any] | None) -> bool:
    rolling = (((deployment or {}).get("spec") or {}).get("strategy") or {}).get("rollingUpdate") or {}
    return rolling.get("maxSurge") == 1 and rolling.get("maxUnavailable") == 0
