"""Which pod a scale-down takes: the ReplicaSet controller removes the ready pod with the lowest deletion cost first.

A template that changes with the number is written with it: the Deployment's controller first scales what runs, by these
costs, and replaces pods only then. To write them one after the other would do the same, with a state more between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from falcon_operator.decide.pods import Pod

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
# The annotation is an int32; a pod whose load is not known is taken for busier than any whose load is.
UNKNOWN_COST = 2**31 - 1


def due(wanted: int, live: int) -> bool:
    """Costs are written only when some pods are about to go, and some stay.

    `live` is the Deployment's spec.replicas as it is now.
    """
    return 0 < wanted < live


def candidates(wanted: int, deployment: Mapping[str, Any] | None, pods: Sequence[Pod]) -> tuple[Pod, ...]:
    """The pods whose costs are to be written before anything else is done: pods that are not ready go first anyway."""
    live = int(((deployment or {}).get("spec") or {}).get("replicas") or 0)
    ready = tuple(p for p in pods if p.ready)
    return ready if due(wanted, live) and len(ready) > 1 else ()


def cost(load: float | None) -> int:
    """From the requests that run and wait in a pod's engine; None where the engine did not say."""
    if load is None or not 0 <= load < UNKNOWN_COST:  # NaN is neither
        return UNKNOWN_COST
    return int(load)


def changes(loads: Mapping[str, float | None], annotated: Mapping[str, str]) -> dict[str, str]:
    """The annotation's value for each pod where it has to be written; `annotated` has the pods that carry one.

    Without an annotation a pod counts as 0, so an idle pod that has none is left alone.
    """
    values = {pod: str(cost(load)) for pod, load in loads.items()}
    return {pod: value for pod, value in sorted(values.items()) if annotated.get(pod, "0") != value}
