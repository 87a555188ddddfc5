"""Which pod a scale-down takes: the ReplicaSet controller removes the ready pod with the lowest deletion cost first."""

from __future__ import annotations

from collections.abc import Mapping

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
# The annotation is an int32; a pod whose load is not known is taken for busier than any whose load is.
UNKNOWN_COST = 2**31 - 1


def due(wanted: int, live: int) -> bool:
    """Costs are written only when pods are about to go: `live` is the Deployment's spec.replicas as it is now."""
    return wanted < live


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
