"""What goes into a decision and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from falcon_operator.decide.autoscale.engine_law import Learned
from falcon_operator.decide.autoscale.types import Config, Decision, Fleet
from falcon_operator.decide.free_gpus import Free, Wanted
from falcon_operator.decide.nodes import NodeIndex
from falcon_operator.decide.pods import Pod
from falcon_operator.decide.report import CacheFigures, Report
from falcon_operator.desired.renderer import Launcher, Renderer

__all__ = ["EngineFacts", "Event", "Launcher", "ObjectRef", "Plan", "Renderer", "Scaling", "Snapshot", "Watch"]


@dataclass(frozen=True)
class EngineFacts:
    """What an engine says of itself, and its launcher of the start; `error` where a Ready engine could not be read."""

    pod_uid: str
    model_names: tuple[str, ...]
    max_model_len: int | None
    version: str | None
    error: str | None
    report: Report | None = None
    cache: CacheFigures | None = None  # as `/metrics` states it
    restarts: int = 0  # the start of the container that all this is of
    serving: bool = True  # False: the engine still starts, and only its launcher was asked


@dataclass(frozen=True)
class Scaling:
    """What the autoscaler says of one resource: its newest decision, and what it has learned so far."""

    decision: Decision
    learned: Learned
    # The Deployment's spec.replicas that the decision was made of: where it is another by now, what was decided says
    # nothing.
    seen: int | None = None


@dataclass(frozen=True)
class Watch:
    """What the autoscaler is to look at: made anew by each plan. The fleet's ages are those of this moment."""

    config: Config
    fleet: Fleet
    gateways: tuple[Pod, ...]  # that are Ready, and active
    engines: tuple[Pod, ...]  # that are Ready, and active
    learned: Mapping[str, Any] | None = None  # `status.autoscaling.learned`: where an operator begins anew
    native: bool = True  # False: somebody else sets the number, and what is decided here is shown only
    version: str | None = None  # of the engines, as far as known: it says what their metrics are called


@dataclass(frozen=True)
class Snapshot:
    """One resource and everything that is there of it, as the cache holds it."""

    resource: Mapping[str, Any]
    deployment: Mapping[str, Any] | None = None
    services: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    revisions: tuple[Mapping[str, Any], ...] = ()
    pods: tuple[Mapping[str, Any], ...] = ()  # of engines
    gateway_pods: tuple[Mapping[str, Any], ...] = ()
    jobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # that quantize
    quantizer_pods: tuple[Mapping[str, Any], ...] = ()
    # What belongs to it besides, by kind and name: may be there or not, as the spec asks.
    owned: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()  # kinds that the API server does not know, or does not hand out
    claims: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    launchers: frozenset[str] = frozenset()
    engines: Mapping[str, EngineFacts] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    free: Free | None = None  # whether a GPU is free, where that was looked for just now
    nodes: NodeIndex | None = None  # None where the operator may not read nodes
    scaling: Scaling | None = None  # None where there is no autoscaling, or nothing has been decided yet


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event about the resource."""

    type: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str


@dataclass(frozen=True)
class ObjectRef:
    """One object, this incarnation of it."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class Plan:
    """What is to be done: objects to apply (most important first), to delete, to say and to look at."""

    apply: tuple[dict[str, Any], ...]
    delete: tuple[ObjectRef, ...]
    status: dict[str, Any]
    events: tuple[Event, ...]
    requeue_after: float | None
    observe: tuple[str, ...]
    look: Wanted | None = None  # the free GPU to be looked for before any of this is done
    costs: tuple[Pod, ...] = ()  # whose deletion costs are to be written before any of this is done
    autoscale: Watch | None = None  # None: the number of engines is not the autoscaler's to find
