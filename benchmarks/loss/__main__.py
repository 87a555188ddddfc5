"""`python -m benchmarks.loss`: run it in the test cluster's network, as `make bench-loss` does."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

import httpx
from tests.cluster import kubeapi
from tests.load.loss import REAL_LONG, REAL_SHORT, Options, Row, run, table
from tests.load.scenarios import ENGINES, REAL, SCENARIOS
from tests.node import chart


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.loss", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)} (default: all that the cluster allows)")
    parser.add_argument("--requests", type=int, default=15_000, help="at least, in each scenario (default 15,000)")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="0.32",
        help="a fake one with this version's manners, or the real one on CPU",
    )
    parser.add_argument("--outage", type=float, default=120, help="seconds without the API server (default 120)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    options = parser.parse_args()
    unknown = [name for name in options.scenario if name not in SCENARIOS]
    if unknown:
        parser.error(f"there is no scenario {unknown[0]}; there are {', '.join(SCENARIOS)}")
    return options


def _nodes(client: httpx.Client) -> int:
    """How many nodes really run pods."""
    nodes = client.get("/api/v1/nodes").raise_for_status().json()["items"]
    return sum("kwok.x-k8s.io/node" not in node["metadata"].get("annotations", {}) for node in nodes)


async def _main(options: argparse.Namespace) -> list[Row]:
    rows = []
    with kubeapi.connect() as client:
        here = _nodes(client)
        for scenario in [SCENARIOS[name] for name in options.scenario or SCENARIOS]:
            if scenario.nodes > here:
                print(f"{scenario.name}: needs {scenario.nodes} nodes, there are {here}: left out", flush=True)
                continue
            print(f"{scenario.name}: {scenario.says}", flush=True)
            asked = Options(options.requests, options.engine, options.outage)
            if options.engine == REAL:
                asked = replace(asked, long=REAL_LONG, short=REAL_SHORT)
            rows.append(await run(client, scenario, asked))
            print(list(table(rows[-1:]))[1], flush=True)
    return rows


def main() -> int:
    """Run, print the table, and say by the exit status whether the planned disruptions cost nothing."""
    options = _options()
    chart.install("helm")
    rows = asyncio.run(_main(options))
    print("\n".join(table(rows)))
    if options.json is not None:
        numbers = {row.scenario.name: {**row.tally, "seconds": row.seconds, "mayLose": row.may_lose} for row in rows}
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")
    return 0 if rows and all(row.met for row in rows if row.scenario.planned) else 1


if __name__ == "__main__":
    sys.exit(main())
