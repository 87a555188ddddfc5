"""What the operator would create for a resource, without a cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import yaml

from falcon_operator.api import names
from falcon_operator.api.config import OperatorConfig
from falcon_operator.decide.reconcile import decide
from falcon_operator.decide.types import Snapshot
from falcon_operator.launcher import make_renderer

_NO_UID = "00000000-0000-0000-0000-000000000000"


def preview(text: str, config: OperatorConfig) -> tuple[str, list[str]]:
    """The objects as YAML, and sentences about what stands in the way."""
    resources = [document for document in yaml.safe_load_all(text) if document]
    documents: list[str] = []
    problems: list[str] = []
    for resource in resources:
        if not isinstance(resource, dict) or resource.get("kind") != names.KIND:
            problems.append(f"not a {names.KIND}: {str(resource)[:80]!r}")
            continue
        metadata = {"namespace": "default", "uid": _NO_UID, "generation": 1, **(resource.get("metadata") or {})}
        if "name" not in metadata:
            problems.append("metadata.name is missing: give the resource a name")
            continue
        snapshot = Snapshot(resource={"spec": {}, **resource, "metadata": metadata})
        plan = decide(snapshot, make_renderer(config), datetime.now(UTC))
        documents += [yaml.safe_dump(_readable(body), sort_keys=False, width=120) for body in plan.apply]
        problems += [
            f"{metadata['name']}: {condition['message']}"
            for condition in plan.status.get("conditions", ())
            if condition["type"] == "Stalled" and condition["status"] == "True"
        ]
    return "---\n".join(documents), problems


def _readable(body: dict[str, Any]) -> dict[str, Any]:
    """The launcher's bytes are of no use to a reader."""
    if "binaryData" not in body:
        return body
    sizes = {key: f"<{len(value)} characters of base64>" for key, value in body["binaryData"].items()}
    return {**body, "binaryData": sizes}
