"""What is looked at before a run begins: the place of the result, disk, memory, and where to compute."""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from falcon_quantize.plan import Plan
from falcon_quantize.refusal import Refusal
from falcon_quantize.result import REPORT
from falcon_quantize.work import partial

_GIB = 1 << 30
_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
# On a GPU a slice takes what it takes on the host, beside the weights of one group and torch's own share.
_GPU_BYTES = 4 << 30


def is_made(out: Path, key: Mapping[str, Any]) -> bool:
    """Whether `out` is what this run would make; raise `Refusal` where it is anything else."""
    try:
        report = json.loads((out / REPORT).read_text())
    except (OSError, ValueError):
        report = {}
    if isinstance(report, dict) and report.get("key") == key:
        shutil.rmtree(partial(out), ignore_errors=True)
        return True
    if out.exists() or out.is_symlink():
        raise Refusal(f"{out} exists already and is not what this run would make. Remove it, or name another --out.")
    return False


def place(source: Path, out: Path) -> None:
    """Refuse a place that cannot be written to, or that is inside the source."""
    parent = out.parent
    if not parent.is_dir():
        raise Refusal(f"{parent} is not a directory. Make it, or name another --out.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise Refusal(f"User {os.getuid()} may not write to {parent}. Change its permissions, or name another --out.")
    if out.resolve().is_relative_to(source.resolve()):
        raise Refusal(f"{out} is inside the source {source}, which is left as it is. Name another --out.")


def disk(plan: Plan, out: Path) -> None:
    """Refuse where the result does not fit, with what an earlier run wrote counted as there."""
    there = sum(path.stat().st_size for path in partial(out).rglob("*") if path.is_file())
    needed, free = max(0, plan.disk_bytes - there), shutil.disk_usage(out.parent).free
    if needed > free:
        raise Refusal(
            f"{out.parent} has {free / _GIB:.2f} GiB free and the result needs {needed / _GIB:.2f} GiB. "
            "Make room, or name an --out on another disk."
        )


def memory(plan: Plan) -> None:
    """Refuse where the host, or the container's limit, has too little memory."""
    available, whose = available_memory()
    if plan.memory_bytes > available:
        raise Refusal(
            f"{whose} has {available / _GIB:.1f} GiB of memory, this needs up to {plan.memory_bytes / _GIB:.1f} GiB. "
            "Give it more, or make smaller files with --shard-size."
        )


def available_memory() -> tuple[int, str]:
    """The bytes that can be had, and whose limit that is."""
    found = [(int(line.split()[1]) * 1024, "the machine") for line in _meminfo() if line.startswith("MemAvailable:")]
    for path in _CGROUPS:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # "max" where there is no limit
            found.append((int(text), "the container"))
    return min(found, default=(1 << 62, "the machine"))


def _meminfo() -> list[str]:
    try:
        return Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return []


def device(wanted: str) -> str:
    """`cpu` or `cuda`, whichever is wanted and can be used."""
    if wanted == "cpu":
        return wanted
    import torch

    if not torch.cuda.is_available():
        if wanted == "auto":
            return "cpu"
        raise Refusal("--device cuda: torch finds no GPU here. Use --device cpu, or give the container a GPU.")
    free, _ = torch.cuda.mem_get_info()
    if free < _GPU_BYTES:
        if wanted == "auto":
            return "cpu"
        raise Refusal(
            f"--device cuda: the GPU has {free / _GIB:.1f} GiB free and this needs {_GPU_BYTES / _GIB:.0f}. "
            "End what uses it, or use --device cpu."
        )
    return "cuda"
