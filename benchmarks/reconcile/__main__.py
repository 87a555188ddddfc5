"""`python -m benchmarks.reconcile`: run it in the test cluster's network, as `make bench-reconcile` does."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.cluster import kubeapi

from benchmarks.reconcile import report
from benchmarks.reconcile.lab import Lab, engines
from benchmarks.reconcile.run import Options, Run
from falcon_operator.kube.connection import connect


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.reconcile", description=__doc__)
    parser.add_argument("--singles", type=int, default=60, help="resources one after another (default 60)")
    parser.add_argument("--count", type=int, default=500, help="resources at once (default 500)")
    parser.add_argument("--in-flight", type=int, default=16, help="requests in flight, of both sides (default 16)")
    parser.add_argument("--idle", type=float, default=120, help="seconds of quiet to be watched (default 120)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    parser.add_argument("--check", action="store_true", help="fail where a target is missed")
    return parser.parse_args()


async def _main(options: argparse.Namespace) -> int:
    connection = await connect()
    with ExitStack() as stack:
        lab = Lab(stack.enter_context(kubeapi.connect()))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lab.definition()
        stack.enter_context(lab.nodes(options.count + options.singles))
        stack.enter_context(engines())
        asked = Options(options.singles, options.count, options.in_flight, options.idle)
        numbers = await Run(lab, connection, folder, asked).all()
    print(report.table(numbers))
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=2) + "\n")
    return 1 if options.check and not report.met(numbers) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(_options())))
