"""Runs the launcher as the serving container does: `python launch.pyz serve`, beside a stand-in for vLLM."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.engine import checkpoints

from falcon_engine import loopback
from falcon_engine.archive import build
from falcon_engine.intent import Intent, Source
from falcon_engine.signatures import Diagnosis

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "operator"
PROFILES = SOURCE / "falcon_engine" / "profiles"


@functools.cache
def launcher() -> bytes:
    return build()


def intent(**changes: Any) -> Intent:
    values: dict[str, Any] = {
        "device": "cuda",
        "version": None,
        "names": ("falcon-h1r-7b-nvfp4",),
        "port": 8000,
        "source": Source(),
        "checkpoint": "Repair",
        "max_model_len": 65536,
        "max_num_seqs": 256,
        "fit": "Clamp",
        "gpu_memory_utilization": 0.88,
        "kv_cache_dtype": "fp8",
        "prefix_caching": True,
        "compute_format": "Auto",
        "cuda_graph_mode": "FULL_AND_PIECEWISE",
        "reasoning_parser": None,
        "tool_call_parser": None,
        "queue_requests": None,
        "queue_tokens": None,
        "gpu_resource": None,
        "tensor_parallel_size": 1,
        "canary": True,
        "drain_timeout_seconds": 300,
        "extra_args": (),
    }
    return Intent(**{**values, **changes})


def write_checkpoint(directory: Path, architecture: str = "FalconH1ForCausalLM", **config: Any) -> Path:
    return checkpoints.write(directory, checkpoints.tensors((), kv=False), architectures=[architecture], **config)


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * 4


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def descendants(pid: int) -> list[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


class Container:
    """What the launcher finds around itself, and the launcher."""

    def __init__(self, directory: Path, vllm: str | None = "0.32.0+cpu", profile: str = "0.32") -> None:
        self.directory = directory
        self.launcher = directory / "launch.pyz"
        self.launcher.write_bytes(launcher())
        self.model = write_checkpoint(directory / "model")
        self.port = free_port()
        self.report_port = free_port()
        self.termination = directory / "termination-log"
        (directory / "tmp").mkdir()
        site = directory / "site"
        if vllm:
            command = site / "vllm" / "entrypoints" / "cli"
            command.mkdir(parents=True)
            (command / "main.py").write_bytes((HERE / "standin_vllm.py").read_bytes())
            info = site / f"vllm-{vllm}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {vllm}\n")
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(site),
            "TMPDIR": str(directory / "tmp"),
            "FALCON_TERMINATION_LOG": str(self.termination),
            "FALCON_REPORT_PORT": str(self.report_port),
            "STANDIN_DIR": str(directory),
            "STANDIN_PROFILE": str(PROFILES / f"{profile}.json"),
        }
        self.log = ""

    def intent(self, **changes: Any) -> Intent:
        source = Source(kind="baked", path=str(self.model))
        return intent(**{"device": "cpu", "port": self.port, "source": source, "drain_timeout_seconds": 20, **changes})

    @contextmanager
    def running(self, command: str = "serve", prelude: str = "", **changes: Any) -> Iterator["subprocess.Popen[str]"]:
        """The launcher as a process; with a prelude, which is Python run before it begins, from its source.

        Python compiles what it reads from an archive at every start, and keeps what it compiled of files.
        """
        given = {**self.environment, "FALCON_INTENT": self.intent(**changes).to_json()}
        argv = [sys.executable, str(self.launcher), command]
        if prelude:
            code = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{prelude}\n"
            argv = [sys.executable, "-c", f"{code}from falcon_engine.launch import main; sys.exit(main([{command!r}]))"]
        output = (self.directory / f"{command}.log").open("w+")
        process = subprocess.Popen(argv, env=given, stdout=output, stderr=subprocess.STDOUT, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                # As a container's end does it: nothing in it outlives its first process.
                for pid in (*descendants(process.pid), process.pid):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            self.log = output.read()
            output.close()

    def run(self, command: str = "serve", timeout: float = 30, **changes: Any) -> int:
        with self.running(command, **changes) as process:
            return process.wait(timeout)

    def wait_until_served(self) -> None:
        def answers() -> bool:
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(answers, "the stand-in serves")
        wait_for(lambda: "startup complete" in (self.directory / "serve.log").read_text(), "it says so in the log")

    def get(self, path: str) -> tuple[int, str] | None:
        """What the launcher answers."""
        return loopback.get(self.report_port, path)

    def report(self) -> dict[str, Any]:
        answer = self.get("/report")
        document: dict[str, Any] = json.loads(answer[1]) if answer and answer[0] == 200 else {}
        return document

    def wait_until_started(self) -> None:
        wait_for(lambda: (self.get("/started") or (0,))[0] == 200, "the launcher says that the engine is started")

    def diagnosis(self) -> Diagnosis:
        return Diagnosis.from_json(self.termination.read_text())

    def engine_argv(self) -> list[str]:
        argv: list[str] = json.loads((self.directory / "argv.json").read_text())
        return argv[1:]

    def core_pid(self) -> int:
        return int((self.directory / "core.pid").read_text())
