"""One engine process for a benchmark: started, timed by the phases that its log tells, and ended without a survivor."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

# Marks every process that one server starts.
MARK = "FALCON_BENCHMARK_SERVER"
# The log line that ends each phase of a start, in order; of several, the first one after the phase before counts.
PHASES = (
    ("imports of the API server", "non-default args"),
    ("configuration", "Asynchronous scheduling is"),
    ("imports of the engine core", "Initializing a V1 LLM engine"),
    ("weights", "Model loading took"),
    ("torch.compile", "torch.compile took"),
    ("Mamba warm-up", "Initial profiling/warmup run took"),
    ("sampler", "Mamba SSU backend"),
    ("graph-memory profiling", "Available KV cache memory"),
    ("CUDA graphs", "Graph capturing finished"),
)
# What the engine says of itself that belongs into a result.
FACTS = (
    "Model loading took",
    "Available KV cache memory",
    "GPU KV cache size",
    "Maximum concurrency",
    "Setting attention block size",
    "Padding mamba",
    "Graph capturing finished",
    "Using SSM config",
    "Using default Mamba SSU",
    "attention backend out of",
    "torch.compile took",
    "for NVFP4 GEMM",
    "LinearKernel",
    "LinearMethod",
    "Mamba SSU backend",
    "falcon: ",
)
_MAX_FACTS = 60
# Tokens of prompts that were found in the cache, and that were looked for.
HITS, ASKED = "prefix_cache_hits_total", "prefix_cache_queries_total"


class Died(RuntimeError):
    """The engine ended before it served, or did not serve in time; the message has its last lines."""


class Server:
    """`command` with `environ` on top of this process's own; its output goes to `log`, each line with its second."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], port: int, log: Path) -> None:
        self.name, self.port, self.log = name, port, log
        self.began = time.monotonic()
        self.ready_seconds = 0.0
        self._mark = f"{name}-{os.getpid()}-{time.time_ns()}"
        self._lines: list[tuple[float, str]] = []
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **environ, MARK: self._mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._seen: set[int] = set()
        self._pump = threading.Thread(target=self._read, daemon=True)
        self._pump.start()

    def _read(self) -> None:
        assert self._process.stdout
        with self.log.open("w") as file:
            for raw in self._process.stdout:
                at, text = time.monotonic() - self.began, raw.decode("utf-8", "replace").rstrip()
                self._lines.append((at, text))
                file.write(f"{at:8.2f} {text[:2000]}\n")

    def wait_until_ready(self, seconds: float) -> None:
        """Until /health answers 200."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise Died(f"exit code {self._process.returncode}: {self.errors()}")
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2) as answer:
                if answer.status == 200:
                    self.ready_seconds = time.monotonic() - self.began
                    self._alive()
                    return
            time.sleep(0.1)
        raise Died(f"not ready after {seconds:.0f} s: {self.errors()}")

    def errors(self) -> str:
        """The last lines that tell of an error, or else the last lines."""
        lines = [text for _, text in self._lines]
        told = [text for text in lines if "Error" in text or "error:" in text]
        return " | ".join(text[:300] for text in (told or lines)[-6:])

    def phases(self) -> dict[str, float]:
        """Seconds of each phase so far."""
        return phases(self._lines, self.ready_seconds)

    def facts(self) -> list[str]:
        """The engine's own words on memory, kernels and graphs."""
        found = []
        for _, text in self._lines:
            if any(fact in text for fact in FACTS):
                found.append(text.partition("] ")[2][:300] if "] " in text else text[:300])
        return list(dict.fromkeys(found))[:_MAX_FACTS]

    def metrics(self) -> dict[str, float]:
        """Counters that tell of trouble or of help."""
        wanted = tuple(f"vllm:{name}" for name in ("num_preemptions_total", HITS, ASKED, "generation_tokens_total"))
        found: dict[str, float] = {}
        with suppress(OSError, ValueError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
            for line in text.splitlines():
                if line.startswith(wanted):
                    name = line.partition("{")[0].removeprefix("vllm:")
                    found[name] = found.get(name, 0.0) + float(line.split()[-1])
        return found

    def post(self, path: str, body: Mapping[str, Any], seconds: float = 120) -> Any:
        """One request; the parsed answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return json.load(answer)

    def _alive(self) -> set[int]:
        """Living processes that the server started: by the mark, by descent, or seen as such before."""
        processes, wanted = _processes(), f"{MARK}={self._mark}".encode()
        if self._process.poll() is None:
            self._seen.add(self._process.pid)
        self._seen |= {pid for pid, (_, environ) in processes.items() if wanted in environ.split(b"\0")}
        while more := {pid for pid, (parent, _) in processes.items() if parent in self._seen} - self._seen:
            self._seen |= more
        self._seen &= set(processes)
        return set(self._seen)

    def stop(self, seconds: float = 20) -> float:
        """SIGTERM, then SIGKILL for whatever is left. The result is how long it took."""
        began = time.monotonic()
        self._alive()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        while alive := self._alive():
            if time.monotonic() - began > seconds:
                for pid in alive:
                    with suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
            if time.monotonic() - began > seconds + 20:
                raise Died(f"{self.name} cannot be ended")
            self._process.poll()
            time.sleep(0.1)
        self._process.wait()
        self._pump.join(5)
        return time.monotonic() - began


def phases(lines: Sequence[tuple[float, str]], ready: float) -> dict[str, float]:
    """Seconds of each phase of a start, by a log's lines with their seconds; `ready` is 0 where it never was.

    Phases that the log does not tell are part of the next one.
    """
    found: dict[str, float] = {}
    before = 0.0
    for name, marker in PHASES:
        at = next((t for t, text in lines if marker in text and before <= t <= (ready or t)), None)
        if at is not None:
            found[name] = round(at - before, 1)
            before = at
    if ready:
        found["to ready"] = round(ready - before, 1)
    return found


def read_log(log: Path) -> list[tuple[float, str]]:
    """The lines of an engine's log, each with its second; none where there is no log."""
    if not log.exists():
        return []
    found = (re.match(r" *(\d+\.\d\d) (.*)", line) for line in log.read_text().split("\n"))
    return [(float(match[1]), match[2]) for match in found if match]


def _processes() -> dict[int, tuple[int, bytes]]:
    """Parent and environment of every process that is no zombie. A program that names itself loses its environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                found[int(folder.name)] = (int(parent), (folder / "environ").read_bytes())
    return found


def memory_used_mib(gpu: int) -> int:
    """What the GPU holds; 0 where there is none."""
    command = ["nvidia-smi", "-i", str(gpu), "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return 0
    return int(told) if told.isdigit() else 0
