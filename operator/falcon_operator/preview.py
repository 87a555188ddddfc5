"""What the operator would create for a resource, without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from falcon_operator import manifests
from falcon_operator.api import names
from falcon_operator.api.config import OperatorConfig
from falcon_operator.decide.reconcile import decide
from falcon_operator.decide.types import Plan, Snapshot
from falcon_operator.launcher import make_renderer


def preview(text: str, config: OperatorConfig) -> tuple[str, list[str]]:
    """The objects as YAML, and sentences about what stands in the way. Raises `manifests.ManifestError`."""
    resources, problems = manifests.resources(text)
    if not resources and not problems:
        problems = ["there is no resource in it"]
    documents: list[str] = []
    for resource in resources:
        plan = decide(Snapshot(resource=resource), make_renderer(config), datetime.now(UTC))
        documents += [
            _remark(body, plan, resource) + yaml.safe_dump(_readable(body), sort_keys=False, width=120)
            for body in plan.apply
        ]
        problems += [
            f"{resource['metadata']['name']}: {condition['message']}"
            for condition in plan.status.get("conditions", ())
            if condition["type"] == "Stalled" and condition["status"] == "True"
        ]
    return "---\n".join(documents), problems


def _remark(body: dict[str, Any], plan: Plan, resource: Mapping[str, Any]) -> str:
    """That a number is the first of many."""
    watch = plan.autoscale
    engines = "Deployment", names.deployment_name(resource["metadata"]["name"])
    if watch is None or not watch.native or (body["kind"], body["metadata"]["name"]) != engines:
        return ""
    least, most = watch.config.min_replicas, watch.config.max_replicas
    return f"# spec.replicas is where it begins: the autoscaler sets it from {least} to {most}.\n"


def _readable(body: dict[str, Any]) -> dict[str, Any]:
    """The launcher's bytes are of no use to a reader."""
    if "binaryData" not in body:
        return body
    sizes = {key: f"<{len(value)} characters of base64>" for key, value in body["binaryData"].items()}
    return {**body, "binaryData": sizes}
