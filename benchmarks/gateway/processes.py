"""Engines in processes of their own, and what a tree of processes has used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_TICK = os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def engine(*options: str) -> AsyncIterator[int]:
    """A fake engine in a process of its own, by its port."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.gateway.engine", *options), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()


def tree(pid: int) -> list[int]:
    """A process and all that come from it."""
    found, new = [], [pid]
    while new:
        found += new
        new = [child for parent in new for child in _children(parent)]
    return found


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def cpu(pid: int) -> float:
    """Seconds of CPU that the tree has used, less what its ended processes have, in steps of the kernel's clock."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICK


def memory(pid: int) -> tuple[float, float]:
    """MB of the tree: resident, of which pages that several have are counted once; and resident in its largest."""
    shared, largest = 0, 0
    for process in tree(pid):
        with contextlib.suppress(OSError):
            numbers = dict(
                line.split()[:2] for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
            )
            shared += int(numbers["Pss:"])
            largest = max(largest, int(numbers["Rss:"]))
    return shared * 1024 / 1e6, largest * 1024 / 1e6
