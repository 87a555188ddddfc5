"""Names, labels and owner of every child."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from falcon_operator.api import names
from falcon_operator.desired.canonical import content_hash


@dataclass(frozen=True)
class Owner:
    """The resource that children belong to."""

    name: str
    namespace: str
    uid: str

    @staticmethod
    def of(resource: Mapping[str, Any]) -> Owner:
        """The owner that a raw resource is."""
        meta = resource["metadata"]
        return Owner(name=meta["name"], namespace=meta["namespace"], uid=meta["uid"])

    def owns(self, child: Mapping[str, Any]) -> bool:
        """Whether this incarnation of the resource controls the object, not an earlier one of the same name."""
        references = child.get("metadata", {}).get("ownerReferences") or []
        return any(r.get("controller") and r.get("uid") == self.uid for r in references)


def child(
    owner: Owner,
    api_version: str,
    kind: str,
    name: str,
    body: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
    component: str = names.COMPONENT_ENGINE,
) -> dict[str, Any]:
    """An object that the resource controls, ready to be applied."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": owner.namespace,
        "labels": names.child_labels(owner.name, owner.uid, component),
        "annotations": dict(annotations or {}),
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    return stamped({"apiVersion": api_version, "kind": kind, "metadata": metadata, **body})


def stamped(desired: dict[str, Any]) -> dict[str, Any]:
    """The object with the hash of everything that it asks for, by which a later reader sees what was applied last."""
    metadata = desired["metadata"]
    rest = {k: v for k, v in metadata.get("annotations", {}).items() if k != names.ANNOTATION_APPLIED}
    digest = content_hash({**desired, "metadata": {**metadata, "annotations": rest}})
    return {**desired, "metadata": {**metadata, "annotations": {**rest, names.ANNOTATION_APPLIED: digest}}}
