"""The HTTPRoute from the user's Gateway to the endpoint."""

from __future__ import annotations

from typing import Any

from falcon_operator.api import names
from falcon_operator.api.traffic import HTTPRoute, ParentRef
from falcon_operator.desired.canonical import without_none
from falcon_operator.desired.metadata import Owner, child

API_VERSION, KIND = "gateway.networking.k8s.io/v1", "HTTPRoute"


def http_route(owner: Owner, route: HTTPRoute) -> dict[str, Any]:
    """Every path goes to the Service, whose gateway knows which are open."""
    backend = {"name": names.service_name(owner.name), "port": names.SERVICE_PORT}
    spec: dict[str, Any] = {
        "parentRefs": [_parent(parent) for parent in route.parent_refs],
        # Streams are as long as they are: without this some Gateways end them after 15 s.
        "rules": [{"backendRefs": [backend], "timeouts": {"request": "0s"}}],
    }
    if route.hostnames:
        spec["hostnames"] = list(route.hostnames)
    return child(
        owner, API_VERSION, KIND, names.policy_name(owner.name), {"spec": spec}, component=names.COMPONENT_GATEWAY
    )


def _parent(parent: ParentRef) -> dict[str, Any]:
    found: dict[str, Any] = without_none({"name": parent.name, "sectionName": parent.section_name, "port": parent.port})
    return found
