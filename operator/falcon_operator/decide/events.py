"""What is worth an Event: what changed between the status on record and the new one. A restart changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from falcon_operator.api.reasons import Reason
from falcon_operator.decide.failure import retried
from falcon_operator.decide.types import Event

_NOTE_CHARACTERS = 1000
# The action of an event that says that an engine has failed.
ENGINE_FAILURE = "RunEngine"
_QUANTIZE = "Quantize"


def events(live: Mapping[str, Any], new: Mapping[str, Any], cost: str = "", quantized: str = "") -> tuple[Event, ...]:
    """Failures once each, Stalled and Ready when they begin, a change of revision with its cost, a return from one.

    And each move of the autoscaler, and when the model begins to be quantized; `quantized` says that it is.
    """
    found: list[Event] = []
    failure = new.get("lastFailure")
    if failure and _identity(failure) != _identity(live.get("lastFailure") or {}):
        said = (failure.get("message"), retried(failure.get("since")), failure.get("hint"))
        note = " ".join(part for part in said if part)
        action = _QUANTIZE if failure["reason"] == Reason.QUANTIZE_FAILED else ENGINE_FAILURE
        found.append(_event("Warning", failure["reason"], action, note))
    for kind, status, action in (("Stalled", "True", "Reconcile"), ("GPUCompatible", "False", "Schedule")):
        now, before = _condition(new, kind), _condition(live, kind)
        began = now.get("status") == status and (before.get("status"), before.get("reason")) != (status, now["reason"])
        # A return has its own event, when it begins.
        if began and now["reason"] != Reason.ROLLED_BACK and all(now["reason"] != e.reason for e in found):
            found.append(_event("Warning", now["reason"], action, now["message"]))
    failed = (new.get("revision") or {}).get("failed")
    if failed and failed != (live.get("revision") or {}).get("failed"):
        found.append(_event("Warning", Reason.ROLLED_BACK.value, "RollBack", _condition(new, "Ready")["message"]))
    old, updated = (live.get("revision") or {}).get("updated"), (new.get("revision") or {}).get("updated")
    if old and updated and old != updated:
        note = f"Pods of revision {old} are replaced by revision {updated}{cost}."
        found.append(_event("Normal", Reason.ROLLOUT_IN_PROGRESS.value, "Rollout", note))
    found += _quantizing(_condition(live, "Progressing"), _condition(new, "Progressing"), quantized)
    moved, told = (_last_move(status) for status in (new, live))
    if moved and moved != told:
        note = f"Scaled from {moved['fromReplicas']} to {moved['toReplicas']}: {moved['reason']}"
        found.append(_event("Normal", Reason.SCALING.value, "Scale", note))
    ready = _condition(new, "Ready")
    if ready.get("status") == "True" and _condition(live, "Ready").get("status") != "True":
        found.append(_event("Normal", Reason.READY.value, "Serve", f"{ready['message']} The endpoint is {new['url']}."))
    return tuple(found)


def _quantizing(live: Mapping[str, Any], new: Mapping[str, Any], quantized: str) -> list[Event]:
    before, now = live.get("reason") == Reason.QUANTIZING, new.get("reason") == Reason.QUANTIZING
    if now and not before:
        return [_event("Normal", Reason.QUANTIZING.value, _QUANTIZE, new["message"])]
    if before and not now and quantized:
        return [_event("Normal", Reason.QUANTIZED.value, _QUANTIZE, quantized)]
    return []


def _event(kind: Any, reason: str, action: str, note: str) -> Event:
    return Event(kind, reason, action, note if len(note) <= _NOTE_CHARACTERS else note[: _NOTE_CHARACTERS - 1] + "…")


def _identity(failure: Mapping[str, Any]) -> tuple[Any, ...]:
    return failure.get("pod"), failure.get("time"), failure.get("reason")


def _last_move(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the autoscaler did last."""
    return next(iter((status.get("autoscaling") or {}).get("decisions") or ()), None)


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((c for c in status.get("conditions") or [] if c.get("type") == kind), {})
