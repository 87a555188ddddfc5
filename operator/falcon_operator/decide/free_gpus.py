"""Whether a GPU is free for one more engine: what nodes offer, less what their pods have asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from falcon_operator.api.spec import Spec
from falcon_operator.decide.nodes import NodeIndex
from falcon_operator.decide.placement import Placement
from falcon_operator.decide.pods import FINISHED
from falcon_operator.desired import claims, quantity
from falcon_operator.desired.gpu_labels import plain_number

# Each node looked at is a request for its pods.
MOST_NODES = 100
_MOST_OFFERED = 1_000_000


@dataclass(frozen=True)
class Wanted:
    """What to look for: `count` of an extended resource on one of the nodes, each with what it offers.

    `eligible` is how many nodes can run an engine; no more than `MOST_NODES` of them are looked at.
    """

    resource: str
    count: int
    nodes: tuple[tuple[str, int], ...]
    eligible: int


@dataclass(frozen=True)
class Free:
    """What a look has found: the first node with enough, or none; `error` where the look itself failed."""

    node: str | None = None
    error: str | None = None


def wanted(spec: Spec, placement: Placement, nodes: NodeIndex | None) -> Wanted | str:
    """What to look for, or in a few words why there is no use in looking."""
    if not spec.effective_gpu_count:
        return "GPUs of claims cannot be counted" if spec.gpu.claims else "no GPU is asked for"
    if claims.on_one_node(spec):
        return "its claim may be mounted on one node at a time"
    if nodes is None or placement.judgement is None:
        return "the operator may not read nodes, so it cannot tell whether a GPU is free"
    eligible, resource = placement.judgement.eligible, spec.gpu.effective_resource_name
    found = []
    for name in eligible.first(MOST_NODES):
        node = nodes.get(name)
        offered = plain_number(node.allocatable.get(resource), _MOST_OFFERED) if node is not None else None
        if offered is not None and offered >= spec.effective_gpu_count:
            found.append((name, offered))
    if not found:
        return "no node is known that can run an engine"
    return Wanted(resource, spec.effective_gpu_count, tuple(found), len(eligible))


def requested(pod: Mapping[str, Any], resource: str) -> int:
    """How many of an extended resource a pod holds on its node, as the scheduler counts; leaving pods hold theirs."""
    if (pod.get("status") or {}).get("phase") in FINISHED:
        return 0
    spec = pod.get("spec") or {}
    beside, peak = 0, 0
    for container in spec.get("initContainers") or ():
        asks = _asks(container, resource)
        if container.get("restartPolicy") == "Always":
            beside += asks
            peak = max(peak, beside)
        else:
            peak = max(peak, beside + asks)
    return max(peak, beside + sum(_asks(c, resource) for c in spec.get("containers") or ()))


def left(wanted: Wanted, node: str, pods: Iterable[int]) -> int:
    """How many are free on a node whose pods have asked for so many each."""
    return dict(wanted.nodes)[node] - sum(pods)


def said(wanted: Wanted, free: Free) -> str:
    """What was found, in the words of a reason."""
    if free.error is not None:
        return free.error
    what = "GPU is" if wanted.count == 1 else f"{wanted.count} GPUs of one node are"
    if free.node is not None:
        many = "a GPU is" if wanted.count == 1 else f"{wanted.count} GPUs are"
        return f"{many} free on node {free.node}"
    where = "the node that" if wanted.eligible == 1 else f"the {wanted.eligible} nodes that"
    if len(wanted.nodes) < wanted.eligible:
        where = f"the first {len(wanted.nodes)} of the {wanted.eligible} nodes that"
    return f"no {what} free on {where} can run an engine"


def _asks(container: Mapping[str, Any], resource: str) -> int:
    resources = container.get("resources") or {}
    value = (resources.get("requests") or {}).get(resource, (resources.get("limits") or {}).get(resource))
    if value is None:
        return 0
    try:
        return int(quantity.parse(str(value)))
    except (ValueError, TypeError, KeyError, ArithmeticError):
        return _MOST_OFFERED  # unknown is not zero
