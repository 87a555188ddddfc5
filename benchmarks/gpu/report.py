"""A run's results as one JSON document, and that document as the tables and pictures of docs/benchmarks.md."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import greedy, picture, plan, server

# The reference of a comparison of answers, and what is compared with it.
COMPARED = (
    ("card nvfp4", "ours fp8 best"),
    ("card nvfp4", "ours nvfp4"),
    ("card nvfp4", "ours bf16"),
    ("ours bf16", "ours nvfp4"),
    ("plain bf16", "card nvfp4"),
    ("ours fp8", "fp8 one artifact warm"),
)
PAIRS = ("card nvfp4", "plain bf16", "ours nvfp4", "ours bf16", "ours fp8", "ours fp8 best")
LOADS = ("1 x 128/128", "8 x 128/128", "32 x 128/128", "100 x 128/128", "250 x 128/128", "1000 x 128/128",
         "256 x 128/1024", "32 x 4096/128", "250 x 128/128 sampled")  # fmt: skip
KNOB_LOADS = (
    "250 x 128/128",
    "256 x 128/1024",
    "32 x 4096/128",
    "1000 x 128/128",
    *(load.name for load in plan.PADDED),
)
STARTS = ("card nvfp4", "fp8 cold", "fp8 warm", "fp8 one artifact warm")
_TUNED = re.compile(r"^\s*(\d+)\s+([\d.]+)\s+(\d+)\s+([\d.]+)\s+(\d+)\s+([\d.]+)\s+(\d+) rows, (\d+) warps, (\S+)$")
# Inside of JSON strings, so that names of files stay.
_FOLDERS = re.compile(r"(?<![\w.])/(?:[\w.+-]+/)+")
_BLOCK = re.compile(r"(<!-- table: ([a-z-]+)(?: of ([\w-]+))? -->\n).*?(<!-- end -->)", re.DOTALL)


def collect(folder: Path) -> dict[str, Any]:
    """The document of a run's folder: rows.jsonl, greedy answers. Raises `OSError` where they are not there.

    Of what was begun again, the last attempt counts. Folders of the machine that measured are left out.
    """
    rows = [json.loads(_FOLDERS.sub("", line)) for line in (folder / "rows.jsonl").read_text().splitlines()]
    machine = next(row["machine"] for row in reversed(rows) if "machine" in row)
    loads: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if "load" in row:
            loads.setdefault(row["of"], {})[row["load"]] = {k: v for k, v in row.items() if k not in ("of", "at")}
    sessions = {row["session"]: row for row in rows if "session" in row}
    steps = {row["step"]: {k: v for k, v in row.items() if k != "command"} for row in rows if "step" in row}
    return {
        "device": machine["gpu"].splitlines()[0].split(",")[0],
        "date": time.strftime("%Y-%m-%d", time.gmtime(rows[-1]["at"])),
        "machine": machine,
        "steps": list(steps.values()),
        "tuned": _tuned(list(steps.values())),
        "sessions": [
            {**row, "phases": _phases(folder, row), "loads": list(loads.get(name, {}).values())}
            for name, row in sessions.items()
            if "error" not in row
        ],
        "failed": {name: row["error"] for name, row in sessions.items() if "error" in row},
        "answers": _answers(folder),
    }


def _phases(folder: Path, row: Mapping[str, Any]) -> dict[str, float]:
    """Out of the log where it was kept."""
    lines = server.read_log(folder / "logs" / f"serve-{row['session'].replace(' ', '-')}.log")
    told: dict[str, float] = row.get("phases", {})
    return server.phases(lines, row.get("ready_seconds", 0.0)) if lines else told


def _tuned(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for line in (line for step in steps if step["step"] == "tune" for line in step["output"]):
        if match := _TUNED.match(line):
            names = ("sequences", "default_us", "default_gb_s", "tuned_us", "tuned_gb_s", "times", "rows", "warps")
            found.append({**dict(zip(names, map(float, match.groups()[:8]), strict=True)), "difference": match[9]})
    return sorted(found, key=lambda row: row["sequences"])


def _answers(folder: Path) -> list[dict[str, Any]]:
    files = {
        path.name.removesuffix(".json.gz").removeprefix("greedy-"): path for path in folder.glob("greedy-*.json.gz")
    }
    found = []
    for pair in COMPARED:
        reference, other = (files.get(name.replace(" ", "-")) for name in pair)
        if reference and other:
            told = greedy.compare(greedy.read(reference), greedy.read(other))
            found.append({"reference": pair[0], "other": pair[1], **told})
    return found


def speed(document: Mapping[str, Any], session: str, load: str, figure: str = "tokens_per_second") -> float | None:
    """One figure of one load; None where it was not measured."""
    for row in document["sessions"]:
        for measured in row["loads"]:
            if row["session"] == session and measured["load"] == load and not measured["failed"]:
                value = measured.get(figure)
                return None if value is None else float(value)
    return None


def tables(document: Mapping[str, Any]) -> dict[str, str]:
    """Markdown by the name under which docs/benchmarks.md has it."""
    return {
        "pairs": _pairs(document),
        "latency": _latency(document),
        "knobs": _knobs(document),
        "prefixes": _prefixes(document),
        "starts": _starts(document),
        "tuned": _kernel(document),
        "answers": _agreement(document),
        "memory": _memory(document),
        "steps": _steps(document),
    }


def fill(text: str, documents: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with each table renewed: of the document that it names, or of the first one; others stay as they are."""
    made = {name: tables(document) for name, document in documents.items()}
    first = next(iter(made))

    def renewed(match: re.Match[str]) -> str:
        name = match[3] or first
        return f"{match[1]}{made[name][match[2]]}\n{match[4]}" if name in made else match[0]

    return _BLOCK.sub(renewed, text)


def pictures(documents: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """SVG by file name: speeds of the first document, and of each start the last document's that has it."""
    document = documents[0]
    named = [name for name in PAIRS if speed(document, name, LOADS[4]) is not None]
    bars = [(load, [speed(document, name, load) for name in named]) for load in LOADS[2:8]]
    phases = {row["session"]: row["phases"] for told in documents for row in told["sessions"] if "phases" in row}
    starts = [(name, phases[name]) for name in STARTS if name in phases]
    return {
        "throughput.svg": picture.groups(f"{document['device']}: output tokens/s", named, bars),
        "start.svg": picture.stacks(f"{document['device']}: seconds from the process to a served request", starts),
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _times(value: float | None, of: float | None) -> str:
    return "-" if value is None or not of else f"{value / of:.2f}"


def _pairs(document: Mapping[str, Any]) -> str:
    named = [name for name in PAIRS if any(speed(document, name, load) is not None for load in LOADS)]
    ratios = [(ours, of) for ours in named if ours.startswith("ours fp8") for of in ("card nvfp4", "plain bf16")]
    rows = []
    for load in LOADS:
        values = {name: speed(document, name, load) for name in named}
        against = [_times(values[ours], values.get(of)) for ours, of in ratios]
        if any(value is not None for value in values.values()):
            rows.append([load, *(_number(values[name]) for name in named), *against])
    return _table(["load", *named, *(f"{ours} / {of}" for ours, of in ratios)], rows)


def _latency(document: Mapping[str, Any]) -> str:
    named = [name for name in PAIRS if any(speed(document, name, load) is not None for load in LOADS)]
    rows = []
    for load in LOADS[:-1]:
        cells = []
        for name in named:
            told = [speed(document, name, load, f"{of}_p{p}") for of in ("ttft_ms", "tpot_ms") for p in (50, 99)]
            shown = [_number(v, 1 if i > 1 else 0) for i, v in enumerate(told)]
            cells.append(f"{shown[0]} / {shown[1]}; {shown[2]} / {shown[3]}" if told[0] is not None else "-")
        rows.append([load, *cells])
    return _table(["TTFT p50 / p99; TPOT p50 / p99, ms", *named], rows)


def _knobs(document: Mapping[str, Any]) -> str:
    """Beside each figure how many times that it is of what nothing was changed in, on the same GPU."""
    sessions = [row for row in document["sessions"] if row["loads"] and row["by"] == "launcher"]
    rows = []
    for session in sorted(sessions, key=lambda row: row["gpu"]):
        given = _given(session)
        usual = [row["session"] for row in sessions if row["gpu"] == session["gpu"] and not _given(row)]
        cells = []
        for load in KNOB_LOADS:
            value = speed(document, session["session"], load)
            known = [found for name in usual if (found := speed(document, name, load)) is not None]
            against = f" ({_times(value, statistics.mean(known))})" if value and known and given else ""
            cells.append(f"{_number(value)}{against}")
        rows.append([session["session"], str(session["gpu"]), f"`{given}`" if given else "", *cells])
    return _table(["engine", "GPU", "changed", *KNOB_LOADS], rows)


def _given(session: Mapping[str, Any]) -> str:
    """What an engine has that one with an empty spec and FP8 has not."""
    given = [*([session["checkpoint"]] if session["checkpoint"] != "fp8" else []), *session["arguments"]]
    given += [f"{k} {v}" for k, v in session["intent"].items()]
    return " ".join([*given, *(f"{k}={v}" for k, v in session["environ"].items())])


def _prefixes(document: Mapping[str, Any]) -> str:
    figures = ("prefix_tokens_found", "ttft_ms_p50", "ttft_ms_p99", "tokens_per_second")
    rows = []
    for load in (wanted.name for wanted in plan.ALIKE):
        for session in document["sessions"]:
            values = [speed(document, session["session"], load, figure) for figure in figures]
            if values[0] is not None:
                rows.append([load, session["session"], *(_number(value) for value in values)])
    return _table(["load", "engine", "tokens found", "TTFT p50 ms", "p99", "tokens/s"], rows)


def _starts(document: Mapping[str, Any]) -> str:
    started = [session for session in document["sessions"] if "phases" in session]
    names = list(dict.fromkeys(name for session in started for name in session["phases"]))
    rows = [
        [session["session"], *(_number(session["phases"].get(name), 1) for name in names),
         f"**{session['ready_seconds']:.1f}**"]
        for session in started
    ]  # fmt: skip
    return _table(["engine", *names, "seconds"], rows)


def _kernel(document: Mapping[str, Any]) -> str:
    rows = [
        [f"{row['sequences']:.0f}", f"{row['default_us']:.1f}", _number(row["default_gb_s"]), f"{row['tuned_us']:.1f}",
         _number(row["tuned_gb_s"]), f"{row['times']:.2f}", f"{row['rows']:.0f} rows, {row['warps']:.0f} warps",
         row["difference"]]
        for row in document["tuned"]
    ]  # fmt: skip
    head = ["sequences", "default µs", "GB/s", "tuned µs", "GB/s", "times faster", "launch", "largest difference"]
    return _table(head, rows)


def _agreement(document: Mapping[str, Any]) -> str:
    names = ("first_token_agreement", "next_token_agreement", "whole_answers_equal", "first_token_kl_mean", "kl_mean",
             "kl_p99")  # fmt: skip
    rows = [[row["reference"], row["other"], *(f"{row[name]:g}" for name in names)] for row in document["answers"]]
    return _table(["reference", "other", *(name.replace("_", " ") for name in names)], rows)


def _memory(document: Mapping[str, Any]) -> str:
    rows = []
    for session in document["sessions"]:
        told = " ".join(session["facts"])
        found = [
            re.search(pattern, told)
            for pattern in (
                r"Model loading took ([\d.]+) GiB",
                r"Available KV cache memory: ([\d.]+) GiB",
                r"GPU KV cache size: ([\d,]+) tokens",
                r"attention block size to (\d+)",
                r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x",
            )
        ]
        if session["session"] in PAIRS and found[0]:
            rows.append([session["session"], *(match[1] if match else "-" for match in found)])
    return _table(["engine", "weights GiB", "KV cache GiB", "KV tokens", "block", "times 65,536 tokens"], rows)


def _steps(document: Mapping[str, Any]) -> str:
    rows = [
        [step["step"], f"{step['seconds']:.1f}", f"{step['bytes'] / 2**30:.2f}" if step.get("bytes") else "",
         _number(step["host_memory_mib"] / 1024, 1), _number(step["gpu_memory_mib"] / 1024, 1)]
        for step in document["steps"]
    ]  # fmt: skip
    return _table(["step", "seconds", "GiB written", "host memory GiB", "GPU memory GiB"], rows)
