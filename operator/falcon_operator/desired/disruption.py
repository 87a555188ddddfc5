"""PodDisruptionBudgets: a drained node takes one pod of a kind at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from falcon_operator.api import names
from falcon_operator.desired.metadata import Owner, child


def engines_budget(owner: Owner) -> dict[str, Any]:
    """Of the engines; with one replica the drain goes on, and the gateway holds what comes meanwhile."""
    return _budget(owner, names.policy_name(owner.name), names.selector_labels(owner.name), names.COMPONENT_ENGINE)


def gateway_budget(owner: Owner) -> dict[str, Any]:
    """Of the gateways."""
    selector = names.gateway_selector_labels(owner.name)
    return _budget(owner, names.gateway_name(owner.name), selector, names.COMPONENT_GATEWAY)


def _budget(owner: Owner, name: str, selector: Mapping[str, str], component: str) -> dict[str, Any]:
    return child(
        owner,
        "policy/v1",
        "PodDisruptionBudget",
        name,
        {
            "spec": {
                "maxUnavailable": 1,
                # An engine that never gets ready must not keep a node from being drained.
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": dict(selector)},
            }
        },
        component=component,
    )
