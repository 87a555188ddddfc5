"""A picture of a run as SVG: replicas of each policy over time with the demand, and attainment against GPU-hours."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.autoscale.oracle import SLICE, Work
from benchmarks.autoscale.simulation import Outcome

_WIDTH, _PANEL, _LEFT, _GAP = 1000, 90, 190, 22
_SCATTER = 420
_POINTS = 500  # of the demand's line


def svg(outcomes: Sequence[Outcome], found: Work) -> str:
    """The whole picture."""
    demand = _demand(found)
    seconds = max(len(found.demand) * SLICE, 1.0)
    most = max(max((value for _, value in demand), default=1.0), *(count for o in outcomes for _, count in o.pods), 1)
    parts: list[str] = []
    top = _GAP
    for outcome in outcomes:
        parts.append(_panel(outcome, demand, seconds, most, top))
        top += _PANEL + _GAP
    parts.append(_scatter(outcomes, top))
    height = top + _SCATTER + 2 * _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def _demand(found: Work) -> list[tuple[float, float]]:
    width = max(len(found.demand) // _POINTS, 1)
    slices = range(0, len(found.demand), width)
    return [(i * SLICE, sum(found.demand[i : i + width]) / len(found.demand[i : i + width])) for i in slices]


def _panel(outcome: Outcome, demand: Sequence[tuple[float, float]], seconds: float, most: float, top: float) -> str:
    """Demand in grey, pods that count in light blue, desired replicas in blue."""

    def x(at: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _GAP) * min(at / seconds, 1.0)

    def y(count: float) -> float:
        return top + _PANEL * (1 - count / most)

    def stairs(steps: Sequence[tuple[float, int]]) -> str:
        points, last = [], None
        for at, count in steps:
            if at > seconds:
                break
            if last is not None:
                points.append((x(at), y(last)))
            points.append((x(at), y(count)))
            last = count
        points.append((x(seconds), y(last or 0)))
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)

    line = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in demand)
    said = f"{outcome.slo_attainment * 100:.1f} %, {outcome.gpu_hours:.2f} GPU-h"
    return (
        f'<text x="8" y="{top + 20}" font-weight="bold">{escape(outcome.policy)}</text>'
        f'<text x="8" y="{top + 38}">{said}</text>'
        f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end" fill="#888">{most:.0f}</text>'
        f'<line x1="{_LEFT}" y1="{top + _PANEL}" x2="{_WIDTH - _GAP}" y2="{top + _PANEL}" stroke="#888"/>'
        f'<polygon points="{_LEFT},{y(0):.1f} {line} {x(seconds):.1f},{y(0):.1f}" fill="#ddd"/>'
        f'<polyline points="{stairs(outcome.pods)}" fill="none" stroke="#9cf" stroke-width="2"/>'
        f'<polyline points="{stairs(outcome.moves)}" fill="none" stroke="#06c" stroke-width="1.5"/>'
    )


def _scatter(outcomes: Sequence[Outcome], top: float) -> str:
    """Up and to the left is better."""
    most = max(o.gpu_hours for o in outcomes) * 1.15 or 1.0
    least = min(o.slo_attainment for o in outcomes)
    span = max(1.0 - least, 0.01) * 1.1
    height, width = _SCATTER - 2 * _GAP, _WIDTH - _LEFT - _GAP
    bottom = top + _GAP + height
    parts = [
        f'<rect x="{_LEFT}" y="{top + _GAP}" width="{width}" height="{height}" fill="none" stroke="#888"/>',
        f'<text x="{_LEFT + width / 2}" y="{bottom + 18}" text-anchor="middle">GPU-hours, to {most:.1f}</text>',
        f'<text x="8" y="{top + _GAP + 12}">SLO attainment, 100 %</text>',
        f'<text x="8" y="{bottom}">{(1 - span) * 100:.0f} %</text>',
    ]
    for outcome in outcomes:
        x = _LEFT + width * outcome.gpu_hours / most
        y = top + _GAP + height * (1 - outcome.slo_attainment) / span
        ours = outcome.policy == "falcon"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{6 if ours else 4}" fill="{"#c30" if ours else "#06c"}"/>')
        parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{escape(outcome.policy)}</text>')
    return "\n".join(parts)
