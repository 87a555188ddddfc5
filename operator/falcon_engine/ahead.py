"""Has kernels compiled while the engine still imports: its first start on a GPU is a minute shorter."""

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from falcon_engine import locate, tuned
from falcon_engine.gpus import Gpu
from falcon_engine.intent import Intent

# Of the package's data: which launches, for which GPUs and versions of vLLM.
FILE = "chunk_scan.json"
_MODULE = "falcon_tune.ahead"


def begin(
    intent: Intent,
    version: str | None,
    gpus: Sequence[Gpu],
    engine: locate.Engine,
    model: str | None,
    log: Callable[[str], None],
    environ: Mapping[str, str] = os.environ,
) -> int | None:
    """Start the process that compiles, and do not wait for it: what it has not done the engine does itself.

    `model` is the checkpoint's folder. The result is the process, or None where there is nothing to compile: it was
    done, or nobody has measured which launches are best there.
    """
    launches = known(version, gpus) if intent.device == "cuda" else None
    if launches is None:
        return None
    done = mark(version, gpus[0], intent, environ)
    if done.exists():
        return None
    command = [*locate.interpreter(engine), "-m", _MODULE, "--capability", str(gpus[0].capability)]
    command += ["--launches", json.dumps(launches), "--state-dtype", tuned.state_dtype(intent), "--mark", str(done)]
    command += ["--model", model] if model else []
    # The packages are where this one is, which may be inside the launcher's archive. No GPU: it is the engine's.
    here = str(Path(__file__).parents[1])
    path = os.pathsep.join(part for part in (here, environ.get("PYTHONPATH")) if part)
    try:
        child = os.posix_spawnp(
            command[0],
            command,
            {**environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )
    except OSError as e:
        log(f"warning: no kernels are compiled ahead: {command[0]} cannot be started ({e.strerror})")
        return None
    log("kernels for prompts and sampling are compiled while the engine imports")
    return child


def known(version: str | None, gpus: Sequence[Gpu]) -> Mapping[str, Any] | None:
    """The launches by kernel, for one GPU an engine."""
    found = tuned.families(FILE, version, gpus)
    return found[0]["launches"] if found else None


def mark(version: str | None, gpu: Gpu, intent: Intent, environ: Mapping[str, str]) -> Path:
    """The file that says that it was done, beside the kernels themselves."""
    home = environ.get("TRITON_HOME") or tuned.home(environ)
    cache = environ.get("TRITON_CACHE_DIR") or Path(home, ".triton", "cache")
    return Path(cache, f"falcon-ahead-{version}-{gpu.capability}-{tuned.state_dtype(intent)}")
