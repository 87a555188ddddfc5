"""The Job that downloads a model in BF16 and quantizes it on the volume that engines then read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from falcon_engine.signatures import CONFIGURATION_EXIT
from falcon_operator.api import names
from falcon_operator.api.config import OperatorConfig
from falcon_operator.api.engine import Device
from falcon_operator.api.model import HuggingFace
from falcon_operator.api.quantize import Quantize
from falcon_operator.api.spec import Spec
from falcon_operator.desired import affinity, pod, quantized
from falcon_operator.desired.canonical import content_hash, without_none
from falcon_operator.desired.gpu_needs import profile_of
from falcon_operator.desired.metadata import Owner, child
from falcon_operator.desired.renderer import Renderer
from falcon_operator.desired.volumes import HOME_DIRECTORY, MODEL_DIRECTORY, model_volume

KIND = "Job"
API_VERSION = "batch/v1"

# A 7B model takes minutes on a GPU and a good hour on a CPU; its download takes what the line takes.
DEADLINE_HOURS = 12
# Beside the first one. A download goes on where it was cut, and so does the quantizer.
_MORE_ATTEMPTS = 2
_WEIGHT = 100
_GPU_NODES = {"key": "nvidia.com/gpu.product", "operator": "Exists"}
# Variables of spec.engine.env that say how the Hub is reached.
_DOWNLOAD_PREFIX = "HF_"
_DOWNLOAD = frozenset(
    ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
)


def asked(spec: Spec) -> tuple[HuggingFace, Quantize] | None:
    """What is to be quantized and how; None where nothing is."""
    remote = spec.model.source.hugging_face
    return (remote, remote.quantize) if remote is not None and remote.quantize is not None else None


def image_of(quantize: Quantize, config: OperatorConfig) -> str:
    """The quantizer's image: the spec's, else the operator's default."""
    return quantize.image or config.quantizer_image


def makes(job: Mapping[str, Any]) -> str:
    """The claim and the directory on it that a Job fills."""
    found: str = (job["metadata"].get("annotations") or {}).get(names.ANNOTATION_QUANTIZED, "")
    return found


def job(spec: Spec, owner: Owner, renderer: Renderer) -> dict[str, Any] | None:
    """The Job, None where none is asked for. Its name says all that is in it, since nobody may change its template.

    `spec.suspend` is the one part that changes while it is there.
    """
    found = asked(spec)
    if found is None:
        return None
    # With the UID of this resource: what an earlier one of its name has left cannot be made ours.
    own = names.child_labels(owner.name, owner.uid, names.COMPONENT_QUANTIZER)
    metadata: dict[str, Any] = {"labels": {**spec.pod_metadata.labels, **own}}
    if spec.pod_metadata.annotations:
        metadata["annotations"] = dict(spec.pod_metadata.annotations)
    body = {
        "backoffLimit": _MORE_ATTEMPTS,
        "activeDeadlineSeconds": DEADLINE_HOURS * 3600,
        "podFailurePolicy": {
            "rules": [
                # Whoever drains a node takes no attempt away.
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": names.QUANTIZER_CONTAINER,
                        "operator": "In",
                        "values": [CONFIGURATION_EXIT],
                    },
                },
            ]
        },
        "template": {"metadata": metadata, "spec": _pod(spec, owner, renderer, *found)},
    }
    name = names.quantize_job_name(owner.name, content_hash(body))
    claim = model_volume(spec, owner.name).get("persistentVolumeClaim", {}).get("claimName", "")
    return child(
        owner,
        API_VERSION,
        KIND,
        name,
        {"spec": {"suspend": spec.suspend, **body}},
        {names.ANNOTATION_QUANTIZED: f"{claim}:{quantized.directory(spec)}"},
        names.COMPONENT_QUANTIZER,
    )


def _pod(spec: Spec, owner: Owner, renderer: Renderer, remote: HuggingFace, quantize: Quantize) -> dict[str, Any]:
    scheduling, on_gpu = spec.scheduling, quantize.device is Device.CUDA
    mounts: list[tuple[str, str, dict[str, Any]]] = [
        ("home", HOME_DIRECTORY, {"emptyDir": {}}),
        ("tmp", "/tmp", {"emptyDir": {}}),
        ("model", MODEL_DIRECTORY, model_volume(spec, owner.name)),
    ]
    found: dict[str, Any] = without_none(
        {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pod.security(spec),
            "imagePullSecrets": [{"name": s.name} for s in spec.image.pull_secrets] or None,
            "runtimeClassName": scheduling.runtime_class_name,
            "schedulerName": scheduling.scheduler_name,
            "priorityClassName": scheduling.priority_class_name,
            "nodeSelector": dict(scheduling.node_selector) or None,
            "tolerations": [t.manifest() for t in scheduling.tolerations] or None,
            "affinity": _affinity(spec, owner, renderer),
            "resourceClaims": (pod.resource_claims(spec) or None) if on_gpu else None,
            "volumes": [{"name": name, **source} for name, _, source in mounts],
            "containers": [
                {
                    "name": names.QUANTIZER_CONTAINER,
                    "image": image_of(quantize, renderer.config),
                    "command": ["falcon-quantize", *_arguments(spec, remote, quantize)],
                    "env": _environment(spec, remote),
                    "resources": _resources(spec, quantize),
                    "volumeMounts": [{"name": name, "mountPath": path} for name, path, _ in mounts],
                    "securityContext": pod.container_security(spec),
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                }
            ],
        }
    )
    return found


def _arguments(spec: Spec, remote: HuggingFace, quantize: Quantize) -> list[str]:
    return [
        "hub",
        remote.repository,
        "--revision",
        remote.revision,
        "--out",
        quantized.directory(spec) or "",
        "--device",
        quantize.device.value,
        "--kv-scales",
        quantize.kv_scales.value.lower(),
    ]


def _environment(spec: Spec, remote: HuggingFace) -> list[dict[str, Any]]:
    own = {
        # The user id has no entry in the image's passwd, and the image itself may be read-only.
        "HOME": HOME_DIRECTORY,
        "USER": "falcon",
        "HF_HOME": MODEL_DIRECTORY,
        "PYTHONUNBUFFERED": "1",
        "DO_NOT_TRACK": "1",
    }
    entries: dict[str, dict[str, Any]] = {name: {"name": name, "value": value} for name, value in own.items()}
    if remote.token_secret_ref is not None:
        secret = {"name": remote.token_secret_ref.name, "key": remote.token_secret_ref.key}
        entries["HF_TOKEN"] = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": secret}}
    for variable in spec.engine.env:
        if variable.name.startswith(_DOWNLOAD_PREFIX) or variable.name.upper() in _DOWNLOAD:
            plain = {"value": ""} if variable.value_from is None else {}
            entries[variable.name] = {**plain, **variable.manifest()}
    return list(entries.values())


def _resources(spec: Spec, quantize: Quantize) -> dict[str, Any]:
    found = pod.cpu_and_memory(quantize.resources)
    if quantize.device is Device.CUDA and spec.gpu.claims:
        found["claims"] = pod.container_claims(spec)
    elif quantize.device is Device.CUDA:
        gpu = {spec.gpu.effective_resource_name: "1"}
        found = {name: {**found.get(name, {}), **gpu} for name in ("requests", "limits")}
    return found


def _affinity(spec: Spec, owner: Owner, renderer: Renderer) -> dict[str, Any]:
    """Where engines may run: a volume that one node or zone holds is bound by the first pod that mounts it.

    Of the user's affinity what is said of nodes; what is said of other pods is meant for engines.
    """
    chosen = spec.scheduling.affinity
    nodes = pod.without_empty_lists(chosen.node_affinity.manifest()) if chosen and chosen.node_affinity else None
    wanted = affinity.requirements(spec, profile_of(spec, pod.image_of(spec, renderer)))
    if spec.engine.device is Device.CUDA:
        there = {"weight": _WEIGHT, "preference": {"matchExpressions": [dict(_GPU_NODES)]}}
        wanted = affinity.Requirements(wanted.alternatives, (*wanted.preferred, there))
    beside = {
        "weight": _WEIGHT,
        "podAffinityTerm": {
            "labelSelector": {"matchLabels": names.selector_labels(owner.name)},
            "topologyKey": "kubernetes.io/hostname",
        },
    }
    merged = affinity.merged({"nodeAffinity": nodes} if nodes else None, wanted) or {}
    # Engines of an earlier revision may hold a volume that only one node can mount.
    return {**merged, "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [beside]}}
