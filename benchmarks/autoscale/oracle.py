"""A clairvoyant fleet: it knows every request and its answer's length beforehand, and searches the cheapest good plan.

The work of each request is what a full engine takes for it; a plan has so many engines at each time as the work of that
time fills to some share. Engines are asked for a cold start ahead, and one that is soon needed again is kept if that is
cheaper. Many such plans, and fleets that never change, are simulated; of those whose attainment is within half a point
of the best, the one with the fewest GPU-hours is the oracle's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from benchmarks.autoscale.engine import EngineLaw
from benchmarks.autoscale.policy import View
from benchmarks.autoscale.simulation import TPOT, Outcome
from benchmarks.autoscale.trace import Load

SLICE = 2.0  # seconds
# A plan may miss the best one's attainment by so much if it is cheaper.
WITHIN = 0.005
USES = (0.6, 0.75, 0.9, 1.05)
SMOOTHED = (10.0, 40.0, 160.0)  # seconds
# Then around the best so far, as long as that finds a better one, and so many times at most.
FINER, ROUNDS = 0.05, 4


@dataclass(frozen=True)
class Work:
    """What the requests ask for: engines that would be busy all the time, in slices of SLICE seconds."""

    demand: tuple[float, ...]
    lasting: float  # seconds that an answer takes, on average

    @property
    def mean(self) -> float:
        """Of all slices."""
        return sum(self.demand) / len(self.demand)


def work(load: Load, law: EngineLaw) -> Work:
    """A prompt's work falls on its arrival, an answer's on the time in which a full engine gives it."""
    many, answers = len(load), sum(load.answer)
    prefill = sum(load.prompt) / law.prompt_rate / answers  # seconds of prompts for each token of answers
    full = min(max((TPOT - law.step) / (law.each + prefill), 1.0), float(law.most))
    token = law.step + (law.each + prefill) * full
    slices = int(load.end / SLICE) + 1
    change = [0.0] * (slices + 1)
    at_once = [0.0] * slices
    for at, prompt, answer in zip(load.at, load.prompt, load.answer, strict=True):
        first = min(int(at / SLICE), slices - 1)
        at_once[first] += prompt / law.prompt_rate
        last = min(int((at + answer * token) / SLICE), slices - 1)
        whole = int(answer * token / SLICE) + 1
        each = answer * (law.step / full + law.each) / whole
        change[first] += each
        change[last + 1] -= each
    spread = list(accumulate(change))
    demand = tuple(max(one + other, 0.0) / SLICE for one, other in zip(at_once, spread, strict=False))
    return Work(demand, answers / many * token)


@dataclass(frozen=True)
class Plan:
    """How many replicas from each time on, the first from 0."""

    steps: tuple[tuple[float, int], ...]

    @property
    def initial(self) -> int:
        """At the beginning."""
        return self.steps[0][1]

    @property
    def most(self) -> int:
        """At any time."""
        return max(count for _, count in self.steps)


def plan(found: Work, cold_start: float, use: float, smoothed: float, least: int, most: int) -> Plan:
    """Engines ahead of what comes, each of them used to such a share; demand is smoothed over so many seconds."""
    width = max(int(smoothed / SLICE) | 1, 1)
    sums = [0.0, *accumulate(found.demand)]
    slices = len(found.demand)
    need: list[int] = []
    for i in range(slices):
        low, high = max(i - width // 2, 0), min(i + width // 2 + 1, slices)
        need.append(min(max(math.ceil((sums[high] - sums[low]) / (high - low) / use - 1e-9), least), most))
    ahead = math.ceil(cold_start / SLICE)
    # An engine that starts again costs its start, and what is left of answers when it is given up.
    pause = ahead + int(found.lasting / SLICE)
    change = [0] * (slices + 1)
    for level in range(1, max(need, default=least) + 1):
        begin: int | None = None
        end = -1
        for first, last in _runs(need, level):
            if begin is not None and first - end > pause:
                change[max(begin - ahead, 0)] += 1
                change[end] -= 1
                begin = None
            begin = first if begin is None else begin
            end = last
        if begin is not None:
            change[max(begin - ahead, 0)] += 1
            change[end] -= 1
    counts = [min(max(count, least), most) for count in accumulate(change[:slices])]
    steps = [(0.0, counts[0])]
    steps += [(i * SLICE, counts[i]) for i in range(1, slices) if counts[i] != counts[i - 1]]
    return Plan(tuple(steps))


def _runs(need: Sequence[int], level: int) -> Iterable[tuple[int, int]]:
    """Slices [first, end) in which so many engines are needed."""
    first: int | None = None
    for i, count in enumerate(need):
        if count >= level and first is None:
            first = i
        elif count < level and first is not None:
            yield first, i
            first = None
    if first is not None:
        yield first, len(need)


class Planned:
    """Follows a plan."""

    interval = SLICE / 2

    def __init__(self, name: str, followed: Plan) -> None:
        self.name = name
        self._steps, self._next = followed.steps, 0

    def desired(self, view: View) -> int:
        """What the plan says."""
        while self._next + 1 < len(self._steps) and self._steps[self._next + 1][0] <= view.now + 1e-9:
            self._next += 1
        return self._steps[self._next][1]


def static(count: int) -> Plan:
    """A fleet that never changes."""
    return Plan(((0.0, count),))


class Search:
    """Plans that are worth a simulation: a coarse grid, then the neighbours of the best."""

    def __init__(self, found: Work, cold_start: float, least: int, most: int) -> None:
        self._found, self._cold_start, self._least, self._most = found, cold_start, least, most
        self._recipes: dict[Plan, tuple[float, float]] = {}  # of what use and smoothing each is made first

    def coarse(self) -> list[Plan]:
        """The plans to begin with, each once."""
        return self._made([(use, smoothed) for use in USES for smoothed in SMOOTHED])

    def around(self, chosen: Plan) -> list[Plan]:
        """What is near a plan and new."""
        if chosen not in self._recipes:
            return []
        use, smoothed = self._recipes[chosen]
        near = [(use - FINER, smoothed), (use + FINER, smoothed), (use, smoothed / 2), (use, smoothed * 2)]
        return self._made(near)

    def _made(self, recipes: Sequence[tuple[float, float]]) -> list[Plan]:
        new: list[Plan] = []
        for use, smoothed in recipes:
            made = plan(self._found, self._cold_start, use, smoothed, self._least, self._most)
            if made not in self._recipes:
                self._recipes[made] = (use, smoothed)
                new.append(made)
        return new


def sizes(chosen: Plan, outcome: Outcome, least: int, most: int) -> list[int]:
    """Fleets to compare a plan with: its mean rounded both ways, one more and one fewer, its maximum."""
    mean = outcome.gpu_hours * 3600 / outcome.seconds
    counts = {math.floor(mean) - 1, math.floor(mean), math.ceil(mean), math.ceil(mean) + 1, chosen.most}
    return sorted({min(max(count, least, 1), most) for count in counts})


def best(runs: Sequence[tuple[Plan, Outcome]]) -> tuple[Plan, Outcome]:
    """The cheapest of those that are good."""
    top = max(outcome.slo_attainment for _, outcome in runs)
    good = [run for run in runs if run[1].slo_attainment >= top - WITHIN]
    return min(good, key=lambda run: (run[1].gpu_hours, -run[1].slo_attainment))
