"""Nodes labelled as GPU feature discovery labels them, and the scheduler's word on whether a pod may go to one."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from tests.unit.world import renderer

from falcon_engine import profiles
from falcon_operator.api.spec import Spec
from falcon_operator.decide.gpu import NodeFacts
from falcon_operator.desired import pod
from falcon_operator.desired.gpu_needs import needs

DIRECTORY = Path(__file__).parent / "gpu_nodes"
VERSION = "0.26"
Row = dict[str, Any]


def rows() -> Iterator[Row]:
    """All rows of the tables."""
    for path in sorted(DIRECTORY.glob("*.yaml")):
        yield from yaml.safe_load(path.read_text())


def spec_of(row: Row) -> Spec:
    """The row's spec, for the engine's version that it names."""
    asked = dict(row.get("spec") or {})
    version = row.get("version", VERSION)
    return Spec.model_validate({**asked, "engine": {**asked.get("engine", {}), "version": version}})


def profile_of(row: Row) -> profiles.Profile | None:
    version = row.get("version", VERSION)
    return None if version is None else profiles.load(version)


def reason_of(row: Row) -> str:
    """The row's reason with the figures of the fit in it."""
    wanted = needs(spec_of(row), profile_of(row))
    reason = str(row.get("reason", ""))
    if wanted is None:
        return reason
    for word, mib in (("LEAST", wanted.memory_mib), ("NEEDED", wanted.memory_mib * wanted.utilization)):
        reason = reason.replace(word, f"{mib / 1024:.1f}".removesuffix(".0"))
    return reason


def node_of(row: Row) -> NodeFacts:
    """The node of a row."""
    labels = _discovered(row) if row["gfd"] != "none" else {}
    for key, value in (row.get("labels") or {}).items():
        labels[key] = value
    said = {f"nvidia.com/{key}": value for key, value in labels.items() if value is not None}
    offers = row.get("offers", _offered(row) if row["gfd"] != "none" else {})
    return NodeFacts(
        name="node-1",
        labels={"kubernetes.io/hostname": "node-1", **said, **row.get("others", {})},
        allocatable={f"nvidia.com/{key}": str(count) for key, count in offers.items()},
        unschedulable=row.get("cordoned", False),
        taints=tuple(tuple(taint) for taint in row.get("taints", ())),
    )


def _discovered(row: Row) -> dict[str, str | None]:
    new, product, part = row["gfd"] == "new", row.get("product", ""), row.get("slice") or {}
    replicas = row.get("replicas", 1)
    shared = "-SHARED" if replicas > 1 and "renamed" not in row else ""
    labels: dict[str, str | None] = {
        "gpu.count": str(row.get("count", 1)),
        "gpu.replicas": str(0 if part.get("strategy") == "mixed" else replicas),
        "gpu.product": f"{product}{shared}",
        "mig.capable": str(bool(part)).lower(),
        "gfd.timestamp": "1763984000",
    }
    if new:
        labels["gpu.sharing-strategy"] = row.get("sharing", "none") if replicas > 1 else "none"
    if "mib" in row:
        labels["gpu.memory"] = str(row["mib"])
    if "cc" in row:
        labels["gpu.compute.major"], labels["gpu.compute.minor"] = row["cc"].split(".")
    if "driver" in row:
        full = str(row["driver"])
        major, minor = full.split(".")[:2]
        labels |= {"cuda.driver.major": major, "cuda.driver.minor": minor}
        if new:
            labels |= {"cuda.driver-version.full": full, "cuda.driver-version.major": major}
    match part.get("strategy"):
        case "single":
            labels |= {"gpu.product": f"{product}-MIG-{part['profile']}", "gpu.memory": str(part["mib"])}
            labels |= {"gpu.count": str(part["count"]), "mig.strategy": "single"}
        case "invalid":
            labels |= {"gpu.product": f"{product}-MIG-INVALID", "gpu.memory": "0", "gpu.count": "0"}
            labels |= {"gpu.replicas": "0", "mig.strategy": "single"}
        case "mixed":
            own = f"mig-{part['profile']}"
            labels |= {
                "mig.strategy": "mixed",
                f"{own}.product": f"{product}-MIG-{part['profile']}",
                f"{own}.memory": str(part["mib"]),
                f"{own}.count": str(part["count"]),
                f"{own}.replicas": "1",
                f"{own}.sharing-strategy": "none",
            }
            labels |= {k: v for k, v in (row.get("labels") or {}).items() if k.startswith(own)}
    return labels


def _offered(row: Row) -> dict[str, int]:
    part = row.get("slice") or {}
    match part.get("strategy"):
        case "mixed":
            return {f"mig-{part['profile']}": part["count"], "gpu": 0}
        case "single":
            return {"gpu": part["count"]}
        case "invalid":
            return {"gpu": 0}
    return {row.get("renamed", "gpu"): row.get("count", 1) * row.get("replicas", 1)}


def scheduler_takes(spec: Spec, node: NodeFacts) -> bool:
    """Whether the scheduler can put the pod of the spec on the node, written after the scheduler's own rules."""
    wanted = pod.pod_template(spec, "falcon", renderer())["spec"]
    if any(node.labels.get(key) != value for key, value in (wanted.get("nodeSelector") or {}).items()):
        return False
    affinity = (wanted.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is not None and not any(_term(term, node) for term in required["nodeSelectorTerms"]):
        return False
    taints = [*node.taints, *([("node.kubernetes.io/unschedulable", "", "NoSchedule")] if node.unschedulable else [])]
    tolerations = wanted.get("tolerations") or []
    if any(effect != "PreferNoSchedule" and not _tolerates(tolerations, k, v, effect) for k, v, effect in taints):
        return False
    limits = wanted["containers"][0]["resources"].get("limits") or {}
    for resource, count in limits.items():
        if resource.startswith("nvidia.com/"):
            offered = node.allocatable.get(resource, "0")
            if not offered.isdigit() or int(offered) < int(count):
                return False
    return True


def _term(term: Mapping[str, Any], node: NodeFacts) -> bool:
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    return all(_expression(e, node.labels) for e in expressions) and all(
        _expression(f, {"metadata.name": node.name}) for f in fields
    )


def _expression(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
    if operator == "DoesNotExist":
        return key not in labels
    if operator == "NotIn":
        return key not in labels or labels[key] not in values
    if key not in labels:
        return False
    if operator == "Exists":
        return True
    if operator == "In":
        return labels[key] in values
    try:
        # As Go's strconv.ParseInt of base 10 and 64 bits.
        if not labels[key].isascii() or any(c in labels[key] for c in "_ \t\n\r\f\v"):
            return False
        have, bound = int(labels[key]), int(values[0])
    except ValueError:
        return False
    if not -(2**63) <= have < 2**63:
        return False
    return have > bound if operator == "Gt" else have < bound


def _tolerates(tolerations: list[dict[str, Any]], key: str, value: str, effect: str) -> bool:
    for one in tolerations:
        if one.get("effect") not in (None, "", effect) or one.get("key") not in (None, "", key):
            continue
        if one.get("operator") == "Exists" or (one.get("value") or "") == value:
            return True
    return False
