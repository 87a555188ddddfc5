"""`python -m benchmarks.autoscale`: what autoscaling rules make of a trace, in a simulator. It needs no cluster."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter

from benchmarks.autoscale import oracle, plot, report, running, shapes
from benchmarks.autoscale.engine import ENGINES
from benchmarks.autoscale.rules import ORACLE, names, static_size
from benchmarks.autoscale.simulation import TPOT, TTFT, Setting
from benchmarks.autoscale.trace import Load, TraceError, read, scaled


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.autoscale",
        description="Autoscaling rules side by side in a simulator; needs no cluster.",
        epilog=f"SLO: TTFT at most {TTFT:g} s and time per output token at most {TPOT * 1000:g} ms. GPU-hours count "
        "from a pod's creation until it is gone, to the end of the trace.",
    )
    parser.add_argument(
        "--trace",
        required=True,
        help=f"CSV with TIMESTAMP,ContextTokens,GeneratedTokens, or a made one: {', '.join(shapes.SHAPES)}",
    )
    parser.add_argument("--scale", type=_positive, default=1.0, help="copies of each request, on average (default 1)")
    parser.add_argument(
        "--cold-start", type=_duration, default=60.0, help="seconds from a pod's creation to Ready (default 60)"
    )
    parser.add_argument("--policy", default="all", help="all, or names with commas in between (default all)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write one object a policy here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="an SVG (default: OUT with .svg)")
    parser.add_argument("--seed", type=int, default=1, help="of copies and made traces (default 1)")
    parser.add_argument("--max-replicas", type=_count, default=32, help="(default 32)")
    parser.add_argument("--min-replicas", type=_count, default=1, help="(default 1)")
    parser.add_argument(
        "--initial",
        type=_count,
        help="ready replicas at the beginning; by default what the oracle's plan has then, for all policies alike, "
        "since this measures autoscaling and no first deployment (without the oracle: what a plain plan has)",
    )
    parser.add_argument("--engine", choices=sorted(ENGINES), default="h200", help="(default h200)")
    return parser.parse_args()


def _number(value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = float("nan")
    if not abs(found) < 1e9:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number")
    return found


def _positive(value: str) -> float:
    if (found := _number(value)) <= 0:
        raise argparse.ArgumentTypeError(f"{value!r} is not above 0")
    return found


def _duration(value: str) -> float:
    if (found := _number(value)) < 0:
        raise argparse.ArgumentTypeError(f"{value!r} is below 0")
    return found


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number of at least 1")
    return int(value)


def _load(options: argparse.Namespace) -> Load:
    made = shapes.SHAPES.get(options.trace)
    load = made(options.seed) if made else read(Path(options.trace))
    return scaled(load, options.scale, options.seed)


def _agree(options: argparse.Namespace, chosen: list[str] | None) -> None:
    """Exit with a sentence where options contradict each other, before anything is simulated."""
    least, most = options.min_replicas, options.max_replicas
    if least > most:
        raise SystemExit(f"--min-replicas {least} is above --max-replicas {most}; it may not be.")
    if options.initial is not None and not least <= options.initial <= most:
        raise SystemExit(f"--initial {options.initial} is not between {least} and {most}, the least and most replicas.")
    for name in chosen or ():
        size = static_size(name)
        if size is not None and not least <= size <= most:
            raise SystemExit(f"--policy {name} is not between {least} and {most}, the least and most replicas.")
    for option, path in (("--json", options.json), ("--plot", options.plot)):
        if path is not None and not path.parent.is_dir():
            raise SystemExit(f"{option} {path}: there is no folder {path.parent}; make it first.")


def main() -> int:
    """Simulate, print, and write."""
    options, begin = _options(), perf_counter()
    try:
        load, chosen = _load(options), names(options.policy)
    except (TraceError, ValueError) as error:
        raise SystemExit(str(error)) from None
    _agree(options, chosen)
    law = ENGINES[options.engine]
    setting = Setting(law, options.cold_start, options.min_replicas, options.max_replicas)
    found = oracle.work(load, law)
    print(
        f"{options.trace}: {len(load)} requests in {load.end / 3600:.2f} h, work for {found.mean:.2f} engines on "
        f"average; cold start {options.cold_start:g} s"
    )
    with running.runner(load, setting) as run:
        outcomes = running.outcomes(run, setting, found, chosen, options.initial)
    print(report.table(outcomes, next((o for o in outcomes if o.policy == ORACLE), None)))
    print(report.remark(outcomes, "falcon", ORACLE))
    if options.json is not None:
        options.json.write_text(json.dumps(report.rows(outcomes), indent=1) + "\n")
    drawn = options.plot or (options.json.with_suffix(".svg") if options.json else None)
    if drawn is not None:
        drawn.write_text(plot.svg(outcomes, found))
        print(f"plot: {drawn}")
    print(f"{perf_counter() - begin:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
