"""The Deployment of the engines."""

from __future__ import annotations

from typing import Any

from falcon_operator.api import names
from falcon_operator.api.lifecycle import Strategy
from falcon_operator.api.spec import Spec
from falcon_operator.desired.metadata import Owner, child

# Beside the startup budget a new pod may need a node and an image of many gigabytes, and the end of an old one.
_PLACEMENT_SECONDS = 600
# An engine that dies of its first requests is no reason to replace the next one.
_MIN_READY_SECONDS = 10


def deployment(
    spec: Spec,
    owner: Owner,
    replicas: int,
    template: dict[str, Any],
    annotations: dict[str, str],
    *,
    surges: bool = False,
) -> dict[str, Any]:
    """The Deployment with a template that is already labelled; `surges` is what `Auto` has come to."""
    first = surges if spec.rollout.strategy is Strategy.AUTO else spec.rollout.strategy is Strategy.SURGE
    # Integers, because a GPU is scarce: a share of the replicas rounds to a pod that finds none.
    surge, unavailable = (1, 0) if first else (0, 1)
    return child(
        owner,
        "apps/v1",
        "Deployment",
        names.deployment_name(owner.name),
        {
            "spec": {
                "replicas": replicas,
                "revisionHistoryLimit": 2,
                "minReadySeconds": _MIN_READY_SECONDS,
                "progressDeadlineSeconds": spec.startup.budget_seconds
                + spec.rollout.drain_timeout_seconds
                + _PLACEMENT_SECONDS,
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
                },
                "selector": {"matchLabels": names.selector_labels(owner.name)},
                "template": template,
            }
        },
        annotations,
    )
