"""Claims for what should outlive a pod, where the spec gives a size instead of an existing claim's name."""

from __future__ import annotations

from typing import Any

from falcon_operator.api import names
from falcon_operator.api.spec import Spec
from falcon_operator.api.storage import Storage
from falcon_operator.desired import quantity
from falcon_operator.desired.metadata import Owner, child


def claims(spec: Spec, owner: Owner) -> list[dict[str, Any]]:
    """The claims that the resource makes for itself."""
    wanted = [(names.cache_claim_name(owner.name), spec.cache)]
    if spec.model.source.hugging_face is not None:
        wanted.append((names.model_claim_name(owner.name), spec.model.source.hugging_face.cache or Storage()))
    return [_claim(owner, name, storage, storage.size) for name, storage in wanted if storage.size is not None]


def _claim(owner: Owner, name: str, storage: Storage, size: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        # Pods on several nodes need a class that offers ReadWriteMany; most offer this mode alone.
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": quantity.canonical(size)}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return child(owner, "v1", "PersistentVolumeClaim", name, {"spec": spec})
