"""What comes before the engines, each a command: checkpoint, quantization, expansions, tuned kernel."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu import server

_TAIL_LINES = 60


@dataclass(frozen=True)
class Step:
    """One command. `makes` is the folder that it writes; `needs` are folders that must be whole before it begins."""

    name: str
    command: str
    makes: str
    needs: tuple[str, ...] = ()
    needs_engine: bool = False
    seconds: int = 300


# {python} and {CHECKPOINT} are replaced; a checkpoint's folder is named as in the plan.
STEPS: tuple[Step, ...] = (
    Step("make", "{python} -m benchmarks.gpu.model {bf16}", "bf16"),
    Step("quantize", "{python} -m falcon_quantize {bf16} --out {nvfp4} --device cuda", "nvfp4", ("bf16",)),
    Step("tune", "{python} -m falcon_tune --out {tuned}", "tuned", needs_engine=True, seconds=120),
    Step("expand to fp8", "{python} -m falcon_weights.expand {nvfp4} {fp8} --format fp8", "fp8", ("nvfp4",)),
    Step("expand to bf16", "{python} -m falcon_weights.expand {nvfp4} {bf16-expanded} --format bf16",
         "bf16-expanded", ("nvfp4",)),
)  # fmt: skip


def run(step: Step, command: str, makes: Path, gpu: int, environ: Mapping[str, str], log: Path) -> dict[str, Any]:
    """Run the command on one GPU; a row with its time, its memory, and the size of what it made."""
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            command, shell=True, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **environ}
        )
        peak = _Peak(process.pid, gpu)
        try:
            code = process.wait(step.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        gpu_mib, host_mib = peak.end()
    row = {
        "step": step.name,
        "command": command,
        "exit_code": code,
        "seconds": round(time.monotonic() - began, 1),
        "gpu_memory_mib": gpu_mib,
        "host_memory_mib": host_mib,
        "output": log.read_text(errors="replace").replace("\r", "\n").splitlines()[-_TAIL_LINES:],
    }
    if makes.is_dir():
        row["bytes"] = sum(path.stat().st_size for path in makes.rglob("*.safetensors"))
    return row


class _Peak:
    """Most memory of the GPU and of a process with its children, looked at twice a second."""

    def __init__(self, pid: int, gpu: int) -> None:
        self._pid, self._gpu = pid, gpu
        self._before = server.memory_used_mib(gpu)
        self._most = (0, 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            gpu = server.memory_used_mib(self._gpu) - self._before
            self._most = (max(self._most[0], gpu), max(self._most[1], _resident_mib(self._pid)))

    def end(self) -> tuple[int, int]:
        self._ended.set()
        self._thread.join(5)
        return self._most


def _resident_mib(root: int) -> int:
    """Anonymous memory of a process and its descendants: not the page cache of the files that it maps."""
    family, parents = {root}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0
    for pid in family:
        with suppress(OSError, ValueError, IndexError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1])
    return total >> 10
