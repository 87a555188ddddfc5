"""Clients in a process of their own, so that what they cost is not the measurer's."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Asking:
    """A process that asks."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def stop(self) -> None:
        """Ask for nothing new once there were enough requests; what is open is still waited for."""
        if self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once, its streams cut."""
        if self._process.returncode is None:
            self._process.kill()


class Clients(Asking):
    """`tests.load.run` as a process, from the moment on that it begins to ask."""

    @staticmethod
    async def begin(addresses: list[str], *groups: dict[str, Any], least: int = 0) -> Clients:
        """Begin to ask; it returns once the first request goes out. The groups are those of `run.Group`."""
        options = [word for group in groups for word in ("--group", json.dumps(group))]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.load.run", *addresses, *options, "--least", str(least)),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            limit=2**24,
        )
        assert process.stdout is not None
        if await process.stdout.readline() != b"begun\n":
            raise RuntimeError("the clients did not begin")
        return Clients(process)

    async def end(self) -> dict[str, Any]:
        """Wait for the last stream; returns the tally."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        await self._process.wait()
        if not line:
            raise RuntimeError(f"the clients ended with {self._process.returncode}")
        numbers: dict[str, Any] = json.loads(line)
        return numbers
