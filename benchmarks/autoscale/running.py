"""Runs many simulations over the machine's cores."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter

from benchmarks.autoscale import oracle
from benchmarks.autoscale.oracle import Plan, Planned, Work
from benchmarks.autoscale.rules import ORACLE, RULES, rule, static_size
from benchmarks.autoscale.simulation import Outcome, Setting, Simulation
from benchmarks.autoscale.trace import Load

# A name of RULES or static-N, or a plan under a name; and the replicas at the beginning.
Task = tuple[str, Plan | None, int]

_played: tuple[Load, Setting] | None = None


def _begin(load: Load, setting: Setting) -> None:
    global _played
    _played = load, setting


def _run(task: Task) -> tuple[Outcome, float]:
    assert _played is not None
    name, followed, initial = task
    load, setting = _played
    setting = replace(setting, initial=initial)
    begin = perf_counter()
    policy = (
        rule(name, setting.cold_start, setting.law.most, setting.least, setting.most)
        if followed is None
        else Planned(name, followed)
    )
    return Simulation(load, setting, policy).run(), perf_counter() - begin


class Runner:
    """Plays one load under many policies."""

    def __init__(self, load: Load, setting: Setting, pool: multiprocessing.pool.Pool) -> None:
        self._setting = setting
        self._pool = pool

    def all(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Run them all, and say on stderr what has been done."""
        found: list[Outcome] = []
        for number, (outcome, seconds) in enumerate(self._pool.imap(_run, tasks), 1):
            said = f"SLO {outcome.slo_attainment * 100:.2f} %, {outcome.gpu_hours:.2f} GPU-hours"
            print(f"  {number}/{len(tasks)} {outcome.policy}: {said}, in {seconds:.1f} s", file=sys.stderr, flush=True)
            found.append(outcome)
        return found

    def oracle(self, found: Work) -> tuple[Plan, Outcome, list[tuple[Plan, Outcome]]]:
        """The oracle's plan, its outcome, and all that was tried."""
        least, most = self._setting.least, self._setting.most
        search = oracle.Search(found, self._setting.cold_start, least, most)
        runs: list[tuple[Plan, Outcome]] = []
        new = search.coarse()
        for _ in range(oracle.ROUNDS):
            runs += zip(new, self.plans(new), strict=True)
            if not (new := search.around(oracle.best(runs)[0])):
                break
        chosen, outcome = oracle.best(runs)
        fleets = [oracle.static(count) for count in oracle.sizes(chosen, outcome, least, most)]
        new = [fleet for fleet in fleets if fleet not in (tried for tried, _ in runs)]
        runs += zip(new, self.plans(new), strict=True)
        chosen, outcome = oracle.best(runs)
        return chosen, replace(outcome, policy=ORACLE), runs

    def plans(self, made: Sequence[Plan]) -> list[Outcome]:
        """Each begins with what it has at the beginning."""
        return self.all([(f"plan-{number}", one, one.initial) for number, one in enumerate(made, 1)])


@contextmanager
def runner(load: Load, setting: Setting) -> Iterator[Runner]:
    """One with a process on each core."""
    with multiprocessing.Pool(len(os.sched_getaffinity(0)), _begin, (load, setting)) as pool:
        yield Runner(load, setting, pool)


def outcomes(
    run: Runner, setting: Setting, found: Work, chosen: list[str] | None, initial: int | None
) -> list[Outcome]:
    """Of the chosen policies, of all if it is None; in their order."""
    planned: tuple[Plan, Outcome, list[tuple[Plan, Outcome]]] | None = None
    if chosen is None or ORACLE in chosen:
        planned = run.oracle(found)
    begin = initial or (planned[0].initial if planned else _guess(found, setting))
    named = chosen
    if named is None:
        assert planned is not None
        sizes = oracle.sizes(planned[0], planned[1], setting.least, setting.most)
        named = [*RULES, *(f"static-{size}" for size in sizes), ORACLE]
    by_name: dict[str, Outcome] = {}
    if planned is not None:
        by_name[ORACLE] = planned[1]
        for one, outcome in planned[2]:
            if len(one.steps) == 1:
                by_name[f"static-{one.initial}"] = replace(outcome, policy=f"static-{one.initial}")
    left = [name for name in named if name not in by_name]
    tasks: list[Task] = []
    for name in left:
        size = static_size(name)
        tasks.append((name, None, min(size, setting.most) if size else begin))
    by_name |= {outcome.policy: outcome for outcome in run.all(tasks)}
    return [by_name[name] for name in named]


def _guess(found: Work, setting: Setting) -> int:
    """What a plan of middling use has at the beginning, where the oracle does not run."""
    return oracle.plan(found, setting.cold_start, 0.7, 40.0, setting.least, setting.most).initial
