"""Which resources a change among the nodes can touch: the others are not looked at again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from falcon_operator.api.engine import Device
from falcon_operator.decide.nodes import NodeFacts
from falcon_operator.desired.gpu_labels import concerns_gate

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True)
class Change:
    """A kind of change: of all that the gate looks at, or of labels that only a user's selector can name."""

    everything: bool = False
    labels: frozenset[str] = frozenset()

    @staticmethod
    def between(before: NodeFacts | None, after: NodeFacts | None) -> Change | None:
        """What has changed of a node that came, went or is another; None where it is no matter of GPUs."""
        there = [node for node in (before, after) if node is not None]
        if not any(node.has_gpus for node in there):
            return None
        if before is None or after is None:
            return Change(everything=True)
        labels = frozenset(key for key, _ in before.labels.items() ^ after.labels.items())
        if any(map(concerns_gate, labels)) or _without_labels(before) != _without_labels(after):
            return Change(everything=True)
        return Change(labels=labels) if labels else None


def needs_gpu(resource: Mapping[str, Any]) -> bool:
    """Whether a resource's pods ask for a GPU, as its spec says it; asked for every resource, so nothing is parsed."""
    spec = resource.get("spec") or {}
    gpu, device = spec.get("gpu") or {}, (spec.get("engine") or {}).get("device")
    return device != Device.CPU.value or bool(gpu.get("claims")) or bool(gpu.get("count"))


def touches(changes: Collection[Change], resource: Mapping[str, Any]) -> bool:
    """Whether one of the changes may change what is said of the nodes for this resource."""
    if not changes or not needs_gpu(resource):
        return False
    if any(change.everything for change in changes):
        return True
    named = _selected_labels(resource)
    return any(not named.isdisjoint(change.labels) for change in changes)


def _selected_labels(resource: Mapping[str, Any]) -> set[str]:
    """The labels that the resource itself selects nodes by."""
    scheduling = (resource.get("spec") or {}).get("scheduling") or {}
    required = ((scheduling.get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED) or {}
    found = set(scheduling.get("nodeSelector") or ())
    for term in required.get("nodeSelectorTerms") or ():
        found |= {str(one.get("key")) for one in term.get("matchExpressions") or ()}
    return found


def _without_labels(node: NodeFacts) -> tuple[object, ...]:
    return dict(node.allocatable), node.unschedulable, node.taints, node.has_gpus
