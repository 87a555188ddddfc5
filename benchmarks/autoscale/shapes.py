"""`python -m benchmarks.autoscale.shapes NAME`: made traces of several shapes of load, by a seed, as CSV on stdout.

Requests come by chance (Poisson) at a rate that changes with time; tokens are spread as those of conversations are.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import sys
from collections.abc import Callable, Mapping

from benchmarks.autoscale.trace import COLUMNS, Load

# Requests a second that fill about one H200 with conversations.
_FULL = 9.0


def _made(seed: int, seconds: float, rate: Callable[[float], float], prompt: float, answer: float) -> Load:
    """At `rate` requests a second; prompts and answers have so many tokens on average."""
    chance = random.Random(seed)
    most = max(rate(float(second)) for second in range(int(seconds)))
    rows: list[tuple[float, int, int]] = [(0.0, _tokens(chance, prompt), _tokens(chance, answer))]
    at = 0.0
    while (at := at + chance.expovariate(most)) < seconds:
        if chance.random() * most < rate(at):
            rows.append((at, _tokens(chance, prompt), _tokens(chance, answer)))
    return Load.of(rows)


def _tokens(chance: random.Random, mean: float) -> int:
    """Log-normal, as lengths are; the mean is kept."""
    spread = 0.7
    return max(1, round(mean * math.exp(chance.gauss(-spread * spread / 2, spread))))


def step(seed: int) -> Load:
    """An hour; from the 20th to the 45th minute eight times the load."""
    return _made(seed, 3600, lambda t: _FULL * 0.7 * (8 if 1200 <= t < 2700 else 1), 1000, 200)


def bursts(seed: int) -> Load:
    """An hour and a half of bursts: 150 s of six times the load every 600 s."""
    return _made(seed, 5400, lambda t: _FULL * (6 if t % 600 < 150 else 1), 1000, 200)


def daily(seed: int) -> Load:
    """A day's cycle in four hours, between half an engine's load and eight, with smaller waves in it."""

    def rate(t: float) -> float:
        day = (1 - math.cos(2 * math.pi * t / 14400)) / 2
        return _FULL * max(0.5 + 7.5 * day * (1 + 0.15 * math.sin(2 * math.pi * t / 900)), 0.5)

    return _made(seed, 14400, rate, 1000, 200)


def reasoning(seed: int) -> Load:
    """An hour and a half of short prompts and answers of 3000 tokens; the load doubles twice and halves again."""
    return _made(seed, 5400, lambda t: 3.0 * (1, 2, 4, 2, 1, 1)[min(int(t / 900), 5)], 300, 3000)


def sparse(seed: int) -> Load:
    """Two hours of a request every two seconds, and for 200 s of every 2400 s fifty times as many."""
    return _made(seed, 7200, lambda t: 25.0 if t % 2400 < 200 else 0.5, 1000, 200)


SHAPES: Mapping[str, Callable[[int], Load]] = {
    "step": step,
    "bursts": bursts,
    "daily": daily,
    "reasoning": reasoning,
    "sparse": sparse,
}


def main() -> int:
    """Write one."""
    parser = argparse.ArgumentParser(prog="benchmarks.autoscale.shapes", description="Made traces, as CSV on stdout.")
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    load = SHAPES[options.shape](options.seed)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((f"{at:.6f}", p, a) for at, p, a in zip(load.at, load.prompt, load.answer, strict=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
