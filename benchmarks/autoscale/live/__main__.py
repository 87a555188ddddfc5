"""`python -m benchmarks.autoscale.live`: run it in the test cluster's network, as `make bench-autoscale-live` does."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
from tests.cluster import kubeapi
from tests.node import chart

from benchmarks.autoscale.live import react, trace, wake

Numbers = dict[str, Any]
Part = Callable[[httpx.Client, int], Awaitable[tuple[Numbers, bool]]]


def _spread(name: str, values: list[float], limit: float | None) -> bool:
    """Print the middle and the worst of some seconds; returns whether all are within the limit."""
    met = limit is None or max(values) <= limit
    said = "" if limit is None else f"  at most {limit:.1f} s  {'met' if met else 'MISSED'}"
    print(f"  {name:<56} p50 {statistics.median(values):6.3f} s  max {max(values):6.3f} s{said}", flush=True)
    return met


async def _react(client: httpx.Client, repeats: int) -> tuple[Numbers, bool]:
    found = []
    for seed in range(repeats):
        one = await react.react(client, seed)
        found.append(one)
        print(
            f"  {one.before} -> {one.kept} engines in {one.writes} writes, the first after {one.first:.2f} s, enough "
            f"after {one.enough:.2f} s; {one.lost} requests lost{'' if one.met else '  MISSED'}",
            *([] if one.met else one.reasons),
            sep="\n    ",
            flush=True,
        )
    wanted, least = (react.engines(react.RATE * react.FACTOR, use) for use in (react.TARGET, react.BORNE))
    print(f"load x {react.FACTOR}: the law asks for {wanted} engines, and adds none to {least}")
    _spread("from the step to the first write of more replicas", [one.first for one in found], react.FIRST_LIMIT)
    _spread("from the step to the write of enough", [one.enough for one in found], react.RIGHT_LIMIT)
    return {"expected": wanted, "steps": [asdict(one) for one in found]}, all(one.met for one in found)


async def _wake(client: httpx.Client, repeats: int) -> tuple[Numbers, bool]:
    woken = await wake.wakes(client, repeats)
    print("first request to a resource without engines")
    parts = {
        "the operator's write of the Deployment": [one.write for one in woken],
        "the pod, by Kubernetes' controllers": [one.pod for one in woken],
        "its container runs, by scheduler and kubelet": [one.node for one in woken],
        "the engine's start, until Ready": [one.start for one in woken],
        "first token, through the gateway": [one.answer for one in woken],
    }
    for name, values in parts.items():
        _spread(name, values, None)
    met = _spread("the operator's and the gateway's part of it", [one.own for one in woken], wake.LIMIT)
    raced = await wake.races(client, 3, repeats)
    lost = [outcome for outcome in raced if outcome.kind != "ok"]
    print(f"  {len(raced)} requests around the scaling to zero: {len(lost)} lost", flush=True)
    for outcome in lost[:3]:
        print(f"    {outcome.kind} after {outcome.ended - outcome.began:.2f} s: {outcome.detail}")
    numbers = {"wakes": [asdict(one) for one in woken], "raced": len(raced), "lost": len(lost)}
    return numbers, met and not lost and all(one.met for one in woken)


async def _trace(client: httpx.Client, _: int) -> tuple[Numbers, bool]:
    requests = trace.make(seed=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.csv"
        trace.write(requests, path)
        lived = await trace.live(client, requests)
        played = trace.simulated(path, lived.cold_start)
    apart = abs(lived.attainment - played.slo_attainment)
    met = apart <= trace.AGREE
    hours = lived.replica_seconds / 3600
    print(f"{len(requests)} requests, engines that start in {lived.cold_start:.1f} s")
    print(f"  {'':<16}{'SLO %':>8}{'engine-hours':>14}{'most engines':>14}{'lost':>6}")
    print(f"  {'on the cluster':<16}{lived.attainment * 100:>8.2f}{hours:>14.3f}{lived.most:>14}{lived.lost:>6}")
    most = max(count for _, count in played.moves)
    print(
        f"  {'simulated':<16}{played.slo_attainment * 100:>8.2f}{played.gpu_hours:>14.3f}{most:>14}{played.failed:>6}"
    )
    print(
        f"  apart {apart * 100:.2f} points, at most {trace.AGREE * 100:.0f}  {'met' if met else 'MISSED'}", flush=True
    )
    numbers = asdict(lived) | {"simulated": played.slo_attainment, "simulated_gpu_hours": played.gpu_hours}
    return numbers, met and not lived.lost


PARTS: dict[str, Part] = {"react": _react, "wake": _wake, "trace": _trace}


async def _main(names: list[str], repeats: int) -> tuple[Numbers, bool]:
    numbers, met = {}, True
    with kubeapi.connect() as client:
        for name in names:
            print(f"{name}:", flush=True)
            numbers[name], good = await PARTS[name](client, repeats)
            met = met and good
    return numbers, met


def main() -> int:
    """Run, print, and say by the exit status whether all limits are met."""
    parser = argparse.ArgumentParser(prog="benchmarks.autoscale.live", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--repeats", type=int, default=5, help="of each step and each wake (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    options = parser.parse_args()
    unknown = [name for name in options.part if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    chart.install("helm")
    numbers, met = asyncio.run(_main(options.part or list(PARTS), options.repeats))
    if options.json is not None:
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
