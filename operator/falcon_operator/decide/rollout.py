"""How far the pods are from what is wanted, and what stands in the way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from falcon_operator.api.reasons import Reason
from falcon_operator.decide import failure, scheduler
from falcon_operator.decide.failure import Failure
from falcon_operator.decide.pods import Pod
from falcon_operator.decide.report import Canary, Report

_SHOWN_PODS = 3
_MESSAGE_CHARACTERS = 1000


@dataclass(frozen=True)
class Blocker:
    """What keeps pods from serving; `final` where no waiting cures it."""

    reason: Reason
    message: str
    final: bool = False


@dataclass(frozen=True)
class Rollout:
    """The pods of one resource beside the number and the revision that are wanted."""

    desired: int
    revision: str | None
    updated: tuple[Pod, ...]
    outdated: tuple[Pod, ...]
    failures: tuple[Failure, ...]
    blocker: Blocker | None
    doing: Mapping[str, Report] = field(default_factory=dict)  # by pod's name, of the engines that start
    cost: str = ""  # of replacing pods, to clients

    @property
    def active(self) -> tuple[Pod, ...]:
        """All pods that count as replicas."""
        return self.updated + self.outdated

    @property
    def ready(self) -> tuple[Pod, ...]:
        """Pods of any revision that take requests."""
        return tuple(p for p in self.active if p.ready)

    @property
    def updated_ready(self) -> tuple[Pod, ...]:
        """Pods of the wanted revision that take requests."""
        return tuple(p for p in self.updated if p.ready)

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """What comes of the first requests to engines that start."""
        return tuple(report.canary for report in self.doing.values() if report.canary is not None)

    @property
    def complete(self) -> bool:
        """Whether exactly the wanted pods are there and ready."""
        return not self.outdated and len(self.updated) == len(self.updated_ready) == self.desired

    @property
    def progress(self) -> str:
        """How far it is, and what is waited for."""
        said = [f"{len(self.updated_ready)} of {_count(self.desired)} of revision {self.revision} ready"]
        missing = self.desired - len(self.updated)
        if missing > 0:
            said.append(f"{_count(missing)} to be created")
        elif missing < 0:
            said.append(f"{_count(-missing)} too many, to be removed")
        if self.outdated:
            cost = f", {self.cost}" if self.cost else ""
            said.append(f"{_count(len(self.outdated))} of an earlier revision to be replaced{cost}")
        waiting = [p for p in self.updated if not p.ready]
        said += [f"pod {p.name} is {_phase(p, self.doing.get(p.name))}" for p in waiting[:_SHOWN_PODS]]
        if len(waiting) > _SHOWN_PODS:
            said.append(f"{len(waiting) - _SHOWN_PODS} more are not ready")
        return "; ".join(said) + "."


def observe(
    pods: Sequence[Pod],
    deployment: Mapping[str, Any] | None,
    desired: int,
    revision: str | None,
    startup_budget: int | None,
    asks: str,
    record: Mapping[str, Any] | None,
    doing: Mapping[str, Report],
) -> Rollout:
    """The state of the pods.

    `asks` says what a pod asks of a node, `record` the last failure that was reported, `doing` how far starts are.
    """
    active = [p for p in pods if p.active]
    updated = tuple(p for p in active if p.revision == revision)
    outdated = tuple(p for p in active if p.revision != revision)
    found = tuple(failure.restated(failure.failures(pods, startup_budget), record))
    names = {p.name for p in updated}
    blocking = failure.blocking([f for f in found if f.pod in names])
    blocker: Blocker | None = None
    if desired and blocking is not None:
        blocker = Blocker(blocking.cause.reason, blocking.sentence, blocking.final)
    elif desired:
        blocker = _creation_refused(deployment) or _unschedulable(updated, asks)
    return Rollout(desired, revision, updated, outdated, found, blocker, doing)


def progress_deadline_exceeded(deployment: Mapping[str, Any] | None) -> bool:
    """Whether the Deployment's controller has given up waiting."""
    condition = _condition(deployment, "Progressing")
    return condition.get("status") == "False" and condition.get("reason") == "ProgressDeadlineExceeded"


def was_complete(deployment: Mapping[str, Any]) -> bool:
    """Whether the Deployment's controller has seen all pods of its present template in place, now or before."""
    return _condition(deployment, "Progressing").get("reason") == "NewReplicaSetAvailable"


def _unschedulable(pods: Sequence[Pod], asks: str) -> Blocker | None:
    for pod in pods:
        words = scheduler.unschedulable(pod)
        if words is not None:
            return Blocker(Reason.UNSCHEDULABLE, scheduler.explained(words, asks))
    return None


def _creation_refused(deployment: Mapping[str, Any] | None) -> Blocker | None:
    """Pods that the API server does not let the ReplicaSet create."""
    condition = _condition(deployment, "ReplicaFailure")
    if condition.get("status") != "True":
        return None
    # The name of the pod that was not created is another one at every attempt.
    words = re.sub(r'^pods "[^"]*" (is )?', "", str(condition.get("message") or "no message"))
    words = " ".join(words.split()).rstrip(".")[:_MESSAGE_CHARACTERS]
    if "exceeded quota" in words:
        lower = "spec.replicas (spec.autoscaling.maxReplicas), spec.resources or spec.gpu.count"
        hint = f"Raise the namespace's ResourceQuota, or lower {lower}."
        return Blocker(Reason.REFUSED, f"Pods cannot be created: {words}. {hint}")
    if "PodSecurity" in words:
        hint = "Relax the namespace's Pod Security level, or correct spec.security."
        return Blocker(Reason.POLICY_REFUSED, f"Pods cannot be created: {words}. {hint}", final=True)
    hint = "Correct what the message names; creating pods is tried again by itself."
    return Blocker(Reason.REFUSED, f"Pods cannot be created: {words}. {hint}")


def _condition(deployment: Mapping[str, Any] | None, kind: str) -> Mapping[str, Any]:
    conditions = ((deployment or {}).get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind), {})


def _phase(pod: Pod, report: Report | None) -> str:
    if not pod.node:
        if pod.condition("PodScheduled").get("reason") == "SchedulingGated":
            return "held back by a scheduling gate, such as a queue's"
        return "waiting for a node"
    if pod.state("running") is None and not pod.restarts:
        return f"pulling its image or mounting its volumes on node {pod.node}"
    if pod.condition("Ready").get("reason") == "NodeNotReady":
        return f"on node {pod.node}, which does not report any more"
    if pod.started and not pod.starting:
        return f"running on node {pod.node}, but its engine does not answer /health"
    doing = report.doing if report is not None else "starting its engine"
    return f"{doing} on node {pod.node}" + (", started again" if pod.restarts else "")


def _count(pods: int) -> str:
    return f"{pods} pod" if pods == 1 else f"{pods} pods"
