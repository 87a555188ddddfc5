"""Runs the plan on one machine's GPUs, each with its own lane of sessions, until the time is over; resumable."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.gpu import greedy, load, server, steps
from benchmarks.gpu.load import Load
from benchmarks.gpu.plan import Session, winning
from benchmarks.gpu.server import Died, Server
from falcon_engine.intent import Intent, Source

MODEL = "falcon-h1r-7b-nvfp4"
# What a resource without any field asks of the engine; a test keeps it equal to what the operator renders.
DEFAULTS: dict[str, Any] = {
    "device": "cuda",
    "version": None,
    "names": (MODEL,),
    "checkpoint": "Repair",
    "compute_format": "NVFP4",  # the checkpoint's own: each form is measured by itself
    "max_model_len": 65536,
    "max_num_seqs": 256,
    "fit": "Clamp",
    "gpu_memory_utilization": 0.88,
    "kv_cache_dtype": "fp8",
    "prefix_caching": True,
    "cuda_graph_mode": "FULL_AND_PIECEWISE",
    "reasoning_parser": None,
    "tool_call_parser": None,
    "queue_requests": None,
    "queue_tokens": None,
    "gpu_resource": "nvidia.com/gpu",
    "tensor_parallel_size": 1,
    "canary": True,
    "drain_timeout_seconds": 5,
    "extra_args": (),
}
# Of a load, where the time is nearly over.
LEAST_LEFT = 25.0
WARM = Load(64, 128, 128, 16)
WARM_PROMPTS = Load(8, 16, 4096, 4)


@dataclass(frozen=True)
class Setting:
    """Where a run works, and with what."""

    work: Path
    results: Path
    gpus: int
    ends: float  # of time.monotonic()
    python: str = sys.executable
    command: tuple[str, ...] = ("-P", "-m", "vllm.entrypoints.cli.main")
    launcher: tuple[str, ...] = ("-m", "benchmarks.gpu.launch")
    device: str = "cuda"
    words: tuple[int, int] = (100, 130_000)
    engine_ready: Path | None = None
    scale: int = 1  # requests are divided by it, for a try-out
    commands: Mapping[str, str] | None = None

    def checkpoint(self, name: str) -> Path:
        """A checkpoint's folder, or that of the tuned files."""
        return self.work / ("cache" if name == "tuned" else "checkpoints") / name


class Driver:
    """One run. Everything it finds is a line of results/rows.jsonl at once."""

    def __init__(self, setting: Setting) -> None:
        self._at = setting
        self._lock = threading.Lock()
        self._rows = setting.results / "rows.jsonl"
        self._logs = setting.results / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._done = self._read_done()
        self._made: dict[str, threading.Event] = {step.makes: threading.Event() for step in steps.STEPS}
        self._failed: set[str] = set()
        self._served: set[str] = set()
        self._useless: set[str] = set()

    @property
    def left(self) -> float:
        """Seconds until the run is over."""
        return self._at.ends - time.monotonic()

    def run(self, before: Sequence[Sequence[str]], lanes: Sequence[Sequence[Session]]) -> None:
        """Run each lane's steps and then its sessions, all lanes at once."""
        with ThreadPoolExecutor(len(lanes)) as pool:
            for future in [pool.submit(self._lane, gpu, before[gpu], lane) for gpu, lane in enumerate(lanes)]:
                future.result()
        self._say("everything is done")

    def _lane(self, gpu: int, before: Sequence[str], sessions: Sequence[Session]) -> None:
        # What one lane compiles is not to slow the other one's start down: each has its part of the processors.
        processors = sorted(os.sched_getaffinity(0))
        share = max(1, len(processors) // self._at.gpus)
        os.sched_setaffinity(0, processors[gpu * share : (gpu + 1) * share] or processors)
        try:
            for name in before:
                self._step(gpu, next(step for step in steps.STEPS if step.name == name))
            self._wait_for_engine()
            for session in sessions:
                self._session(gpu, session)
        except Exception as e:  # a lane's end must not take the other one along
            self._say(f"lane {gpu} ended by {type(e).__name__}: {e}")
            self._put({"lane": gpu, "error": f"{type(e).__name__}: {e}"})
            raise

    def _step(self, gpu: int, step: steps.Step) -> None:
        made, mark = self._at.checkpoint(step.makes), self._at.checkpoint(f".{step.makes}.done")
        if step.needs_engine:
            self._wait_for_engine()
        for need in step.needs:
            self._made[need].wait(max(1.0, self.left))
        lacks = [need for need in step.needs if need in self._failed]
        if not mark.exists() and not lacks:
            made.parent.mkdir(parents=True, exist_ok=True)
            folders = {name: str(self._at.checkpoint(name)) for name in self._made}
            template = (self._at.commands or {}).get(step.name, step.command)
            command = template.format(python=self._at.python, **folders)
            self._say(f"{step.name}: {command}")
            log = self._logs / f"step-{step.name.replace(' ', '-')}.log"
            row = steps.run(step, command, made, gpu, self._environ(gpu, ""), log)
            self._say(
                f"{step.name}: exit code {row['exit_code']} after {row['seconds']} s, {row.get('bytes', 0)} bytes"
            )
            self._put(row)
            if row["exit_code"] == 0:
                mark.touch()
        if not mark.exists():
            self._failed.add(step.makes)
        self._made[step.makes].set()

    def _wait_for_engine(self) -> None:
        while self._at.engine_ready and not self._at.engine_ready.exists() and self.left > 0:
            time.sleep(0.2)

    def _session(self, gpu: int, session: Session) -> None:
        if session.name in self._done:
            return
        event = self._made.get(session.checkpoint)
        if event:
            event.wait(max(1.0, self.left))
        if session.by == "launcher":
            session = replace(session, checkpoint=self._working(session.checkpoint))
        if session.checkpoint in self._failed:
            return self._say(f"{session.name}: there is no {session.checkpoint}")
        if self.left < session.seconds:
            return self._say(f"{session.name}: {self.left:.0f} s are left, {session.seconds} are needed")
        self._settle(gpu)
        if session.combine:
            session = replace(session, arguments=(*session.arguments, *winning(self._read_rows())))
        environ = {**self._environ(gpu, session.cache), **session.environ}
        port = 8100 + 100 * gpu + len(self._done)
        command, told = self._command(session, port)
        row: dict[str, Any] = {
            "session": session.name,
            "gpu": gpu,
            "checkpoint": session.checkpoint,
            "by": session.by,
            "arguments": list(session.arguments),
            "intent": dict(session.intent),
            "environ": dict(session.environ),
        }
        self._say(f"{session.name}: starting on GPU {gpu}")
        engine = Server(session.name, command, {**environ, **told}, port, self._log_of(session))
        cut = threading.Timer(max(1.0, self.left), engine.stop, (5,))
        cut.daemon = True
        cut.start()
        try:
            engine.wait_until_ready(min(2.0 * session.seconds, max(1.0, self.left)))
            self._served.add(session.checkpoint)
            row |= {"ready_seconds": round(engine.ready_seconds, 1), "phases": engine.phases()}
            self._say(f"{session.name}: ready in {engine.ready_seconds:.1f} s {engine.phases()}")
            self._measure(engine, session, row)
            self._done.add(session.name)
        except (Died, OSError, ValueError, KeyError) as e:
            row["error"] = f"{type(e).__name__}: {e}"[:2000]
            if session.checkpoint not in self._served and session.by == "launcher":
                self._useless.add(session.checkpoint)
            self._say(f"{session.name}: {row['error']}")
        finally:
            cut.cancel()
            row |= {"facts": engine.facts(), "metrics": engine.metrics()}
            row["stop_seconds"] = round(engine.stop(), 1)
            self._put(row)

    def _working(self, checkpoint: str) -> str:
        """The checkpoint, or else another form of it where no engine has started with this one."""
        bad = self._useless | self._failed
        if checkpoint not in bad:
            return checkpoint
        others = [name for name in self._made if name.startswith(f"{checkpoint}-")] + ["bf16-expanded"]
        return next((name for name in others if self._made[name].is_set() and name not in bad), checkpoint)

    def _measure(self, engine: Server, session: Session, row: dict[str, Any]) -> None:
        row["memory_mib"] = server.memory_used_mib(row["gpu"])
        first = time.monotonic()
        self._load(engine, Load(1, 1, 128, 2), 0)
        row["first_answer_seconds"] = round(time.monotonic() - first, 2)
        self._load(engine, WARM, 1)
        if any(wanted.prompt > 1000 for wanted in session.loads):
            self._load(engine, WARM_PROMPTS, 2)
        for number, wanted in enumerate(session.loads):
            if self.left < LEAST_LEFT:
                row["cut"] = True
                return
            measured = self._load(engine, wanted, 10 + number)
            self._put({"of": session.name, "load": wanted.name, **measured})
            shown = {k: measured.get(k) for k in ("tokens_per_second", "ttft_ms_p50", "tpot_ms_p50", "failed")}
            self._say(f"{session.name}: {wanted.name} {shown}")
            if number == 0 and session.greedy:
                self._greedy(engine, session)

    def _greedy(self, engine: Server, session: Session) -> None:
        file = self._at.results / f"greedy-{session.name.replace(' ', '-')}.json.gz"
        try:
            greedy.capture(engine, MODEL, self._at.words, file, greedy.PROMPTS // self._at.scale)
        except (OSError, ValueError, LookupError, TypeError) as e:  # the loads matter more
            self._put({"of": session.name, "greedy": f"{type(e).__name__}: {e}"[:500]})
            self._say(f"{session.name}: no greedy answers: {e!r}")

    def _load(self, engine: Server, wanted: Load, seed: int) -> dict[str, Any]:
        if self._at.scale > 1:
            few = max(1, wanted.requests // self._at.scale)
            wanted = replace(
                wanted, concurrency=min(wanted.concurrency, few), requests=few, answer=min(wanted.answer, 32)
            )
        before = engine.metrics()
        row = load.run(engine.port, MODEL, wanted, seed, self._at.words)
        after = engine.metrics()
        found, asked = (after.get(name, 0.0) - before.get(name, 0.0) for name in (server.HITS, server.ASKED))
        return {**row, "prefix_tokens_found": found, "prefix_tokens_asked": asked}

    def _command(self, session: Session, port: int) -> tuple[list[str], dict[str, str]]:
        """The command line, and what the environment tells on top."""
        directory = str(self._at.checkpoint(session.checkpoint))
        if session.by == "vllm":
            chosen = ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)]
            quiet = ["--disable-uvicorn-access-log"]
            return [self._at.python, *self._at.command, "serve", directory, *chosen, *quiet, *session.arguments], {}
        values = {**DEFAULTS, "device": self._at.device, **session.intent}
        values |= {"port": port, "source": Source(kind="baked", path=directory), "extra_args": session.arguments}
        known = {field.name for field in fields(Intent)}
        intent = Intent(**{name: value for name, value in values.items() if name in known})
        report = {"FALCON_REPORT_PORT": str(port + 1000), "FALCON_TERMINATION_LOG": str(self._at.work / f"{port}.end")}
        return [self._at.python, *self._at.launcher, "serve"], {"FALCON_INTENT": intent.to_json(), **report}

    def _environ(self, gpu: int, cache: str) -> dict[str, str]:
        """One lane's GPU and folders; kernels are kept from start to start of a lane."""
        root = self._at.work / "cache" / (cache or f"lane{gpu}")
        folders = {"VLLM_CACHE_ROOT": "vllm", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor",
                   "CUDA_CACHE_PATH": "nv", "FLASHINFER_WORKSPACE_BASE": "flashinfer", "XDG_CACHE_HOME": "xdg",
                   "HOME": "home"}  # fmt: skip
        for name in folders.values():
            (root / name).mkdir(parents=True, exist_ok=True)
        return {
            "CUDA_VISIBLE_DEVICES": str(gpu),
            "FALCON_CACHE_DIR": str(self._at.work / "cache"),
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_HOST_IP": "127.0.0.1",
            "PYTHONUNBUFFERED": "1",
            **{variable: str(root / name) for variable, name in folders.items()},
        }

    def _settle(self, gpu: int) -> None:
        """Wait until the last engine's memory is free."""
        until = time.monotonic() + 30
        while server.memory_used_mib(gpu) > 2000 and time.monotonic() < until:
            time.sleep(0.3)

    def _log_of(self, session: Session) -> Path:
        return self._logs / f"serve-{session.name.replace(' ', '-')}.log"

    def _read_done(self) -> set[str]:
        return {row["session"] for row in self._read_rows() if "session" in row and "error" not in row}

    def _read_rows(self) -> list[dict[str, Any]]:
        with self._lock:
            return [json.loads(line) for line in self._rows.read_text().splitlines()] if self._rows.exists() else []

    def _put(self, row: Mapping[str, Any]) -> None:
        with self._lock, self._rows.open("a") as file:
            file.write(json.dumps({"at": round(time.time(), 1), **row}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _say(self, sentence: str) -> None:
        sys.stdout.write(f"[{time.strftime('%H:%M:%S')}, {self.left:.0f} s left] {sentence}\n")
        sys.stdout.flush()
