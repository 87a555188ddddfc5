"""One short trace on the real cluster and in the simulator, with the same law and the same cold start."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import httpx
from tests.load.arrivals import Arrival, Arrivals
from tests.load.client import Outcome
from tests.load.scaling import EACH, PROMPT_RATE, SEQUENCES, STEP, Scaled, scaled

from benchmarks.autoscale.engine import EngineLaw
from benchmarks.autoscale.falcon import Falcon
from benchmarks.autoscale.simulation import TPOT, TTFT, Setting, Simulation
from benchmarks.autoscale.simulation import Outcome as Simulated
from benchmarks.autoscale.trace import read

# Requests a second for so many seconds each: a slow start, two steps up, a lull, a peak and a lull.
PIECES = ((4.0, 40.0), (20.0, 50.0), (44.0, 40.0), (10.0, 50.0), (56.0, 30.0), (6.0, 30.0))
MOST = 8
# Engines that take long enough to start that it matters.
LOAD_SECONDS = 4.0
AGREE = 0.03
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Lived:
    """What came of the trace on the cluster; `cold_start` is in seconds, from a pod's creation until it was Ready."""

    attainment: float
    cold_start: float
    replica_seconds: float
    most: int
    lost: int


def make(seed: int) -> list[Arrival]:
    """The trace: Poisson within each piece, prompts and answers as skewed as people's."""
    random, found, begin = Random(seed), list[Arrival](), 0.0
    for rate, seconds in PIECES:
        at = begin
        while (at := at + random.expovariate(rate)) < begin + seconds:
            answer = min(max(round(random.lognormvariate(2.8, 0.5)), 2), 100)
            prompt = min(max(round(random.lognormvariate(4.3, 0.6)), 1), 600)
            found.append(Arrival(round(at, 6), answer, prompt))
        begin += seconds
    return found


def write(trace: list[Arrival], path: Path) -> None:
    """As a CSV of the form that the simulator reads."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("TIMESTAMP", "ContextTokens", "GeneratedTokens"))
        rows.writerows((_stamp(each.at), each.prompt, each.tokens) for each in trace)


def simulated(path: Path, cold_start: float, late: float = 0.0) -> Simulated:
    """The trace in the simulator, begun so many seconds after the first look."""
    law = EngineLaw(PROMPT_RATE, STEP, EACH, most=SEQUENCES)
    policy = Falcon(cold_start, SEQUENCES, 1, MOST)
    load = read(path)
    load = replace(load, at=[at + late for at in load.at])
    return Simulation(load, Setting(law, cold_start, 1, MOST), policy).run()


def _stamp(seconds: float) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S.%f")


def met(outcome: Outcome) -> bool:
    """Whether a request got the service that it should."""
    if outcome.kind != "ok" or outcome.first is None or outcome.first > TTFT:
        return False
    return outcome.tokens < 2 or (outcome.ended - outcome.began - outcome.first) / (outcome.tokens - 1) <= TPOT


async def live(client: httpx.Client, trace: list[Arrival]) -> Lived:
    """The trace on the cluster."""
    async with scaled(client, {"maxReplicas": MOST}, gateways=2, load=LOAD_SECONDS) as resource:
        clients = await Arrivals.begin([resource.address], trace)
        try:
            outcomes = await clients.end()
        finally:
            clients.kill()
        end = clients.begun + sum(seconds for _, seconds in PIECES)
        held = list(_held(resource, clients.begun, end))
        seen = resource.seen
        starts = [ready - seen.created[pod] for pod, ready in seen.ready.items() if seen.created[pod] > clients.begun]
        return Lived(
            attainment=statistics.fmean(map(met, outcomes)),
            cold_start=statistics.median(starts) if starts else 0.0,
            replica_seconds=sum(seconds * count for seconds, count in held),
            most=max(count for _, count in held),
            lost=sum(outcome.kind != "ok" for outcome in outcomes),
        )


def _held(resource: Scaled, begin: float, end: float) -> Iterator[tuple[float, int]]:
    """For how long there were to be how many engines."""
    changes = [(at, count) for at, count in resource.seen.replicas if begin < at < end]
    at, count = begin, resource.seen.replicas_at(begin)
    for moment, following in [*changes, (end, 0)]:
        yield moment - at, count
        at, count = moment, following
