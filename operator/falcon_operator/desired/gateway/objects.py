"""The gateway's Deployment and its ConfigMap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from falcon_operator.api import names
from falcon_operator.api.base import seconds
from falcon_operator.api.config import OperatorConfig
from falcon_operator.api.spec import Spec
from falcon_operator.desired.canonical import without_none
from falcon_operator.desired.gateway.config import GatewaySettings, beside, haproxy_cfg
from falcon_operator.desired.metadata import Owner, child

CONFIG_DIRECTORY = "/etc/falcon-gateway"
KEYS_DIRECTORY = "/etc/falcon-keys"
RUN_DIRECTORY = "/run/falcon-gateway"
CONFIG_FILE = "haproxy.cfg"
# Both are always there: a pod that knows no keys yet, or still does, goes on as it began until it is replaced.
CONFIG_KEY, CONFIG_WITH_KEYS_KEY = "haproxy.cfg", "haproxy-with-keys.cfg"

_USER = 65532  # as in the image
_FEWEST_SLOTS = 32
REQUESTS = {"cpu": "100m", "memory": "64Mi"}
# Bodies of held requests are kept in memory; a gateway that is ended for its memory would cut every stream.
_LIMITS = {"memory": "1Gi"}
_READABLE_BY_GROUP = 0o440


def gateway_settings(spec: Spec, owner: Owner, config: OperatorConfig, per_engine: int) -> GatewaySettings:
    """What the gateway is told; `per_engine` requests at a time are given to one engine."""
    gateway = spec.gateway
    return GatewaySettings(
        host=f"{names.engines_service_name(owner.name)}.{owner.namespace}.svc.{config.cluster_domain}",
        replicas=gateway.replicas,
        per_server=per_engine,
        hold_seconds=seconds(gateway.hold_timeout),
        max_held=gateway.max_held_requests,
        keys=gateway.api_keys is not None,
        drain_seconds=spec.rollout.drain_timeout_seconds,
        slots=_slots(spec.most_replicas),
        sleeps=spec.autoscaling is not None and spec.autoscaling.min_replicas == 0,
    )


def config_map(owner: Owner, settings: GatewaySettings, remembered: str) -> dict[str, Any]:
    """What running pods read again by themselves; `remembered` is for the operator's own next look."""
    without, with_keys = (haproxy_cfg(replace(settings, keys=keys)) for keys in (False, True))
    return child(
        owner,
        "v1",
        "ConfigMap",
        names.gateway_name(owner.name),
        {"data": {CONFIG_KEY: without, CONFIG_WITH_KEYS_KEY: with_keys, **beside()}},
        {names.ANNOTATION_PER_ENGINE: remembered},
        names.COMPONENT_GATEWAY,
    )


def deployment(spec: Spec, owner: Owner, config: OperatorConfig, settings: GatewaySettings) -> dict[str, Any]:
    """The gateway's pods. Nothing of the ConfigMap's content is in their template: it reaches them as they run."""
    return child(
        owner,
        "apps/v1",
        "Deployment",
        names.gateway_name(owner.name),
        {
            "spec": {
                "replicas": wanted(spec),
                "revisionHistoryLimit": 2,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "selector": {"matchLabels": names.gateway_selector_labels(owner.name)},
                "template": {
                    "metadata": {"labels": names.child_labels(owner.name, owner.uid, names.COMPONENT_GATEWAY)},
                    "spec": _pod(spec, owner, config, settings),
                },
            }
        },
        component=names.COMPONENT_GATEWAY,
    )


def wanted(spec: Spec) -> int:
    """How many gateways are to run: none while the resource is suspended."""
    return 0 if spec.suspend or not spec.gateway.enabled else spec.gateway.replicas


def _pod(spec: Spec, owner: Owner, config: OperatorConfig, settings: GatewaySettings) -> dict[str, Any]:
    scheduling, keys = spec.scheduling, spec.gateway.api_keys
    found: dict[str, Any] = without_none(
        {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": settings.grace_seconds,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "imagePullSecrets": [{"name": s.name} for s in spec.image.pull_secrets] or None,
            # Where engines may run, and where there may be no other nodes.
            "nodeSelector": dict(scheduling.node_selector) or None,
            "tolerations": [t.manifest() for t in scheduling.tolerations] or None,
            "priorityClassName": scheduling.priority_class_name,
            # A node that is lost takes one gateway with it, as far as there are other nodes.
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": names.gateway_selector_labels(owner.name)},
                }
            ],
            "volumes": _volumes(owner, keys.secret_name if keys else None),
            "containers": [_container(config, settings)],
        }
    )
    return found


def _container(config: OperatorConfig, settings: GatewaySettings) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [
        {"name": "config", "mountPath": CONFIG_DIRECTORY, "readOnly": True},
        {"name": "run", "mountPath": RUN_DIRECTORY},
    ]
    if settings.keys:
        mounts.append({"name": "keys", "mountPath": KEYS_DIRECTORY, "readOnly": True})
    return {
        "name": names.GATEWAY_CONTAINER,
        "image": config.gateway_image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [
            {"name": names.PORT_NAME, "containerPort": names.GATEWAY_PORT, "protocol": "TCP"},
            {
                "name": names.GATEWAY_METRICS_PORT_NAME,
                "containerPort": names.GATEWAY_METRICS_PORT,
                "protocol": "TCP",
            },
        ],
        "resources": {"requests": dict(REQUESTS), "limits": dict(_LIMITS)},
        "volumeMounts": mounts,
        # Of the process, not of the engines: a gateway without engines is there to hold requests.
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": names.GATEWAY_METRICS_PORT_NAME},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": 3,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["leave", str(settings.hold_seconds)]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _volumes(owner: Owner, secret: str | None) -> list[dict[str, Any]]:
    items = [
        {"key": CONFIG_WITH_KEYS_KEY if secret else CONFIG_KEY, "path": CONFIG_FILE},
        *({"key": name, "path": name} for name in beside()),
    ]
    found: list[dict[str, Any]] = [
        {"name": "config", "configMap": {"name": names.gateway_name(owner.name), "items": items}},
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
    ]
    if secret:
        found.append({"name": "keys", "secret": {"secretName": secret, "defaultMode": _READABLE_BY_GROUP}})
    return found


def _slots(replicas: int) -> int:
    """Room for the engines and for as many that are on their way in or out; in steps, since each is a reload."""
    return max(_FEWEST_SLOTS, 1 << (2 * replicas - 1).bit_length() if replicas else 0)
