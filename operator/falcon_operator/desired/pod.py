"""The pod template: one engine under the launcher, restricted, with time to start and time to drain."""

from __future__ import annotations

from typing import Any

from falcon_operator.api import names
from falcon_operator.api.pod import Resources
from falcon_operator.api.spec import Spec
from falcon_operator.desired import affinity, quantity
from falcon_operator.desired.canonical import content_hash, without_none
from falcon_operator.desired.environment import environment
from falcon_operator.desired.gpu_needs import profile_of
from falcon_operator.desired.intent import intent
from falcon_operator.desired.renderer import Renderer
from falcon_operator.desired.volumes import LAUNCHER_DIRECTORY, volumes

LABEL_QUEUE = "kueue.x-k8s.io/queue-name"

_LAUNCHER = ["python3", f"{LAUNCHER_DIRECTORY}/{names.LAUNCHER_KEY}"]

_STARTUP_PERIOD_SECONDS = 2
# A drain that ends is followed by the engine's own teardown, 6 to 9 s were seen, and one that does not end by a kill
# of the engine and the launcher's last words. The kubelet kills everything once this is over.
STOP_SECONDS = 45
# An engine that ends says so itself; this is for one that neither answers nor ends. The kubelet stops the liveness
# probe when a pod is told to leave, so a draining engine that refuses connections is safe from it.
_LIVENESS_PERIOD_SECONDS = 10
_LIVENESS_FAILURES = 12
# An engine that is stopped for its probe serves nobody: the time for a drain is not waited for.
_NOTHING_TO_DRAIN = {"terminationGracePeriodSeconds": STOP_SECONDS}


def image_of(spec: Spec, renderer: Renderer) -> str:
    """The serving image: the spec's, else the operator's default."""
    return spec.image.reference or renderer.config.default_image


def pod_template(spec: Spec, owner_name: str, renderer: Renderer) -> dict[str, Any]:
    """The template without its revision label, which is a hash of it."""
    labels = dict(spec.pod_metadata.labels)
    if spec.scheduling.queue_name is not None:
        labels[LABEL_QUEUE] = spec.scheduling.queue_name
    metadata: dict[str, Any] = {"labels": labels}
    if spec.pod_metadata.annotations:
        metadata["annotations"] = dict(spec.pod_metadata.annotations)
    return {"metadata": metadata, "spec": _pod_spec(spec, owner_name, renderer)}


def revision_of(template: dict[str, Any]) -> str:
    """The revision that a template is."""
    return content_hash(template)


def labelled(template: dict[str, Any], owner_name: str, uid: str, revision: str) -> dict[str, Any]:
    """The template with the labels that find its pods again."""
    metadata = template["metadata"]
    own = {**names.child_labels(owner_name, uid), names.LABEL_REVISION: revision}
    return {**template, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), **own}}}


def _pod_spec(spec: Spec, owner_name: str, renderer: Renderer) -> dict[str, Any]:
    scheduling = spec.scheduling
    mounted = volumes(spec, owner_name, renderer.launcher.name)
    requirements = affinity.requirements(spec, profile_of(spec, image_of(spec, renderer)))
    user_affinity = without_empty_lists(scheduling.affinity.manifest()) if scheduling.affinity else None
    found: dict[str, Any] = without_none(
        {
            "automountServiceAccountToken": False,
            # A Service named `vllm` would put VLLM_PORT into the engine's environment.
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": spec.rollout.drain_timeout_seconds + STOP_SECONDS,
            "securityContext": security(spec),
            "imagePullSecrets": [{"name": s.name} for s in spec.image.pull_secrets] or None,
            "runtimeClassName": scheduling.runtime_class_name,
            "schedulerName": scheduling.scheduler_name,
            "priorityClassName": scheduling.priority_class_name,
            "nodeSelector": dict(scheduling.node_selector) or None,
            "tolerations": [t.manifest() for t in scheduling.tolerations] or None,
            "affinity": affinity.merged(user_affinity, requirements),
            "topologySpreadConstraints": _spread(spec, owner_name) or None,
            "resourceClaims": resource_claims(spec) or None,
            "volumes": mounted.volumes,
            "containers": [_container(spec, renderer, mounted.mounts)],
        }
    )
    return found


def _container(spec: Spec, renderer: Renderer, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    image = image_of(spec, renderer)
    # Rounded up: the budget is what is promised at least.
    startup_failures = -(-spec.startup.budget_seconds // _STARTUP_PERIOD_SECONDS)
    return {
        "name": names.CONTAINER_NAME,
        "image": image,
        "imagePullPolicy": spec.image.pull_policy,
        "command": [*_LAUNCHER, "serve"],
        "env": environment(spec, intent(spec, image)),
        "ports": [
            {"name": names.PORT_NAME, "containerPort": names.ENGINE_PORT, "protocol": "TCP"},
            {"name": names.LAUNCHER_PORT_NAME, "containerPort": names.LAUNCHER_PORT, "protocol": "TCP"},
        ],
        "resources": _resources(spec),
        "volumeMounts": mounts,
        # The launcher answers: it also makes the first request, which an engine may fail although it is healthy.
        "startupProbe": {
            **_probe(names.LAUNCHER_PORT_NAME, "/started", _STARTUP_PERIOD_SECONDS, startup_failures, timeout=2),
            **_NOTHING_TO_DRAIN,
        },
        "readinessProbe": _probe(names.PORT_NAME, "/health", period=5, failures=3, timeout=5),
        "livenessProbe": {
            **_probe(names.PORT_NAME, "/health", _LIVENESS_PERIOD_SECONDS, _LIVENESS_FAILURES, timeout=10),
            **_NOTHING_TO_DRAIN,
        },
        "lifecycle": {"preStop": {"exec": {"command": [*_LAUNCHER, "drain"]}}},
        "securityContext": container_security(spec),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _probe(port: str, path: str, period: int, failures: int, timeout: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _resources(spec: Spec) -> dict[str, Any]:
    found = cpu_and_memory(spec.resources)
    if spec.effective_gpu_count:
        gpus = {spec.gpu.effective_resource_name: str(spec.effective_gpu_count)}
        found = {name: {**found.get(name, {}), **gpus} for name in ("requests", "limits")}
    if spec.gpu.claims:
        found["claims"] = container_claims(spec)
    return found


def cpu_and_memory(resources: Resources) -> dict[str, Any]:
    """Requests, and limits where there are any, as the API server stores them."""
    found: dict[str, Any] = {
        "requests": {
            "cpu": quantity.canonical(resources.requests.cpu),
            "memory": quantity.canonical(resources.requests.memory),
        }
    }
    limits = {
        name: quantity.canonical(value)
        for name, value in (("cpu", resources.limits.cpu), ("memory", resources.limits.memory))
        if value is not None
    }
    return {**found, "limits": limits} if limits else found


def resource_claims(spec: Spec) -> list[dict[str, Any]]:
    """The device claims of a pod."""
    return [
        without_none(
            {
                "name": claim.name,
                "resourceClaimName": claim.resource_claim_name,
                "resourceClaimTemplateName": claim.resource_claim_template_name,
            }
        )
        for claim in spec.gpu.claims
    ]


def container_claims(spec: Spec) -> list[dict[str, Any]]:
    """The device claims that a container uses."""
    return [without_none({"name": c.name, "request": c.request}) for c in spec.gpu.claims]


def security(spec: Spec) -> dict[str, Any]:
    """The user that a pod runs as, within the restricted profile."""
    return {
        "runAsNonRoot": True,
        "runAsUser": spec.security.run_as_user,
        "runAsGroup": spec.security.run_as_group,
        "fsGroup": spec.security.fs_group,
        # Weights and caches are many files: their owner is changed once, not at every start.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security(spec: Spec) -> dict[str, Any]:
    """What a container may not, within the restricted profile."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": spec.security.read_only_root_filesystem,
    }


def _spread(spec: Spec, owner_name: str) -> list[dict[str, Any]]:
    own = {"matchLabels": names.selector_labels(owner_name)}
    return [
        {"labelSelector": own, **without_empty_lists(constraint.manifest())}
        for constraint in spec.scheduling.topology_spread_constraints
    ]


def without_empty_lists(value: Any) -> Any:
    """An empty list says nothing, and the API server would not give it back; an empty selector says "all"."""
    if isinstance(value, dict):
        return {k: without_empty_lists(v) for k, v in value.items() if v != []}
    if isinstance(value, list):
        return [without_empty_lists(v) for v in value]
    return value
