"""`python -m benchmarks.autoscale.cost`: what the autoscaler costs the operator with many resources that have traffic.

The real autoscaler, with the operator's own settings, looks at real sockets: of each resource two gateways, which are
read once a second, and engines, once in five. Their answers come from another process. There is no API server: a plan
is what the autoscaler is told again once a minute, as if nothing had changed. Exits with 1 above the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import sys
from pathlib import Path
from time import monotonic, process_time
from typing import Any

from benchmarks.autoscale.fake_pods import serving
from falcon_operator.app import COLLECT
from falcon_operator.decide.autoscale.decision import decide
from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import Config, Decision, Fleet, Signals
from falcon_operator.decide.pods import Pod
from falcon_operator.decide.types import Watch
from falcon_operator.runtime.autoscaler import Autoscaler
from falcon_operator.runtime.cache import Key

LIMIT_CORES = 0.5
GATEWAYS = 2
# Connections are made and all first looks done.
WARM_SECONDS = 8.0
PLAN_SECONDS = 60.0


class Lab:
    """Resources, and the plans of a worker that never changes anything."""

    def __init__(self, port: int, resources: int, engines: int) -> None:
        self.deciding = 0.0  # CPU seconds
        self.decisions = self.plans = 0
        self.autoscaler = Autoscaler(self._plan, gateway_port=port, engine_port=port, decision=self._decide)
        self.watches = {("default", f"web-{n}"): _watch(n, engines) for n in range(resources)}

    def _decide(
        self, signals: Signals, fleet: Fleet, config: Config, state: State, now: float
    ) -> tuple[Decision, State]:
        begin = process_time()
        try:
            return decide(signals, fleet, config, state, now)
        finally:
            self.deciding += process_time() - begin
            self.decisions += 1

    def _plan(self, key: Key) -> None:
        self.plans += 1
        self.autoscaler.scaling(key)

    async def plan(self) -> None:
        """For ever: each resource's plan once a minute, all of them spread over it."""
        while True:
            for key, watch in self.watches.items():
                self.autoscaler.want(key, watch)
                await asyncio.sleep(PLAN_SECONDS / len(self.watches))


def _watch(number: int, engines: int) -> Watch:
    def pods(part: int, count: int) -> tuple[Pod, ...]:
        addresses = [f"127.{part + n}.{number // 250}.{number % 250 + 1}" for n in range(count)]
        return tuple(Pod({"metadata": {"uid": a, "name": a}, "status": {"podIP": a}}) for a in addresses)

    config, fleet = Config(min_replicas=1, max_replicas=16), Fleet(replicas=max(engines, 1), ready=max(engines, 1))
    return Watch(config, fleet, gateways=pods(1, GATEWAYS), engines=pods(100, engines))


async def measure(port: int, resources: int, engines: int, seconds: float) -> dict[str, Any]:
    """One run."""
    lab = Lab(port, resources, engines)
    for key, watch in lab.watches.items():
        lab.autoscaler.want(key, watch)
    plans = asyncio.create_task(lab.plan())
    await asyncio.sleep(WARM_SECONDS)
    usual = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    lab.deciding, lab.decisions, lab.plans = 0.0, 0, 0
    cpu, wall = process_time(), monotonic()
    await asyncio.sleep(seconds)
    cpu, wall = process_time() - cpu, monotonic() - wall
    known = sum(figures.requests is not None for _, figures in lab.autoscaler.figures())
    gc.set_threshold(*usual)
    gc.unfreeze()
    plans.cancel()
    await lab.autoscaler.close()
    return {
        "resources": resources,
        "gateways": GATEWAYS * resources,
        "engines": engines * resources,
        "seconds": round(wall, 1),
        "cores": round(cpu / wall, 5),
        "limit": LIMIT_CORES,
        "decisions_per_second": round(lab.decisions / wall, 1),
        "plans_asked_for": lab.plans,
        "deciding_cores": round(lab.deciding / wall, 5),
        "reading_cores": round((cpu - lab.deciding) / wall, 5),
        "known": known,
        "megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autoscale.cost", description=__doc__)
    parser.add_argument("--resources", type=int, default=500, help="with two gateways each")
    parser.add_argument("--engines", type=int, default=2, help="of each resource")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to measure")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures there")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 4 * GATEWAYS * arguments.resources
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    with serving() as port:
        found = asyncio.run(measure(port, arguments.resources, arguments.engines, arguments.seconds))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    print(
        f"{found['resources']} resources with traffic, {found['gateways']} gateways, {found['engines']} engines: "
        f"{found['cores']:.3f} of a core (limit {LIMIT_CORES}), {found['reading_cores']:.3f} for reading and "
        f"{found['deciding_cores']:.3f} for deciding {found['decisions_per_second']} times a second; "
        f"{1e6 * found['cores'] / found['decisions_per_second']:.0f} us of CPU a look; "
        f"{found['megabytes']} MB; {found['plans_asked_for']} plans asked for"
    )
    looks = 0.9 * GATEWAYS * found["resources"]
    if found["known"] < found["resources"] or found["decisions_per_second"] < looks:
        print(
            f"{found['known']} resources are known, and {looks:.0f} looks a second are to be: too few, which counts as "
            "failed. Where other programs keep this machine busy, try again without them."
        )
        return 1
    return 0 if found["cores"] <= LIMIT_CORES else 1


if __name__ == "__main__":
    sys.exit(main())
