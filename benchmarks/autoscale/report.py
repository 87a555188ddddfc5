"""What is printed and written of the outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.autoscale.simulation import Outcome

KEYS = ("policy", "slo_attainment", "gpu_hours", "ttft_p50", "ttft_p99", "scalings_per_hour")


def rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One object a policy, as in the JSON; times in seconds."""
    return [{key: _rounded(getattr(outcome, key)) for key in KEYS} for outcome in outcomes]


def _rounded(value: str | float) -> str | float:
    return value if isinstance(value, str) else round(value, 6)


def table(outcomes: Sequence[Outcome], against: Outcome | None) -> str:
    """A line a policy; `against` is the oracle's, if it ran."""
    head = f"{'policy':<20}{'SLO %':>8}{'GPU-hours':>11}{'TTFT p50 s':>12}{'TTFT p99 s':>12}{'scalings/h':>12}"
    lines = [f"{head}{'failed':>8}{'  of the oracle: SLO, GPU-hours' if against else ''}"]
    for found in outcomes:
        line = (
            f"{found.policy:<20}{found.slo_attainment * 100:>8.2f}{found.gpu_hours:>11.2f}{found.ttft_p50:>12.3f}"
            f"{found.ttft_p99:>12.3f}{found.scalings_per_hour:>12.1f}{found.failed:>8}"
        )
        if against and against.slo_attainment and against.gpu_hours:
            share, times = found.slo_attainment / against.slo_attainment, found.gpu_hours / against.gpu_hours
            line += f"{share * 100:>17.1f} %{times:>8.2f} x"
        lines.append(line)
    return "\n".join(lines)


def dominating(outcomes: Sequence[Outcome], name: str, apart: Sequence[str] = ()) -> list[str]:
    """Policies with both better attainment and fewer GPU-hours than `name`, but for some that do not count."""
    own = next((found for found in outcomes if found.policy == name), None)
    if own is None:
        return []
    return [
        found.policy
        for found in outcomes
        if found.policy not in apart and found.slo_attainment > own.slo_attainment and found.gpu_hours < own.gpu_hours
    ]


def remark(outcomes: Sequence[Outcome], name: str, oracle: str) -> str:
    """Whether a rule dominates ours."""
    found = dominating(outcomes, name, (oracle,))
    rules = [policy for policy in found if not policy.startswith("static-")]
    fleets = [policy for policy in found if policy.startswith("static-")]
    words = [f"{', '.join(rules)}: better attainment than {name} and fewer GPU-hours." if rules else ""]
    words.append(
        f"{', '.join(fleets)}: the same, of fleets that never change and were sized in hindsight." if fleets else ""
    )
    if not rules:
        words.insert(0, f"No rule has both better attainment than {name} and fewer GPU-hours.")
    return "\n".join(word for word in words if word)
