"""Finds the engine in the image, and its true version, without importing it."""

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_MODULE = "vllm.entrypoints.cli.main"
# As `-m` starts it, but that Python looks for garbage less often: of what vLLM's imports compute a sixth was that. And
# in an engine core that is forked it never looks at what was imported before: each whole look took 0.7 s, five a start.
_START = (
    "import gc, os, runpy; gc.set_threshold(50_000, 20, 50); os.register_at_fork(before=gc.freeze); "
    f"runpy.run_module({_MODULE!r}, run_name='__main__', alter_sys=True)"
)


@dataclass(frozen=True)
class Engine:
    """How to start the engine, what it calls itself, and the folder of its package where that is known."""

    command: tuple[str, ...]
    version: str | None
    package: str | None = None


def locate() -> Engine | None:
    """The module in this interpreter, or else the `vllm` program with its own one."""
    spec = importlib.util.find_spec("vllm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if Path(folder, *_MODULE.split(".")[1:]).with_suffix(".py").is_file():
            # Without -P the working directory would come before the installed packages.
            safe = ("-P",) if sys.version_info >= (3, 11) else ()
            return Engine((sys.executable, *safe, "-c", _START), _version(), folder)
    program = shutil.which("vllm")
    return Engine((program,), *_asked(program)) if program else None


def _version() -> str | None:
    try:
        return importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return None


def _asked(program: str) -> tuple[str | None, str | None]:
    """What the interpreter in the program's first line knows of vllm: its version, and where it is."""
    question = (
        "import importlib.metadata as m, importlib.util as u; print(m.version('vllm'));"
        "s = u.find_spec('vllm'); print(*(s and s.submodule_search_locations or ()), sep='\\n')"
    )
    python = _interpreter_of(program)
    if python is None:
        return None, None
    try:
        answer = subprocess.run([*python, "-c", question], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return None, None
    version, folder, *_ = [*answer.stdout.splitlines(), "", ""]
    return (version or None, folder or None) if answer.returncode == 0 else (None, None)


def _interpreter_of(program: str) -> tuple[str, ...] | None:
    try:
        with open(program, "rb") as file:
            first = file.readline(500).decode("utf-8", "replace")
    except OSError:
        return None
    return tuple(first[2:].split()) if first.startswith("#!") else None


def interpreter(engine: Engine) -> tuple[str, ...]:
    """The Python that has the engine's packages: this one, or that of the program's first line."""
    if len(engine.command) > 1:
        return (engine.command[0],)
    return _interpreter_of(engine.command[0]) or (sys.executable,)
