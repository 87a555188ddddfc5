"""Sentences about the gateway: what keeps it from getting ready, what is missing, and the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from falcon_operator.api import names
from falcon_operator.api.reasons import Reason
from falcon_operator.decide import scheduler
from falcon_operator.decide.pods import Pod
from falcon_operator.desired import pool, route
from falcon_operator.desired.gateway.objects import REQUESTS

_CHARACTERS = 500
_PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_APIS = {
    route.KIND: (route.API_VERSION, "Install the Gateway API"),
    pool.KIND: (pool.API_VERSION, "Install the Gateway API Inference Extension"),
}

STARTING = "They start."
NO_GATEWAY = "spec.gateway.enabled is false: clients reach the engines directly."
DIRECT = "Until one is ready, clients reach the engines directly, as before."


def count(ready: int, wanted: int) -> str:
    """How many gateways serve."""
    return f"{ready} of {wanted} {'gateway pod' if wanted == 1 else 'gateway pods'} ready."


def missing(field: str, kind: str) -> str:
    """A kind that the spec asks for and the API server does not hand out."""
    version, way = _APIS[kind]
    return (
        f"{field} asks for an {kind}, and this cluster has no {version} that the operator may read. "
        f"{way}, or remove {field}; the operator looks again when it is started anew, and every few minutes."
    )


def blocker(deployment: Mapping[str, Any] | None, pods: Sequence[Pod], secret: str | None) -> tuple[Reason, str] | None:
    """What keeps a gateway from getting ready, if more than time."""
    refused = _condition(deployment, "ReplicaFailure")
    if refused.get("status") == "True":
        return Reason.REFUSED, f"Gateway pods cannot be created: {_short(refused.get('message'))}."
    for pod in pods:
        if pod.ready:
            continue
        found = _of_pod(pod, secret)
        if found is not None:
            return found
    return None


def route_remark(live: Mapping[str, Any], parents: Sequence[str]) -> str | None:
    """Why an HTTPRoute brings nobody, as far as Gateways say."""
    found = (live.get("status") or {}).get("parents") or []
    conditions, name = [c for parent in found for c in parent.get("conditions") or []], live["metadata"]["name"]
    bad = next((c for c in conditions if c.get("type") in ("Accepted", "ResolvedRefs") and c.get("status") == "False"),
               None)  # fmt: skip
    if bad is not None:
        return f"HTTPRoute {name} is not taken: {bad.get('reason')}, {_short(bad.get('message'))}."
    if not conditions:
        named = ", ".join(parents)
        return f"No Gateway has taken HTTPRoute {name} yet: look at {named}, which spec.gateway.httpRoute names."
    return None


def _of_pod(pod: Pod, secret: str | None) -> tuple[Reason, str] | None:
    said = scheduler.unschedulable(pod)
    if said is not None:
        asks = ", ".join((f"{REQUESTS['cpu']} CPU", f"{REQUESTS['memory']} of memory"))
        return Reason.UNSCHEDULABLE, f"Gateway pod {pod.name}: {scheduler.explained(said, asks)}"
    status = _container(pod)
    waiting = (status.get("state") or {}).get("waiting") or {}
    ended = (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated")
    if waiting.get("reason") in _PULL:
        return Reason.IMAGE_PULL_FAILED, (
            f"The image {status.get('image')} cannot be pulled: {_short(waiting.get('message'))}. "
            "Correct gateway.image in the operator's configuration, or add a pull secret in spec.image.pullSecrets."
        )
    if waiting.get("reason") in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        words = _short(waiting.get("message"))
        return Reason.CONTAINER_CANNOT_START, f"The container of gateway pod {pod.name} cannot start: {words}."
    if ended:
        words = _short(ended.get("message")) or "it said nothing"
        return Reason.GATEWAY_NOT_READY, f"Gateway pod {pod.name} ended with {ended.get('exitCode')}: {words}."
    if secret and pod.node and waiting.get("reason") == "ContainerCreating":
        return Reason.GATEWAY_NOT_READY, (
            f"Gateway pod {pod.name} waits on node {pod.node} for its image or for Secret {secret}, "
            "which spec.gateway.apiKeys names and which must be there."
        )
    return None


def _container(pod: Pod) -> Mapping[str, Any]:
    statuses = pod.status.get("containerStatuses") or []
    return next((s for s in statuses if s.get("name") == names.GATEWAY_CONTAINER), {})


def _condition(deployment: Mapping[str, Any] | None, kind: str) -> Mapping[str, Any]:
    conditions = ((deployment or {}).get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind), {})


def _short(text: Any) -> str:
    return " ".join(str(text or "").split()).rstrip(".")[:_CHARACTERS]
