"""`python -m benchmarks.gpu run | report`: the engine on this machine's GPUs, and the tables and pictures of a run."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu import plan, report, steps
from benchmarks.gpu.driver import Driver, Setting
from benchmarks.gpu.steps import Step

# Which lane makes what, so that two GPUs are both busy. What needs the engine, which may be on its way, comes last.
_BEFORE_ONE = (("make", "quantize", "expand to fp8", "expand to bf16", "tune"),)
_BEFORE_TWO = (("make", "quantize", "expand to fp8"), ("tune", "expand to bf16"))


def _run(options: argparse.Namespace) -> int:
    gpus = options.gpus or _gpus()
    if not options.engine_ready and options.device == "cuda" and not options.command and find_spec("vllm") is None:
        raise SystemExit(f"there is no vllm in {sys.executable}: run this with the Python of a serving image")
    options.results.mkdir(parents=True, exist_ok=True)
    setting = Setting(
        work=options.work.resolve(),
        results=options.results.resolve(),
        gpus=gpus,
        ends=time.monotonic() + options.seconds,
        engine_ready=options.engine_ready,
        device=options.device,
        scale=options.scale,
        words=(options.first_word, options.last_word),
        commands=dict(text.split("=", 1) for text in options.command),
    )
    machine = {"machine": _machine(), "seconds": options.seconds, "gpus": gpus}
    with (options.results / "rows.jsonl").open("a") as file:
        file.write(json.dumps(machine) + "\n")
    lanes = plan.lanes(gpus)
    before = [list(names) for names in (_BEFORE_TWO if gpus > 1 else _BEFORE_ONE)]
    for text in options.form:
        name, command = text.split("=", 1)
        form = Step(f"make {name}", command, name, ("nvfp4",))
        lanes[-1].insert([s.name for s in lanes[-1]].index(plan.BASE) + 1, plan.of_form(name))
        before[-1].append(form.name)
        steps.STEPS += (form,)
    lanes = [
        [session for session in lane if session.name in (options.only or [session.name])
         and session.name not in options.without]
        for lane in lanes
    ]  # fmt: skip
    Driver(setting).run(before, lanes)
    return 0


def _report(options: argparse.Namespace) -> int:
    if options.raw:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report.collect(options.raw), indent=1) + "\n")
    documents = {path.stem: json.loads(path.read_text()) for path in (options.json, *options.others)}
    page = options.docs / "benchmarks.md"
    page.write_text(report.fill(page.read_text(), documents))
    for name, svg in report.pictures(list(documents.values())).items():
        (options.docs / "benchmarks").mkdir(exist_ok=True)
        (options.docs / "benchmarks" / name).write_text(svg)
    return 0


def _gpus() -> int:
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as e:
        raise SystemExit(f"nvidia-smi tells of no GPU here ({e}): run this where one is, or give --gpus") from None
    return min(2, len(told.splitlines()))


def _machine() -> dict[str, str]:
    """The device's name and what drives it."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False)
        gpu = (told.stdout or told.stderr).strip()[-500:]
    except OSError as e:
        gpu = str(e)
    found = {"python": platform.python_version(), "gpu": gpu}
    for package in ("vllm", "torch", "triton", "transformers"):
        with suppress(metadata.PackageNotFoundError):  # the engine's may come later
            found[package] = metadata.version(package)
    return found


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="measure on this machine's GPUs")
    run.add_argument("--work", type=Path, required=True, help="checkpoints and caches, 45 GiB")
    run.add_argument("--results", type=Path, required=True, help="rows.jsonl and logs")
    run.add_argument("--seconds", type=float, default=3600, help="when to end (default 3600)")
    run.add_argument("--gpus", type=int, default=0, choices=(0, 1, 2), help="how many to use (default: all, at most 2)")
    run.add_argument("--engine-ready", type=Path, metavar="FILE", help="do not start engines before this file is there")
    run.add_argument(
        "--command", action="append", default=[], metavar="STEP=COMMAND", help="another command for a step"
    )
    run.add_argument("--form", action="append", default=[], metavar="NAME=COMMAND",
                     help="measure another form of the checkpoint; the command makes {NAME} of {nvfp4}")  # fmt: skip
    run.add_argument("--only", action="append", metavar="SESSION", help="this session alone; can be repeated")
    run.add_argument("--without", action="append", default=[], metavar="SESSION", help="not this one; can be repeated")
    run.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help=argparse.SUPPRESS)
    run.add_argument("--scale", type=int, default=1, help="divide the number of requests, for a try-out")
    run.add_argument("--first-word", type=int, default=100, help=argparse.SUPPRESS)
    run.add_argument("--last-word", type=int, default=130_000, help=argparse.SUPPRESS)
    run.set_defaults(act=_run)
    told = commands.add_parser("report", help="renew docs/benchmarks.md and its pictures")
    told.add_argument("json", type=Path, help="the document, such as benchmarks/results/nvidia-h200.json")
    told.add_argument("others", type=Path, nargs="*",
                      help="of other runs that the page has tables of; of each start the last is drawn")  # fmt: skip
    told.add_argument("--raw", type=Path, metavar="DIR", help="a run's results, of which the document is made first")
    told.add_argument("--docs", type=Path, default=Path("docs"), help="where benchmarks.md is (default docs)")
    told.set_defaults(act=_report)
    options = parser.parse_args()
    code: int = options.act(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
