"""The conditions of a resource whose spec is not acted on: true of what still runs, and clear about why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from falcon_operator.api.reasons import ConditionType as Type
from falcon_operator.api.reasons import Reason
from falcon_operator.decide import placement_words
from falcon_operator.decide.conditions import Condition
from falcon_operator.decide.gate import Refusal
from falcon_operator.decide.placement import Placement
from falcon_operator.decide.rollout import Rollout


def conditions_of_refusal(
    refusal: Refusal, rollout: Rollout, live: Mapping[str, Mapping[str, Any]], placement: Placement
) -> list[Condition]:
    """All standing conditions. What was found out about the running pods is kept while they run."""
    serving = len(rollout.ready)
    kept = "The pods that run are left as they are." if rollout.active else "No pods run."
    if serving:
        available = Condition(
            Type.AVAILABLE, "True", Reason.MINIMUM_REPLICAS_AVAILABLE, f"{serving} of {rollout.desired} ready to serve."
        )
    else:
        available = Condition(Type.AVAILABLE, "False", refusal.reason, f"No pod is ready. {refusal.message}")
    return [
        Condition(Type.READY, "False", refusal.reason, refusal.message),
        Condition(Type.RECONCILING, "False", refusal.reason, f"Nothing is done: see Stalled. {kept}"),
        Condition(Type.STALLED, "True", refusal.reason, refusal.message),
        available,
        Condition(Type.PROGRESSING, "False", refusal.reason, f"Nothing is done: see Stalled. {kept}"),
        _kept(Type.MODEL_SERVED, live) if serving else _not_serving(),
        _by_nodes(placement) or _kept(Type.GPU_COMPATIBLE, live),
        _by_sums(placement) or _kept(Type.FITS, live),
        _kept(Type.ENGINE_SUPPORTED, live),
        _kept(Type.UP_TO_DATE, live),
        *([_not_scaled(refusal, kept)] if Type.AUTOSCALING_ACTIVE in live else []),
        *([_kept(Type.GATEWAY_READY, live)] if Type.GATEWAY_READY in live else []),
    ]


def _not_scaled(refusal: Refusal, kept: str) -> Condition:
    return Condition(Type.AUTOSCALING_ACTIVE, "False", refusal.reason, f"Nothing is scaled: see Stalled. {kept}")


def _by_nodes(placement: Placement) -> Condition | None:
    if placement.judgement is None:
        return None
    return Condition(Type.GPU_COMPATIBLE, *placement_words.compatible(placement.judgement))


def _by_sums(placement: Placement) -> Condition | None:
    predicted = placement_words.predicted(placement)
    return Condition(Type.FITS, *predicted) if predicted else None


def _kept(kind: Type, live: Mapping[str, Mapping[str, Any]]) -> Condition:
    before = live.get(kind.value)
    if before is not None:
        try:
            reason = Reason(before.get("reason", ""))
        except ValueError:
            reason = Reason.NOT_EVALUATED
        return Condition(kind, str(before.get("status")), reason, str(before.get("message")))
    return Condition(kind, "Unknown", Reason.NOT_EVALUATED, "Not looked at before the spec is corrected.")


def _not_serving() -> Condition:
    return Condition(Type.MODEL_SERVED, "False", Reason.NOT_SERVING, "No pod is ready.")
