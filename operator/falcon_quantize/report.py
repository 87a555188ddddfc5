"""What a run tells when it is done: a JSON file in the result, and a short table."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from falcon_quantize.layers import why_kept
from falcon_quantize.plan import Plan

GIB = 1 << 30


def weights(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each quantized weight with its relative error ||W - Wq|| / ||W||, of the journal's entries."""
    return [
        {**weight, "error": _ratio(weight["distance"], weight["norm"])}
        for entry in entries
        for weight in entry["weights"]
    ]


def by_layer(quantized: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The relative error of all of a layer's weights taken together."""
    sums: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for weight in quantized:
        layer = re.match(r"model\.layers\.(\d+)\.", weight["name"])
        assert layer is not None
        sums[int(layer[1])][0] += weight["distance"] ** 2
        sums[int(layer[1])][1] += weight["norm"] ** 2
    return [
        {"layer": layer, "error": _ratio(math.sqrt(distance), math.sqrt(norm))}
        for layer, (distance, norm) in sorted(sums.items())
    ]


def kept(plan: Plan) -> list[dict[str, Any]]:
    """What stays in BF16, and why."""
    return [
        {"name": tensor.name, "shape": list(tensor.shape), "bytes": item.bytes, "why": why_kept(tensor.name)}
        for item in plan.items
        if not item.quantized
        for tensor in item.tensors
    ]


def table(report: Mapping[str, Any]) -> str:
    """The report in a few lines."""
    kinds: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for weight in report["weights"]:
        kinds[weight["name"].split(".", 3)[3].removesuffix(".weight")].append(weight)
    lines = [f"{'weight':24} {'count':>5} {'GiB':>7} {'relative error: least':>22} {'median':>8} {'most':>8}"]
    for kind, members in sorted(kinds.items()):
        errors = sorted(member["error"] for member in members)
        size = sum(member["bytes"] for member in members) / GIB
        median = errors[len(errors) // 2]
        lines.append(f"{kind:24} {len(errors):5} {size:7.3f} {errors[0]:22.4f} {median:8.4f} {errors[-1]:8.4f}")
    worst = max(report["layers"], key=lambda layer: layer["error"])
    lines.append(f"worst layer: {worst['layer']}, relative error {worst['error']:.4f}")
    reasons: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for tensor in report["kept"]:
        reasons[tensor["why"]].append(tensor)
    lines += ["", f"{'left in BF16':24} {'count':>5} {'GiB':>7}  why"]
    for why, members in reasons.items():
        name = re.sub(r"^model\.(layers\.\d+\.)?", "", members[0]["name"])
        lines.append(f"{name:24} {len(members):5} {sum(m['bytes'] for m in members) / GIB:7.3f}  {why}")
    sizes, run = report["bytes"], report["run"]
    lines += [
        "",
        f"{sizes['source'] / GIB:.2f} GiB became {sizes['result'] / GIB:.2f} GiB "
        f"({sizes['quantized'] / GIB:.2f} NVFP4, {sizes['kept'] / GIB:.2f} BF16); KV scales: {report['kvScales']}",
        f"{run['seconds']:.1f} s on {run['device']}, {run['peakMemoryBytes'] / GIB:.1f} GiB of memory at most; "
        + ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
    ]
    return "\n".join(lines)


def _ratio(distance: float, norm: float) -> float:
    return distance / norm if norm else 0.0
