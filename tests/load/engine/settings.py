"""What the fake engine is told: vLLM's command line, read as that version reads it, and its own manners."""

import importlib.metadata
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from tests.engine import vllm_arguments

from falcon_engine import profiles

# From this version on a draining engine goes on listening and answers 500, as 0.32 did on CPU; before, it closes its
# listener within 0.3 s, as 0.26 did on a GPU. What was not seen in between is not known.
ANSWERS_WHILE_DRAINING = (0, 32)
REFUSE, ANSWER = "refuse", "answer"


@dataclass(frozen=True)
class Law:
    """A turn takes `step + each * b` seconds where b sequences go on, and 1 / `prompt_rate` a new prompt token."""

    step: float
    each: float
    prompt_rate: float


@dataclass(frozen=True)
class Settings:
    """Times are in seconds.

    `load` is refused connections before it serves, `prefill` from a request's turn to its first token, `pace` from
    token to token unless the request says otherwise, `teardown` from the last token to the end of the process.
    `shutdown` is --shutdown-timeout; 0 aborts what runs. Where there is a `law`, it says when tokens come, as of a real
    engine: neither `prefill` nor any pace counts.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    version: str = "0.32.0"
    names: tuple[str, ...] = ("falcon-h1r-7b-nvfp4",)
    model: str = "/model"
    max_model_len: int = 65536
    sequences: int = 256
    shutdown: float = 0.0
    drain: str = ANSWER
    load: float = 0.0
    prefill: float = 0.005
    pace: float = 0.02
    teardown: float = 0.0
    law: Law | None = None
    identity: str = "engine"


def from_command_line(arguments: list[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """Raises `ValueError` where this version of vLLM has no such flag or no such value."""
    version = importlib.metadata.version("vllm")
    profile, _ = profiles.select(version)
    given = vllm_arguments.read(profile, arguments)
    default = ANSWER if (profiles.parse(version) or (0, 0)) >= ANSWERS_WHILE_DRAINING else REFUSE
    names = given["--served-model-name"] or [given["model"]]
    return Settings(
        host=given["--host"] or "0.0.0.0",
        port=int(given["--port"] or 8000),
        version=version,
        names=tuple(names if isinstance(names, list) else [names]),
        model=given["model"],
        max_model_len=int(given["--max-model-len"] or 65536),
        sequences=int(given["--max-num-seqs"] or 256),
        shutdown=float(given.get("--shutdown-timeout") or 0),
        drain=environ.get("FAKE_DRAIN", default),
        load=float(environ.get("FAKE_LOAD", "3")),
        prefill=float(environ.get("FAKE_PREFILL", "0.02")),
        pace=float(environ.get("FAKE_PACE", "0.02")),
        teardown=float(environ.get("FAKE_TEARDOWN", "6")),  # 6 to 9 s were seen
        law=_law(environ.get("FAKE_LAW")),
        identity=socket.gethostname(),
    )


def _law(text: str | None) -> Law | None:
    """`step,each,prompt_rate` as `Law` has them."""
    if not text:
        return None
    step, each, prompt_rate = map(float, text.split(","))
    return Law(step, each, prompt_rate)
