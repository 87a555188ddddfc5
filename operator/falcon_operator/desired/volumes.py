"""The engine's directories: the launcher, writable ones for an image that is read-only, and the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from falcon_operator.api import names
from falcon_operator.api.spec import Spec
from falcon_operator.api.storage import Storage

LAUNCHER_DIRECTORY = "/falcon"
HOME_DIRECTORY = "/var/falcon/home"
CACHE_DIRECTORY = "/var/falcon/cache"
MODEL_DIRECTORY = "/var/falcon/model"
SOURCE_DIRECTORY = "/var/falcon/source"

# Kubernetes gives 64 MB; the executor of several workers was seen to allocate up to 240 MB of segments.
_SHARED_MEMORY = "1Gi"


@dataclass(frozen=True)
class Volumes:
    """Volumes of the pod and where the engine's container finds them."""

    volumes: list[dict[str, Any]]
    mounts: list[dict[str, Any]]


def volumes(spec: Spec, owner_name: str, launcher_name: str) -> Volumes:
    """Everything that is mounted, in one order."""
    entries = [
        _entry("launcher", LAUNCHER_DIRECTORY, {"configMap": {"name": launcher_name}}, read_only=True),
        _entry("home", HOME_DIRECTORY, {"emptyDir": {}}),
        _entry("tmp", "/tmp", {"emptyDir": {}}),
        _entry("shm", "/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": _SHARED_MEMORY}}),
        _entry("cache", CACHE_DIRECTORY, _storage(spec.cache, names.cache_claim_name(owner_name))),
    ]
    source = spec.model.source
    if source.volume is not None:
        claim = {"persistentVolumeClaim": {"claimName": source.volume.claim_name, "readOnly": True}}
        entries.append(_entry("source", SOURCE_DIRECTORY, claim, read_only=True))
    if source.oci is not None:
        image = {"reference": source.oci.reference}
        if source.oci.pull_policy is not None:
            image["pullPolicy"] = source.oci.pull_policy
        entries.append(_entry("source", SOURCE_DIRECTORY, {"image": image}, read_only=True))
    if source.hugging_face is not None:
        # What a Job has quantized there is only read.
        quantized = source.hugging_face.quantize is not None
        entries.append(_entry("model", MODEL_DIRECTORY, model_volume(spec, owner_name), read_only=quantized))
    return Volumes(volumes=[v for v, _ in entries], mounts=[m for _, m in entries])


def model_volume(spec: Spec, owner_name: str) -> dict[str, Any]:
    """Where downloaded weights are kept."""
    remote = spec.model.source.hugging_face
    return _storage((remote.cache if remote else None) or Storage(), names.model_claim_name(owner_name))


def _storage(storage: Storage, own_claim: str) -> dict[str, Any]:
    if storage.claim_name is not None:
        return {"persistentVolumeClaim": {"claimName": storage.claim_name}}
    if storage.size is not None:
        return {"persistentVolumeClaim": {"claimName": own_claim}}
    return {"emptyDir": {}}


def _entry(
    name: str, path: str, source: dict[str, Any], read_only: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    mount: dict[str, Any] = {"name": name, "mountPath": path}
    if read_only:
        mount["readOnly"] = True
    return {"name": name, **source}, mount
