"""Whether a node is where a pod may go, by the rules of the scheduler: selectors, affinity, cordons and taints."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from falcon_operator.api.affinity import NodeRequirement, NodeSelectorTerm
from falcon_operator.api.scheduling import Scheduling, Toleration
from falcon_operator.decide.nodes import NodeFacts, Taint
from falcon_operator.desired.gpu_labels import scheduler_number

_CORDONED: Taint = ("node.kubernetes.io/unschedulable", "", "NoSchedule")
_KEEP_OFF = ("NoSchedule", "NoExecute")


def not_admitted(scheduling: Scheduling, node: NodeFacts) -> str | None:
    """Why a node that cannot be told from its like takes no pods: it is cordoned, or has a taint."""
    if node.unschedulable and not _tolerated(_CORDONED, scheduling.tolerations):
        return "is cordoned"
    for taint in node.taints:
        if taint[2] in _KEEP_OFF and taint != _CORDONED and not _tolerated(taint, scheduling.tolerations):
            key, value, effect = taint
            return f"has taint {key}{'=' if value else ''}{value}:{effect}, not in spec.scheduling.tolerations"
    return None


def has_selectors(scheduling: Scheduling) -> bool:
    """Whether the user chooses among nodes."""
    return bool(scheduling.node_selector) or bool(_terms(scheduling))


def identity(scheduling: Scheduling) -> tuple[Hashable, ...]:
    """What `not_selected` depends on: equal where two resources choose alike."""
    node = scheduling.affinity.node_affinity if scheduling.affinity else None
    return tuple(sorted(scheduling.node_selector.items())), node


def not_selected(scheduling: Scheduling, node: NodeFacts) -> str | None:
    """Why the user's own selectors leave a node out."""
    for key, value in scheduling.node_selector.items():
        have = node.labels.get(key)
        if have != value:
            has = "no label" if have is None else f"label {key}={have}, not"
            return f"has {has} {key}={value} (spec.scheduling.nodeSelector)"
    terms = _terms(scheduling)
    if terms and not any(_matches(term, node) for term in terms):
        return "does not match spec.scheduling.affinity.nodeAffinity"
    return None


def labels_looked_at(scheduling: Scheduling) -> tuple[str, ...] | None:
    """The labels that decide `not_selected`; None where the node's name does too."""
    keys = set(scheduling.node_selector)
    for term in _terms(scheduling):
        if term.match_fields:
            return None
        keys.update(requirement.key for requirement in term.match_expressions or ())
    return tuple(sorted(keys))


def _terms(scheduling: Scheduling) -> Sequence[NodeSelectorTerm]:
    node = scheduling.affinity.node_affinity if scheduling.affinity else None
    required = node.required_during_scheduling_ignored_during_execution if node else None
    # An empty term matches nothing; a selector of nothing else is not rendered (see desired.affinity.merged).
    return [t for t in (required.node_selector_terms if required else ()) if t.match_expressions or t.match_fields]


def _matches(term: NodeSelectorTerm, node: NodeFacts) -> bool:
    fields = {"metadata.name": node.name}
    return all(_holds(r, node.labels) for r in term.match_expressions or ()) and all(
        _holds(r, fields) for r in term.match_fields or ()
    )


def _holds(requirement: NodeRequirement, values: Mapping[str, str]) -> bool:
    have = values.get(requirement.key)
    match requirement.operator:
        case "Exists":
            return have is not None
        case "DoesNotExist":
            return have is None
        case "In":
            return have in requirement.values
        case "NotIn":
            return have not in requirement.values
        case _:
            number = None if have is None else scheduler_number(have)
            bound = scheduler_number(requirement.values[0]) if len(requirement.values) == 1 else None
            if number is None or bound is None:
                return False
            return number > bound if requirement.operator == "Gt" else number < bound


def _tolerated(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    key, value, effect = taint
    return any(
        (t.effect is None or t.effect == effect)
        and (t.key is None or t.key == key)
        and (t.operator == "Exists" or (t.value or "") == value)
        for t in tolerations
    )
