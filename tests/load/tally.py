"""Adds up what came of many requests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.load.client import Outcome

# Failures of each kind that are told in full.
SHOWN = 3


def quantile(values: list[float], part: float) -> float | None:
    """The value below which so large a part of sorted values lies; None of none."""
    return values[min(len(values) - 1, int(part * len(values)))] if values else None


@dataclass
class Tally:
    """Requests, by what came of them. Times are in seconds."""

    kinds: Counter[str] = field(default_factory=Counter)
    servers: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)  # by the server that had them, "" where none said so
    examples: list[str] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    longest_gap: float = 0.0
    chunks: int = 0
    retried: int = 0

    def add(self, outcome: Outcome) -> None:
        """One more request has ended."""
        self.kinds[outcome.kind] += 1
        self.retried += outcome.retried
        self.chunks += outcome.chunks
        self.lags += outcome.lags
        self.longest_gap = max(self.longest_gap, outcome.longest_gap)
        if outcome.server:
            self.servers[outcome.server] += 1
        if outcome.first is not None:
            self.firsts.append(outcome.first)
        self.lost[outcome.server] += outcome.kind != "ok"
        if outcome.kind != "ok" and self.kinds[outcome.kind] <= SHOWN:
            after = outcome.ended - outcome.began
            where = f" from {outcome.server}" if outcome.server else ""
            self.examples.append(f"{outcome.kind}{where} {after:.2f} s after its beginning: {outcome.detail}")

    def merge(self, other: Tally) -> None:
        """Another tally comes to this one."""
        self.kinds += other.kinds
        self.servers += other.servers
        self.lost += other.lost
        self.examples += other.examples
        self.firsts += other.firsts
        self.lags += other.lags
        self.longest_gap = max(self.longest_gap, other.longest_gap)
        self.chunks += other.chunks
        self.retried += other.retried

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.kinds.values())

    @property
    def ok(self) -> int:
        """Those that came whole and right."""
        return self.kinds["ok"]

    @property
    def cut(self) -> int:
        """Those that began to stream and did not come whole and right."""
        return self.requests - self.ok - self.refused

    @property
    def refused(self) -> int:
        """Those that got no stream at all."""
        return self.kinds["connect"] + self.kinds["status"]

    def summary(self) -> dict[str, Any]:
        """As one JSON object."""
        firsts, lags = sorted(self.firsts), sorted(self.lags)
        return {
            "requests": self.requests,
            "ok": self.ok,
            "failed": self.refused,
            "truncated": self.cut,
            "kinds": dict(self.kinds),
            "retried": self.retried,
            "chunks": self.chunks,
            "first_p50": quantile(firsts, 0.5),
            "first_p99": quantile(firsts, 0.99),
            "first_max": firsts[-1] if firsts else None,
            "longest_gap": self.longest_gap,
            "lag_p50": quantile(lags, 0.5),
            "lag_p99": quantile(lags, 0.99),
            "lag_max": lags[-1] if lags else None,
            "servers": dict(self.servers),
            "lost": {server: count for server, count in self.lost.items() if count},
            "examples": self.examples,
        }
