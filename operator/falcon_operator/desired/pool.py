"""The InferencePool over the engines, with the user's endpoint picker."""

from __future__ import annotations

from typing import Any

from falcon_operator.api import names
from falcon_operator.api.traffic import InferencePool
from falcon_operator.desired.metadata import Owner, child

API_VERSION, KIND = "inference.networking.k8s.io/v1", "InferencePool"


def inference_pool(owner: Owner, pool: InferencePool) -> dict[str, Any]:
    """Its picker chooses among the engines themselves, and the user's Gateway calls them."""
    picker = pool.endpoint_picker_ref
    return child(
        owner,
        API_VERSION,
        KIND,
        names.policy_name(owner.name),
        {
            "spec": {
                "selector": {"matchLabels": names.selector_labels(owner.name)},
                "targetPorts": [{"number": names.ENGINE_PORT}],
                "endpointPickerRef": {"name": picker.name, "port": {"number": picker.port}},
            }
        },
    )
