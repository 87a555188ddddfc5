"""What the cache keeps of an object: nothing that no decision looks at."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from falcon_operator.desired.canonical import content_hash
from falcon_operator.kube.resources import CONFIG_MAP, NODE, POD, Resource, is_launcher

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_POD_SPEC = ("nodeName", "terminationGracePeriodSeconds", "schedulingGates")
_POD_CONTAINER = ("name", "image", "resources")
_NODE_METADATA = ("name", "uid", "resourceVersion")
_NODE_SPEC = ("unschedulable", "taints")
_NODE_RESOURCES = "nvidia.com/"
# Says when GPU feature discovery last ran, and nothing of the node.
_NODE_CLOCK = "nvidia.com/gfd.timestamp"
# Long strings are seldom equal; short ones (names, types, labels) are the same in every object.
_SHORT = 24


def compact(resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that shares its keys and short strings with all others and leaves out what only costs memory."""
    if resource is NODE:
        return _node(body)
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    annotations = metadata.get("annotations")
    if annotations and _LAST_APPLIED in annotations:
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != _LAST_APPLIED}
    kept = {**body, "metadata": metadata, "apiVersion": resource.api_version, "kind": resource.kind}
    if resource is CONFIG_MAP:
        kept = digested(kept)
    if resource is POD:
        spec = body.get("spec") or {}
        kept["spec"] = {key: spec[key] for key in _POD_SPEC if key in spec}
        kept["spec"]["containers"] = [
            {key: container[key] for key in _POD_CONTAINER if key in container}
            for container in spec.get("containers") or ()
        ]
    shared: dict[str, Any] = _share(kept)
    return shared


def digested(config_map: Mapping[str, Any]) -> dict[str, Any]:
    """A ConfigMap with hashes for its texts, which show a change as well; a launcher never changes."""
    kept = {key: value for key, value in config_map.items() if key not in ("data", "binaryData")}
    if not is_launcher(config_map):
        kept["data"] = {key: content_hash(text) for key, text in (config_map.get("data") or {}).items()}
    return kept


def _node(body: Mapping[str, Any]) -> dict[str, Any]:
    """A node's labels, GPUs and what keeps pods off: not its heartbeats, images, addresses and annotations.

    All labels, since a resource may select nodes by any of them.
    """
    metadata, spec = body["metadata"], body.get("spec") or {}
    kept = {key: metadata[key] for key in _NODE_METADATA if key in metadata}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != _NODE_CLOCK}
    allocatable = (body.get("status") or {}).get("allocatable") or {}
    shared: dict[str, Any] = _share(
        {
            "apiVersion": NODE.api_version,
            "kind": NODE.kind,
            "metadata": {**kept, "labels": labels},
            "spec": {key: spec[key] for key in _NODE_SPEC if key in spec},
            "status": {"allocatable": {k: v for k, v in allocatable.items() if k.startswith(_NODE_RESOURCES)}},
        }
    )
    return shared


def _share(value: Any) -> Any:
    if isinstance(value, dict):
        return {sys.intern(key): _share(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_share(item) for item in value]
    if type(value) is str and len(value) <= _SHORT:
        return sys.intern(value)
    return value
