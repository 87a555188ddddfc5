"""The numbers beside their targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Numbers = dict[str, Any]
# Each object is written once; the status says that it begins, and that it serves. A start that takes longer than some
# seconds, as all do where 500 begin at once, is reported in between.
BEYOND, BEYOND_AT_ONCE = 2, 3


@dataclass(frozen=True)
class Line:
    """One number with a target: at most so much."""

    name: str
    value: float
    target: float | None
    unit: str

    @property
    def met(self) -> bool:
        """Whether the target is reached, or there is none."""
        return self.target is None or self.value <= self.target


def lines(n: Numbers) -> list[Line]:
    """What the table shows."""
    single, burst, raw = n["single"], n["burst"], n["raw"]
    count = n["options"]["count"]
    return [
        Line("one resource: applied to Deployment created, p50", single["deployment_ms"]["p50"], None, "ms"),
        Line("one resource: applied to Deployment created, p99", single["deployment_ms"]["p99"], 100, "ms"),
        Line("the same as the benchmark's own watch sees it, p99", single["deployment_seen_ms"]["p99"], None, "ms"),
        Line("one resource: objects that it is made of", single["objects"], None, ""),
        Line("one resource: writes until Ready beyond one each, most", single["writes_beyond_max"], BEYOND, ""),
        Line("a node's label changed to its resources' status, p50", n["node_change_s"]["p50"], None, "s"),
        Line("a node's label changed to its resources' status, p99", n["node_change_s"]["p99"], 1, "s"),
        Line(f"{count} at once: raw writer, last object", raw["object"], None, "s"),
        Line(f"{count} at once: last Deployment", burst["last_deployment_s"], None, "s"),
        Line(f"{count} at once: last Deployment / raw writer", burst["ratio_to_raw"], 1.5, "x"),
        Line(f"{count} at once: all Ready", burst["all_ready_s"], None, "s"),
        Line(f"{count} at once: the same beyond one each, mean", burst["writes_beyond_mean"], BEYOND_AT_ONCE, ""),
        Line(f"{count} at once: operator's CPU until the last Deployment", burst["operator_cpu_s"], None, "s"),
        Line(f"writes in {n['options']['idle']:.0f} s of quiet", n["idle_writes"], 0, ""),
        Line("writes after a restart", n["restart_writes"], 0, ""),
        Line("start to synced, after the restart", n["synced_seconds"][-1], None, "s"),
        Line("memory with no resource", n["memory_empty_mb"], None, "MB"),
        Line("memory with 10 resources", n["memory_small_mb"], 75, "MB"),
        Line(f"memory with {count + n['options']['singles']} resources", n["memory_large_mb"], None, "MB"),
    ]


def met(numbers: Numbers) -> bool:
    """Whether every target is reached."""
    return all(line.met for line in lines(numbers))


def table(numbers: Numbers) -> str:
    """The table, with the writes by kind below."""
    rows = [f"{'':60} {'measured':>10} {'at most':>8}"]
    for line in lines(numbers):
        target = "" if line.target is None else f"{line.target:g}"
        verdict = "" if line.target is None else ("ok" if line.met else "MISSED")
        rows.append(f"{line.name:60} {line.value:>10.4g} {target:>8} {line.unit:3} {verdict}".rstrip())
    for name in ("single", "burst"):
        kinds = ", ".join(f"{kind} {count}" for kind, count in numbers[name]["writes_by_kind"].items())
        rows.append(f"writes, {name}: {kinds}")
    rows.append(f"{numbers['cpus']} CPUs, load {numbers['load_before']} before and {numbers['load_after']} after")
    return "\n".join(rows)
