"""Which nodes may hold an engine: what the user says, and what the GPU asks for, both of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from falcon_operator.desired import quantity

# Node labels of NVIDIA's GPU feature discovery; memory is a plain number of MiB.
LABEL_PRODUCT = "nvidia.com/gpu.product"
LABEL_MEMORY = "nvidia.com/gpu.memory"

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def gpu_requirements(products: Sequence[str], memory_at_least: str | int | None) -> list[dict[str, Any]]:
    """What a node's labels must say, as node selector requirements."""
    found: list[dict[str, Any]] = []
    if products:
        found.append({"key": LABEL_PRODUCT, "operator": "In", "values": list(products)})
    if memory_at_least is not None:
        # `Gt` is the only comparison there is, so "at least" is "greater than one less".
        more_than = max(quantity.mebibytes(memory_at_least) - 1, 0)
        found.append({"key": LABEL_MEMORY, "operator": "Gt", "values": [str(more_than)]})
    return found


def merged(user: Mapping[str, Any] | None, requirements: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The user's affinity with the requirements in it; None where neither asks for anything.

    Node selector terms are alternatives, so each of them gets the requirements. A required selector without a filled
    term is taken as not given: the API server refuses an empty list, and an empty term matches no node at all.
    """
    affinity = {key: value for key, value in (user or {}).items() if value}
    node = dict(affinity.pop("nodeAffinity", None) or {})
    terms = [term for term in (node.pop(_REQUIRED, None) or {}).get("nodeSelectorTerms") or [] if term]
    if requirements:
        terms = [
            {**term, "matchExpressions": [*(term.get("matchExpressions") or []), *map(dict, requirements)]}
            for term in terms or [{}]
        ]
    if terms:
        node[_REQUIRED] = {"nodeSelectorTerms": terms}
    if node:
        affinity["nodeAffinity"] = node
    return affinity or None
