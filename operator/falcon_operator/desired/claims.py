"""Claims for what should outlive a pod, where the spec gives a size instead of an existing claim's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from falcon_operator.api import names
from falcon_operator.api.spec import Spec
from falcon_operator.api.storage import Storage
from falcon_operator.desired import quantity
from falcon_operator.desired.metadata import Owner, child


def claims(spec: Spec, owner: Owner, live: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The claims that the resource makes for itself, as far as the ones that are there can follow."""
    return [_claim(owner, name, storage, live.get(name)) for name, storage in _wanted(spec, owner)]


def on_one_node(spec: Spec) -> bool:
    """Whether pods mount a claim that the operator makes: then a second pod may have to wait for the first to leave."""
    remote = spec.model.source.hugging_face
    return any(s is not None and s.size is not None for s in (spec.cache, remote.cache if remote else None))


def remarks(spec: Spec, owner: Owner, live: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences about claims that stay other than the spec asks: their data is not the operator's to delete."""
    wanted = dict(_wanted(spec, owner))
    said = []
    for name in sorted(live):
        if name not in (names.cache_claim_name(owner.name), names.model_claim_name(owner.name)):
            continue
        if name not in wanted:
            said.append(
                f"PersistentVolumeClaim {name} is kept, though the spec no longer asks for it; it is yours to delete."
            )
            continue
        size, storage_class = _held(live[name])
        asked = wanted[name]
        if size is not None and quantity.parse(asked.size or "0") < quantity.parse(size):
            said.append(f"PersistentVolumeClaim {name} stays at {size}: a claim cannot shrink to {asked.size}.")
        if asked.storage_class_name not in (None, storage_class):
            said.append(
                f"PersistentVolumeClaim {name} stays in class {storage_class}: "
                f"a claim cannot change to {asked.storage_class_name}."
            )
    return said


def _wanted(spec: Spec, owner: Owner) -> list[tuple[str, Storage]]:
    found = [(names.cache_claim_name(owner.name), spec.cache)]
    if spec.model.source.hugging_face is not None:
        found.append((names.model_claim_name(owner.name), spec.model.source.hugging_face.cache or Storage()))
    return [(name, storage) for name, storage in found if storage.size is not None]


def _held(live: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Size and class that a claim asks for; a claim keeps both, but for growing."""
    spec = live.get("spec") or {}
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    return size, spec.get("storageClassName")


def _claim(owner: Owner, name: str, storage: Storage, live: Mapping[str, Any] | None) -> dict[str, Any]:
    size, storage_class = quantity.canonical(storage.size or "0"), storage.storage_class_name
    if live is not None:
        held, storage_class = _held(live)
        if held is not None and quantity.parse(held) > quantity.parse(size):
            size = held
    spec: dict[str, Any] = {
        # Pods on several nodes need a class that offers ReadWriteMany; most offer this mode alone.
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    }
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return child(owner, "v1", "PersistentVolumeClaim", name, {"spec": spec})
