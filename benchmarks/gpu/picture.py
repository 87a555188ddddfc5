"""Bars as SVG: groups of bars side by side, and stacks of phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_COLOURS = ("#bbb", "#777", "#9cf", "#48c", "#06a", "#c30", "#e92", "#393", "#a6c", "#850")
_WIDTH, _LEFT, _TOP, _HEIGHT = 1000, 70, 60, 300


def groups(title: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    """A group of bars for each row, one bar for each name."""
    most = max((value for _, values in rows for value in values if value), default=1.0) * 1.08
    wide = (_WIDTH - _LEFT - 20) / max(len(rows), 1)
    bar = wide * 0.86 / max(len(names), 1)
    parts = [_legend(names), _scale(most)]
    for number, (label, values) in enumerate(rows):
        begin = _LEFT + number * wide
        for index, value in enumerate(values):
            if value:
                high = _HEIGHT * value / most
                x, y = begin + wide * 0.07 + index * bar, _TOP + _HEIGHT - high
                parts.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar - 1:.1f}" height="{high:.1f}" '
                    f'fill="{_COLOURS[index % len(_COLOURS)]}"/>'
                )
                parts.append(
                    f'<text x="{x + bar / 2:.1f}" y="{y - 3:.1f}" text-anchor="middle" '
                    f'font-size="8">{value:,.0f}</text>'
                )
        parts.append(
            f'<text x="{begin + wide / 2:.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{escape(label)}</text>'
        )
    return _page(title, _TOP + _HEIGHT + 40, parts)


def stacks(title: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """A line of parts for each row, as long as they take together."""
    names = list(dict.fromkeys(name for _, phases in rows for name in phases))
    most = max((sum(phases.values()) for _, phases in rows), default=1.0) * 1.08
    left, step = 150, 40
    parts = [_legend(names)]
    for number, (label, phases) in enumerate(rows):
        x, y = float(left), _TOP + 20 + number * step
        parts.append(f'<text x="{left - 8}" y="{y + 18}" text-anchor="end">{escape(label)}</text>')
        for name in names:
            wide = (_WIDTH - left - 20) * phases.get(name, 0.0) / most
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="26" fill="{colour}"/>')
            x += wide
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 18}">{sum(phases.values()):.0f} s</text>')
    return _page(title, _TOP + 20 + len(rows) * step + 10, parts)


def _legend(names: Sequence[str]) -> str:
    parts, x, y = [], 10.0, 34
    for index, name in enumerate(names):
        if x > _WIDTH - 170:
            x, y = 10.0, y + 16
        parts.append(f'<rect x="{x:.0f}" y="{y}" width="10" height="10" fill="{_COLOURS[index % len(_COLOURS)]}"/>')
        parts.append(f'<text x="{x + 14:.0f}" y="{y + 9}" font-size="11">{escape(name)}</text>')
        x += 30 + 6.5 * len(name)
    return "\n".join(parts)


def _scale(most: float) -> str:
    step = next((s for s in (500, 1000, 2000, 2500, 5000, 10000) if most / s <= 8), 20000)
    parts = []
    for value in range(0, int(most) + 1, step):
        y = _TOP + _HEIGHT * (1 - value / most)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - 20}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#666">{value:,}</text>')
    return "\n".join(parts)


def _page(title: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height:.0f}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="10" y="20" font-size="14" font-weight="bold">{escape(title)}</text>'
    )
    return "\n".join([head, *parts, "</svg>", ""])
