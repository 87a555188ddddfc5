"""`status`: put together from conditions and counts, with the times of what did not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from falcon_operator.api.reasons import STANDING_CONDITIONS, Reason
from falcon_operator.decide.conditions import Condition
from falcon_operator.decide.pods import Pod, parse_time
from falcon_operator.decide.report import Report

# Pods on their way are reported once they stay where they are: a start that takes no time needs no report.
SETTLE_SECONDS = 5.0


def timestamp(now: datetime) -> str:
    """A time as Kubernetes writes it."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def live_conditions(resource: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The conditions that the operator wrote earlier; the schema's placeholders are not among them."""
    found = (resource.get("status") or {}).get("conditions") or []
    return {c["type"]: c for c in found if c.get("reason") != Reason.PENDING.value and "type" in c}


def with_times(
    conditions: Sequence[Condition], live: Mapping[str, Mapping[str, Any]], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """The conditions as status holds them, in their order; a time moves with its status alone."""
    by_type = {c.type: c for c in conditions}
    found = []
    for kind in (*STANDING_CONDITIONS, *(kind for kind in by_type if kind not in STANDING_CONDITIONS)):
        condition = by_type[kind]
        before = live.get(kind.value, {})
        since = before.get("lastTransitionTime") if before.get("status") == condition.status else None
        found.append(
            {
                "type": kind.value,
                "status": condition.status,
                "observedGeneration": generation,
                "lastTransitionTime": since or timestamp(now),
                "reason": condition.reason.value,
                "message": condition.message,
            }
        )
    return found


def settled(
    new: dict[str, Any], live: Mapping[str, Any], pods: Sequence[Pod], now: datetime, doing: Mapping[str, Report]
) -> tuple[dict[str, Any], float | None]:
    """The new status, or the live one for the few seconds in which pods move and nothing is decided yet.

    `doing` are the reports of engines that start, by pod's name: a step that takes no time needs no report either.
    Returns with it after how many seconds to look again.
    """
    if not live or live.get("observedGeneration") != new.get("observedGeneration") or live == new:
        return new, None
    if _verdict(new) != _verdict(live) or _bad_news(new) - _bad_news(live):
        return new, None
    ages = [(now - moment).total_seconds() for pod in pods for moment in _moments(pod, doing.get(pod.name))]
    youngest = min((age for age in ages if age >= 0), default=SETTLE_SECONDS)
    if youngest >= SETTLE_SECONDS:
        return new, None
    return dict(live), SETTLE_SECONDS - youngest


def cold_start(
    pods: Sequence[Pod], budget: timedelta, before: Mapping[str, Any] | None, reports: Mapping[str, Report]
) -> dict[str, float] | None:
    """Seconds from creation to the steps of the latest start that needed no restart.

    `reports`, by pod's name, have the steps within the container.

    A pod that became ready later than a start may take was ready before: its time says nothing of starting.
    """
    kept = dict(before) if before else None
    for pod in sorted((p for p in pods if p.ready and not p.restarts), key=lambda p: (p.created, p.name), reverse=True):
        created, ready = parse_time(pod.created), parse_time(pod.condition("Ready").get("lastTransitionTime"))
        running = parse_time((pod.state("running") or {}).get("startedAt"))
        if created is None or ready is None or running is None or ready - running > budget or ready < created:
            return kept
        times = {"scheduled": parse_time(pod.scheduled_at), "pulled": running, "ready": ready}
        steps = {k: max((t - created).total_seconds(), 0.0) for k, t in times.items() if t is not None}
        report = reports.get(pod.name)
        if report is None:
            # An operator that has just started has not read it yet, and then has it on record.
            same = kept is not None and all(kept.get(step) == seconds for step, seconds in steps.items())
            return kept if same else steps
        within = {k: steps["pulled"] + seconds for k, seconds in report.phases.items() if k not in steps}
        return {k: round(seconds, 1) for k, seconds in {**steps, **within}.items()}
    return kept


def _moments(pod: Pod, report: Report | None) -> list[datetime]:
    running = parse_time((pod.state("running") or {}).get("startedAt"))
    texts = [pod.created, pod.scheduled_at, pod.condition("Ready").get("lastTransitionTime")]
    found = [moment for moment in (running, *map(parse_time, texts)) if moment is not None]
    if running is not None and report is not None:
        found.append(running + timedelta(seconds=report.since))
    return found


def _verdict(status: Mapping[str, Any]) -> Any:
    """What is never held back: a change of the summary, of what stalls, of the last failure, the revision, the number.

    Nor is the first node that can run an engine, or that there is none any more.
    """
    conditions = {c.get("type"): c for c in status.get("conditions") or []}
    stalled = conditions.get("Stalled") or {}
    return (
        (conditions.get("Ready") or {}).get("status"),
        stalled.get("status"),
        stalled.get("reason") if stalled.get("status") == "True" else None,
        status.get("lastFailure"),
        (status.get("revision") or {}).get("updated"),
        bool((status.get("nodes") or {}).get("eligible")),
        (status.get("autoscaling") or {}).get("desiredReplicas"),
    )


def _bad_news(status: Mapping[str, Any]) -> set[str]:
    """The conditions that are False and should not be; they are not held back when they turn."""
    return {c["type"] for c in status.get("conditions") or [] if c.get("status") == "False"} - {
        "Reconciling",
        "Stalled",
    }
