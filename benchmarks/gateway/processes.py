"""Processes of a run: engines, loads, and what a tree of processes has used."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_TICK = os.sysconf("SC_CLK_TCK")


async def _python(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT, limit=2**24
    )


@contextlib.asynccontextmanager
async def engine(*options: str) -> AsyncIterator[int]:
    """A fake engine in a process of its own, by its port."""
    process = await _python("benchmarks.gateway.engine", *options)
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()


class Load:
    """Clients in a process of their own, from the moment on that they begin."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @staticmethod
    async def begin(addresses: list[str], *groups: dict[str, Any], seconds: float | None = None) -> Load:
        """Begin to ask; it returns once the first request goes out."""
        options = [word for group in groups for word in ("--group", json.dumps(group))]
        if seconds is not None:
            options += ["--seconds", str(seconds)]
        process = await _python("tests.load.run", *addresses, *options)
        assert process.stdout is not None
        if await process.stdout.readline() != b"begun\n":
            raise RuntimeError("the clients did not begin")
        return Load(process)

    async def end(self) -> dict[str, Any]:
        """Wait for the last stream; returns the tally."""
        assert self._process.stdout is not None
        numbers: dict[str, Any] = json.loads(await self._process.stdout.readline())
        await self._process.wait()
        return numbers

    def stop(self) -> None:
        """Ask for nothing new; what is open is still waited for."""
        if self._process.returncode is None:
            self._process.terminate()


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
