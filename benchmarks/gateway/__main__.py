"""`python -m benchmarks.gateway`: the gateway's cost and its promises, on loopback. It needs no cluster."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.gateway import haproxies
from tests.load.run import files_for

from benchmarks.gateway import measure
from benchmarks.gateway.measure import Numbers

CPU_US, FIRST_MS, MEMORY_MB, NOTICED_S = 24.0, 1.5, 60.0, 0.5
RATE, OPEN = 4000, 5000
# A chunk that is held back waits for the next one, or 40 to 200 ms for the kernel.
HELD_BACK_MS = 40.0
PARTS = ("chunks", "first", "held-back", "open", "hang-ups", "overtakings")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.gateway", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], help="what to measure (default: everything)")
    parser.add_argument("--seconds", type=float, default=8, help="of streaming in each round (default 8)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the cheapest counts (default 5)")
    parser.add_argument("--requests", type=int, default=300, help="for the first token (default 300)")
    parser.add_argument("--newer", action="store_true", help="HAProxy of a newer Debian, not the machine's own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    return parser.parse_args()


async def _measure(options: argparse.Namespace, folder: Path) -> Numbers:
    parts = options.part or PARTS
    found: Numbers = {}
    haproxy = haproxies.newer() if options.newer else haproxies.installed()
    print(f"HAProxy {'.'.join(map(str, haproxy.version))}, its whole tree of processes", flush=True)
    if "chunks" in parts:
        found["chunks"] = await measure.chunks(haproxy, folder / "chunks", RATE, options.seconds, options.rounds)
    if "first" in parts:
        found["first"] = await measure.first_token(haproxy, folder / "first", options.requests)
    if "held-back" in parts:
        found["held-back"] = await measure.held_back(haproxy, folder / "held-back", 10, 200)
    if "open" in parts:
        found["open"] = await measure.open_streams(haproxy, folder / "open", OPEN)
    if "hang-ups" in parts:
        found["hang-ups"] = await measure.hang_ups(haproxy, folder / "hang-ups", 10)
    if "overtakings" in parts:
        found["overtakings"] = await measure.overtakings(haproxy, folder / "overtakings", 60)
    return found


def lines(found: Numbers) -> Iterator[tuple[str, bool | None]]:
    """What was measured, one sentence each, and whether it is as promised; None where nothing is."""
    if chunks := found.get("chunks"):
        used = {name: one["us_a_chunk"] for name, one in chunks.items()}
        for name, one in chunks.items():
            usual = one["median_us_a_chunk"]
            what = f"{used[name]:.1f} us of CPU a chunk (median {usual:.1f}), " if name != "direct" else ""
            times = f"p50 {one['lag_p50_ms']:.2f} p99 {one['lag_p99_ms']:.1f} max {one['lag_max_ms']:.0f} ms"
            client = f"client {one['client_us_a_chunk']:.0f} us"
            yield f"{name}: {what}{one['rate']:.0f} chunks/s; chunks under way {times}; {client}", None
        yield f"gateway: {used['gateway']:.1f} us of CPU a chunk, at most {CPU_US:g} wanted", used["gateway"] <= CPU_US
        if "nginx" in used:
            yield f"gateway {used['gateway']:.1f} us, nginx {used['nginx']:.1f} us", used["gateway"] < used["nginx"]
        else:
            yield "nginx is not here and could not be fetched: not compared", None
    if first := found.get("first"):
        added = first["gateway"]["p50"] - first["direct"]["p50"]
        said = f"{first['direct']['p50']:.2f} ms direct, {first['gateway']['p50']:.2f} ms through the gateway"
        yield f"first token {said}: {added:.2f} ms later, at most {FIRST_MS:g} wanted", added <= FIRST_MS
    if late := found.get("held-back"):
        said = ", ".join(
            f"{n} p50 {o['p50_ms']:.2f} p99 {o['p99_ms']:.1f} max {o['max_ms']:.0f} ms" for n, o in late.items()
        )
        yield f"single chunks under way: {said}", late["gateway"]["p99_ms"] < HELD_BACK_MS
    if many := found.get("open"):
        said = f"{many['open']} open streams: {many['mb']:.1f} MB ({many['empty_mb']:.1f} without)"
        met = many["mb"] <= MEMORY_MB and many["open"] >= OPEN and many["ok"] == OPEN
        yield f"{said}, its largest process {many['largest_process_mb']:.1f} MB; {many['ok']} came whole", met
    for name, seconds in found.get("hang-ups", {}).items():
        yield f"hang-up noticed, {name}: {seconds:.2f} s, at most {NOTICED_S:g} wanted", seconds <= NOTICED_S
    if line := found.get("overtakings"):
        said = f"{line['overtakings']} overtakings of {line['requests']} requests, the longest wait"
        yield f"{said} {line['longest_wait_s']:.1f} s", line["overtakings"] == 0 and line["ok"] == line["requests"]


def main() -> int:
    """Measure, print, and say by the exit status whether everything is as promised."""
    options = _options()
    files_for(OPEN * 4)
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(_measure(options, Path(folder)))
    told = list(lines(found))
    for sentence, met in told:
        print(f"  {'      ' if met is None else 'met   ' if met else 'MISSED'} {sentence}")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(met is not False for _, met in told) else 1


if __name__ == "__main__":
    sys.exit(main())
