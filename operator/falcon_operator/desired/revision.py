"""The ControllerRevision: a pod template as it was rendered once, kept for as long as it may be wanted again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from falcon_operator.api import names
from falcon_operator.api.spec import Spec
from falcon_operator.desired.canonical import content_hash
from falcon_operator.desired.metadata import Owner, child


def pod_relevant(spec: Spec) -> dict[str, Any]:
    """The part of the spec that decides what runs in a pod, without what equals the default.

    Leaving defaults out keeps the hash when a later version of the API adds a field.
    """
    said: dict[str, Any] = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for other in ("replicas", "suspend", "updatePolicy", "autoscaling", "gateway", "networkPolicy", "monitoring"):
        said.pop(other, None)
    if drain := {k: v for k, v in said.pop("rollout", {}).items() if k == "drainTimeout"}:
        said["rollout"] = drain
    if spec.cache.size is not None:
        said["cache"] = {"size": "any"}
    remote = spec.model.source.hugging_face
    if remote is not None:
        kept = said["model"]["source"]["huggingFace"]
        if remote.cache is not None and remote.cache.size is not None:
            kept["cache"] = {"size": "any"}
        if remote.quantize is not None:
            # What the Job runs in, and on what, changes nothing of what it makes.
            kept["quantize"] = {"kvScales": remote.quantize.kv_scales.value}
    return said


def spec_hash(spec: Spec) -> str:
    """Identifies the pod-relevant part of a spec."""
    return content_hash(pod_relevant(spec))


def controller_revision(
    owner: Owner, revision: str, number: int, template: Mapping[str, Any], annotations: Mapping[str, str]
) -> dict[str, Any]:
    """The record of one revision; the API server lets nobody change its data."""
    return child(
        owner,
        "apps/v1",
        "ControllerRevision",
        names.revision_name(owner.name, revision),
        {"revision": number, "data": {"template": dict(template)}},
        annotations,
    )
