"""What is said of the autoscaler: `status.autoscaling` and the condition AutoscalingActive.

Load changes all the time and the status must not: figures stay as they were when the number, or what holds it, changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from falcon_operator.api.reasons import ConditionType, Reason
from falcon_operator.api.spec import Spec
from falcon_operator.decide.autoscale.engine_law import DEFAULT, Learned
from falcon_operator.decide.autoscale.types import Limit
from falcon_operator.decide.autoscaling import SOMEBODY, Move, bounds, current, native
from falcon_operator.decide.types import Scaling

_MOST_DECISIONS = 5
_CHARACTERS = 1024
# A figure that was learned is written down again once it is so much off what was written.
_MOVED = 0.2
# These come and go with the load: the strongest is shown until the number changes.
_BY_LOAD: Mapping[str | None, int] = {
    None: 0,
    Limit.WINDOW: 1,
    Limit.MIN_REPLICAS: 2,
    Limit.MAX_REPLICAS: 3,
    Limit.CAPACITY: 4,
}
_LIMITS: Mapping[str | None, str] = {
    Limit.MAX_REPLICAS: " It is at maxReplicas.",
    Limit.CAPACITY: " The load has asked for more than the GPUs of the compatible nodes hold.",
    Limit.WINDOW: " Fewer would do, and are removed once that was so for long enough.",
    Limit.METRICS: " Nothing is removed while fewer than half of them can be read.",
}


def in_status(
    spec: Spec,
    there: Mapping[str, Any] | None,
    live_status: Mapping[str, Any],
    desired: int,
    scaling: Scaling | None,
    move: Move | None,
    time: str,
) -> dict[str, Any] | None:
    """`status.autoscaling`; what is on record stays as long as nothing but the load has changed.

    `move` is what the Deployment says, or is about to, of the last change of its number.
    """
    if not native(spec):
        return None
    before: dict[str, Any] = dict(live_status.get("autoscaling") or {})
    if spec.suspend:
        # Without a number: what comes back after that is no decision of the autoscaler's.
        return {k: before[k] for k in ("lastScaleTime", "decisions", "learned") if k in before} or None
    found, decision, number = dict(before), current(there, scaling), before.get("desiredReplicas")
    if number != desired:
        known = move if move is not None and move.after == desired else None
        reason = known.reason if known is not None else SOMEBODY
        found = {"desiredReplicas": desired, "learned": before.get("learned")}
        if number is not None:
            entry = {"time": time, "fromReplicas": number, "toReplicas": desired, "reason": reason[:_CHARACTERS]}
            found["decisions"] = [entry, *(before.get("decisions") or ())][:_MOST_DECISIONS]
            found["lastScaleTime"] = time
            found["reason"] = entry["reason"]
        else:
            found |= {k: before.get(k) for k in ("decisions", "lastScaleTime")}
        if known is not None:
            found |= {"signal": known.signal, "limitedBy": known.limit}
    if decision is not None and decision.replicas == desired:
        limit = _shown(decision.limited_by, found.get("limitedBy"))
        if limit != found.get("limitedBy") or "reason" not in found:
            found |= {"limitedBy": limit, "reason": decision.reason[:_CHARACTERS]}
            found["signal"] = decision.signal[:_CHARACTERS]
    found = {k: v for k, v in found.items() if v is not None}
    if scaling is not None and (said := _learned(scaling.learned, before.get("learned"), anew=found != before)):
        found["learned"] = said
    return found


def condition(
    spec: Spec,
    there: Mapping[str, Any] | None,
    observed: Mapping[str, Any] | None,
    scaling: Scaling | None,
    live: Mapping[str, Mapping[str, Any]],
) -> tuple[str, Reason, str] | None:
    """Status, reason and message of AutoscalingActive; None where nobody asks for autoscaling."""
    if spec.autoscaling is None:
        return None
    if spec.suspend:
        return "False", Reason.SUSPENDED, "spec.suspend is true: nothing is scaled. Set it to false to serve."
    if not native(spec):
        message = "An HPA or KEDA writes spec.replicas through /scale; the operator does not."
        return "True", Reason.SCALED_EXTERNALLY, message
    found, decision = observed or {}, current(there, scaling)
    number = found.get("desiredReplicas", 0)
    if decision is not None and decision.unknown is not None:
        reason, words = decision.unknown
        return "False", reason, words + _remark(spec)
    if decision is None:
        # An operator that has just started knows nothing yet; what is on record goes on to be true as far as it can.
        before = live.get(ConditionType.AUTOSCALING_ACTIVE, {})
        if before.get("reason") == Reason.METRICS_UNKNOWN:
            return str(before.get("status")), Reason.METRICS_UNKNOWN, str(before.get("message"))
        if before.get("reason") not in (Reason.SCALING_ACTIVE, Reason.SCALING_PAUSED):
            message = f"The load has not been read yet. {_engines(number)} until it is."
            return "Unknown", Reason.NOT_OBSERVED, message + _remark(spec)
    if found.get("limitedBy") == Limit.ROLLOUT:
        message = f"Nothing is scaled while a rollout replaces pods. {_engines(number)} until it is through."
        return "True", Reason.SCALING_PAUSED, message + _remark(spec)
    return "True", Reason.SCALING_ACTIVE, _active(spec, found) + _remark(spec)


def _active(spec: Spec, found: Mapping[str, Any]) -> str:
    least, most = bounds(spec)
    looks = "the requests at the gateways" if spec.gateway.enabled else "the requests in the engines"
    said = f"{looks[:1].upper()}{looks[1:]} are looked at, and there are {least} to {most} engines."
    last = next(iter(found.get("decisions") or ()), None)
    if last is not None:
        said += f" Last from {last['fromReplicas']} to {last['toReplicas']} at {last['time']}: {last['reason']}"
    return said + _LIMITS.get(found.get("limitedBy"), "")


def _engines(number: int) -> str:
    return f"There {'is' if number == 1 else 'are'} {number} engine{'' if number == 1 else 's'}"


def _remark(spec: Spec) -> str:
    """That a number was set which nobody looks at."""
    if spec.replicas == Spec().replicas:
        return ""
    return f" spec.replicas is {spec.replicas} and ignored, since spec.autoscaling.mode is Native: remove it."


def _shown(limit: Limit | None, before: str | None) -> str | None:
    new = limit.value if limit is not None else None
    if new in _BY_LOAD and before in _BY_LOAD:
        return max(new, before, key=_BY_LOAD.__getitem__)
    return new


def _learned(learned: Learned, before: Mapping[str, Any] | None, *, anew: bool) -> Mapping[str, Any] | None:
    """What is to be written of it: with anything else, or once it has moved."""
    if learned.law == DEFAULT and learned.prompt is None:
        return before
    said = learned.manifest()
    return said if anew or before is None or any(_moved(before.get(k), v) for k, v in said.items()) else before


def _moved(before: Any, now: float) -> bool:
    return not isinstance(before, int | float) or abs(now - before) > _MOVED * abs(before)
