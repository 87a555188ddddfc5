"""NetworkPolicies: who reaches the engines and the gateway, and whom the gateway reaches.

Probes come from the node, which no policy keeps out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from falcon_operator.api import names
from falcon_operator.api.config import OperatorConfig
from falcon_operator.desired.metadata import Owner, child

LABEL_NAMESPACE = "kubernetes.io/metadata.name"
# Of the operator's own pod, as its chart labels it.
OPERATOR = {names.LABEL_COMPONENT: "operator"}
_DNS_PORT = 53


def engines_policy(owner: Owner, config: OperatorConfig, *, open_to_all: bool) -> dict[str, Any]:
    """The engine's port is for the gateway, the operator and monitoring, and the launcher's for the operator.

    `open_to_all` where clients, or a picker's data plane, call engines without our gateway between.
    """
    gateway = {"podSelector": {"matchLabels": names.gateway_selector_labels(owner.name)}}
    ingress: list[dict[str, Any]] = [
        {"ports": _ports(names.ENGINE_PORT, names.LAUNCHER_PORT), "from": [_operator(config)]}
    ]
    if open_to_all:
        ingress.append({"ports": _ports(names.ENGINE_PORT)})
    else:
        ingress.append({"ports": _ports(names.ENGINE_PORT), "from": [gateway, *_monitoring(config)]})
    return child(
        owner,
        "networking.k8s.io/v1",
        "NetworkPolicy",
        names.policy_name(owner.name),
        {
            "spec": {
                "podSelector": {"matchLabels": names.selector_labels(owner.name)},
                "policyTypes": ["Ingress"],
                "ingress": ingress,
            }
        },
    )


def gateway_policy(owner: Owner, config: OperatorConfig) -> dict[str, Any]:
    """Clients may be anywhere; metrics are for the operator and monitoring; it calls engines and the name server."""
    return child(
        owner,
        "networking.k8s.io/v1",
        "NetworkPolicy",
        names.gateway_name(owner.name),
        {
            "spec": {
                "podSelector": {"matchLabels": names.gateway_selector_labels(owner.name)},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    # From everywhere: an ingress controller in the node's network is in no namespace.
                    {"ports": _ports(names.GATEWAY_PORT)},
                    {
                        "ports": _ports(names.GATEWAY_METRICS_PORT),
                        "from": [_operator(config), *_monitoring(config)],
                    },
                ],
                "egress": [
                    # To everywhere: a name server on the node is in no namespace.
                    {"ports": [{"port": _DNS_PORT, "protocol": protocol} for protocol in ("UDP", "TCP")]},
                    {
                        "ports": _ports(names.ENGINE_PORT),
                        "to": [{"podSelector": {"matchLabels": names.selector_labels(owner.name)}}],
                    },
                ],
            }
        },
        component=names.COMPONENT_GATEWAY,
    )


def _operator(config: OperatorConfig) -> dict[str, Any]:
    where = {LABEL_NAMESPACE: config.operator_namespace} if config.operator_namespace else {}
    return {"namespaceSelector": _matching(where), "podSelector": _matching(OPERATOR)}


def _monitoring(config: OperatorConfig) -> list[dict[str, Any]]:
    return [{"namespaceSelector": _matching({LABEL_NAMESPACE: name})} for name in config.monitoring_namespaces]


def _matching(labels: Mapping[str, str]) -> dict[str, Any]:
    """Labels to be matched; no labels match everything."""
    return {"matchLabels": dict(labels)} if labels else {}


def _ports(*ports: int) -> list[dict[str, Any]]:
    return [{"port": port, "protocol": "TCP"} for port in ports]
