"""The Service that clients call and the headless one that names every engine."""

from __future__ import annotations

from typing import Any

from falcon_operator.api import names
from falcon_operator.desired.metadata import Owner, child


def client_service(owner: Owner, *, to_gateway: bool) -> dict[str, Any]:
    """The Service behind `status.url`; gateways and engines call their port alike."""
    selector = names.gateway_selector_labels(owner.name) if to_gateway else names.selector_labels(owner.name)
    return child(
        owner,
        "v1",
        "Service",
        names.service_name(owner.name),
        {"spec": {"type": "ClusterIP", "selector": selector, "ports": [_port(names.SERVICE_PORT)]}},
    )


def engines_service(owner: Owner) -> dict[str, Any]:
    """The headless Service: one record a ready engine, none for an engine that still loads."""
    return child(
        owner,
        "v1",
        "Service",
        names.engines_service_name(owner.name),
        {
            "spec": {
                "type": "ClusterIP",
                "clusterIP": "None",
                "publishNotReadyAddresses": False,
                "selector": names.selector_labels(owner.name),
                "ports": [_port(names.ENGINE_PORT)],
            }
        },
    )


def _port(port: int) -> dict[str, Any]:
    return {"name": names.PORT_NAME, "port": port, "protocol": "TCP", "targetPort": names.PORT_NAME}
