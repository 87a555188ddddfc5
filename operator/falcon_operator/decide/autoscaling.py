"""`spec.autoscaling`: how many engines there are to be, and what the autoscaler is to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from falcon_operator.api import names
from falcon_operator.api.autoscaling import AutoscalingMode
from falcon_operator.api.engine import Device
from falcon_operator.api.reasons import ConditionType, Reason
from falcon_operator.api.spec import Spec
from falcon_operator.decide import scheduler
from falcon_operator.decide.autoscale import words
from falcon_operator.decide.autoscale.types import Config, Decision, Fleet
from falcon_operator.decide.nodes import NodeIndex
from falcon_operator.decide.placement import Placement
from falcon_operator.decide.pods import Pod, parse_time
from falcon_operator.decide.rollout import Rollout
from falcon_operator.decide.types import Scaling, Watch
from falcon_operator.desired.gpu_labels import plain_number

_MOST_OFFERED = 1_000_000
_REASON_CHARACTERS = 1000
RESUMED = "spec.suspend is false again."
SOMEBODY = "Somebody else has changed the Deployment."
PAUSED = "a rollout replaces pods"


@dataclass(frozen=True)
class Move:
    """What the autoscaler did last, as the Deployment says it: written with the number, so that it is not lost."""

    before: int
    after: int
    reason: str
    signal: str | None = None
    limit: str | None = None

    @classmethod
    def of(cls, marks: Mapping[str, str]) -> Move | None:
        """From the Deployment's annotations; None where there is none, or nobody can read it."""
        text = marks.get(names.ANNOTATION_SCALED)
        try:
            said = json.loads(text or "null")
            return cls(int(said["from"]), int(said["to"]), str(said["reason"]), said.get("signal"), said.get("limit"))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    @property
    def text(self) -> str:
        """As the annotation."""
        said = {"from": self.before, "to": self.after, "reason": self.reason}
        said |= {k: v for k, v in (("signal", self.signal), ("limit", self.limit)) if v is not None}
        return json.dumps(said)


def native(spec: Spec) -> bool:
    """Whether the operator itself finds the number."""
    return spec.autoscaling is not None and spec.autoscaling.mode is AutoscalingMode.NATIVE


def bounds(spec: Spec) -> tuple[int, int]:
    """Least and most engines."""
    asked = spec.autoscaling
    if asked is None:
        return spec.replicas, spec.replicas
    # The API server lets nobody leave out maxReplicas for Native; External has no bound but the schema's.
    without = max(asked.min_replicas, 1) if asked.mode is AutoscalingMode.NATIVE else 1000
    return asked.min_replicas, asked.max_replicas if asked.max_replicas is not None else without


def enough(spec: Spec) -> int | None:
    """How many serving engines are enough to be Ready while the autoscaler adds some; None: all that are wanted."""
    return max(bounds(spec)[0], 1) if native(spec) else None


def wanted(spec: Spec, there: Mapping[str, Any] | None, live_status: Mapping[str, Any], scaling: Scaling | None) -> int:
    """How many engines there are to be.

    In Native the Deployment itself remembers: what it says now holds until something is decided of just that number.
    """
    if spec.suspend:
        return 0
    if not native(spec):
        return spec.replicas
    live = replicas_of(there)
    if live is None or _resumed(live, live_status):
        # A Deployment that somebody has deleted comes back as it was.
        before = (live_status.get("autoscaling") or {}).get("desiredReplicas")
        return _bounded(spec, max(bounds(spec)[0], 1) if before is None else int(before))
    decision = current(there, scaling)
    return _bounded(spec, live if decision is None else decision.replicas)


def current(there: Mapping[str, Any] | None, scaling: Scaling | None) -> Decision | None:
    """The newest decision, if it is one of the number that the Deployment has now.

    Another operator, or a person, may have changed it meanwhile; to write what was decided before would be a fight.
    """
    if scaling is None or (scaling.seen is not None and scaling.seen != replicas_of(there)):
        return None
    return scaling.decision


def marks(
    spec: Spec,
    there: Mapping[str, Any] | None,
    live_status: Mapping[str, Any],
    desired: int,
    scaling: Scaling | None,
) -> dict[str, str]:
    """What the Deployment is to say of the last change of its number."""
    if not native(spec):
        return {}
    live, said = replicas_of(there), _annotations(there).get(names.ANNOTATION_SCALED)
    if spec.suspend or live is None or live == desired:
        return {names.ANNOTATION_SCALED: said} if said else {}
    decision = current(there, scaling)
    if _resumed(live, live_status):
        move = Move(live, desired, RESUMED)
    elif decision is not None and decision.replicas == desired:
        limit = decision.limited_by.value if decision.limited_by else None
        move = Move(live, desired, decision.reason[:_REASON_CHARACTERS], decision.signal[:_REASON_CHARACTERS], limit)
    else:
        move = Move(live, desired, words.bounds(_config(spec)))
    return {names.ANNOTATION_SCALED: move.text}


def watch(
    spec: Spec,
    there: Mapping[str, Any] | None,
    live_status: Mapping[str, Any],
    desired: int,
    state: Rollout,
    gateways: tuple[Pod, ...],
    places: Placement,
    nodes: NodeIndex | None,
    *,
    per_engine: int,
    has_served: bool,
    version: str | None,
    now: datetime,
) -> Watch | None:
    """What the autoscaler is to look at; None where there is nothing to scale."""
    if spec.autoscaling is None or spec.suspend:
        return None
    live = replicas_of(there)
    replicas = desired if live is None else live
    starting = [p for p in state.active if p.node and not p.ready]
    return Watch(
        config=_config(
            spec,
            per_engine=per_engine,
            cold_start=(live_status.get("coldStart") or {}).get("ready"),
            gpus=room(spec, places, nodes),
            # With no engine there is nothing that a start would disturb, and somebody may be waiting.
            paused=PAUSED if state.outdated and replicas else None,
        ),
        fleet=Fleet(
            replicas=replicas,
            ready=len(state.ready),
            starting=tuple(age for pod in starting if (age := _age(pod, now)) is not None),
            unplaced=sum(scheduler.unschedulable(p) is not None for p in state.active),
            has_served=has_served,
        ),
        gateways=tuple(p for p in gateways if p.ready),
        engines=state.ready,
        learned=(live_status.get("autoscaling") or {}).get("learned"),
        native=native(spec),
        version=version,
    )


def room(spec: Spec, places: Placement, nodes: NodeIndex | None) -> int | None:
    """How many engines all nodes that may run one can hold by their GPUs; None where that cannot be counted.

    One is always let be: its pod, which finds no node, is what a cluster autoscaler sees.
    """
    judgement, count = places.judgement, spec.effective_gpu_count
    if nodes is None or judgement is None or not count or spec.engine.device is Device.CPU:
        return None
    resource = spec.gpu.effective_resource_name

    def counted() -> tuple[object, int]:
        found = 0
        for name in (*judgement.eligible, *judgement.unknown):
            node = nodes.get(name)
            offered = plain_number(node.allocatable.get(resource), _MOST_OFFERED) if node is not None else None
            found += (offered or 0) // count
        return judgement, max(found, 1)

    # The judgement itself is kept with the sum: nothing else can have its identity meanwhile.
    return nodes.once(("room", id(judgement), resource, count), counted)[1]


def replicas_of(deployment: Mapping[str, Any] | None) -> int | None:
    """The Deployment's `spec.replicas`; None where there is no Deployment."""
    if deployment is None:
        return None
    return int((deployment.get("spec") or {}).get("replicas") or 0)


def _config(
    spec: Spec,
    *,
    per_engine: int = 1,
    cold_start: float | None = None,
    gpus: int | None = None,
    paused: str | None = None,
) -> Config:
    asked = spec.autoscaling
    assert asked is not None
    least, most = bounds(spec)
    return Config(
        min_replicas=least,
        max_replicas=most,
        target=asked.target_utilization,
        window=asked.scale_down_window_seconds,
        zero_after=asked.scale_to_zero_after_seconds,
        per_engine=per_engine,
        cold_start=cold_start,
        gpus=gpus,
        gateway=spec.gateway.enabled,
        paused=paused,
    )


def _bounded(spec: Spec, replicas: int) -> int:
    least, most = bounds(spec)
    return min(max(replicas, least), most)


def _resumed(live: int, live_status: Mapping[str, Any]) -> bool:
    """Whether the engines are gone because the resource was suspended: it is to serve again, not to wait for a call."""
    conditions = live_status.get("conditions") or []
    said: Mapping[str, Any] = next((c for c in conditions if c.get("type") == ConditionType.READY), {})
    return live == 0 and said.get("reason") == Reason.SUSPENDED


def _age(pod: Pod, now: datetime) -> float | None:
    created = parse_time(pod.created)
    return None if created is None else max((now - created).total_seconds(), 0.0)


def _annotations(deployment: Mapping[str, Any] | None) -> Mapping[str, str]:
    return ((deployment or {}).get("metadata") or {}).get("annotations") or {}
