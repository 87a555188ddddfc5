"""What the launcher says of the engine that it runs: one JSON document, and whether the start is over."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from falcon_engine.enginelog import EngineLog, Facts
from falcon_engine.gpus import Gpu

SCHEMA = 1
# Of a sentence that stems from elsewhere.
_SENTENCE_CHARACTERS = 400


@dataclass(frozen=True)
class Clamped:
    """Fewer sequences than the resource asks for, and why."""

    asked: int
    given: int
    why: str


@dataclass(frozen=True)
class Canary:
    """The completion of one token before an engine is ready: `off`, `pending`, `passed` or `failed`.

    `seconds` is how long the one took that passed.
    """

    state: str
    seconds: float | None = None
    error: str | None = None


class Report:
    """The state of one launcher, written and read by several threads. Times are seconds since it was made."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin = clock()
        self._lock = threading.Lock()
        self._values: dict[str, Any] = {"version": None, "profile": None, "max_num_seqs": None}
        self._log = EngineLog()
        self._prepared: float | None = None
        self._canary = Canary("off")
        self._retries: list[dict[str, Any]] = []

    def seconds(self) -> float:
        """Since the launcher's start."""
        return self._clock() - self._begin

    def put(self, **values: Any) -> None:
        """Note what was found: version, profile, max_num_seqs, checkpoint, compute_format, gpus, clamped."""
        with self._lock:
            self._values.update(values)

    @property
    def facts(self) -> Facts:
        """What the present start of the engine has said of itself."""
        return self._log.facts

    @property
    def canary(self) -> Canary:
        """How the canary stands."""
        return self._canary

    @canary.setter
    def canary(self, canary: Canary) -> None:
        self._canary = canary

    def prepared(self) -> None:
        """The engine's arguments are known."""
        self._prepared = self.seconds()

    def begin(self, canary: bool) -> EngineLog:
        """The engine is started, perhaps again: what an earlier start said counts no more."""
        with self._lock:
            self._log = EngineLog()
            self._canary = Canary("pending" if canary else "off")
            return self._log

    def retry(self, reason: str, message: str) -> None:
        """The engine failed, and will be started again."""
        with self._lock:
            self._retries.append({"reason": reason, "message": _cut(message), "at": round(self.seconds(), 1)})

    def to_json(self) -> str:
        """The document; far below 64 KiB."""
        with self._lock:
            values, facts, canary, retries = dict(self._values), self._log.facts, self._canary, list(self._retries)
        phases = {**({} if self._prepared is None else {"prepared": self._prepared}), **facts.phases}
        capacity = facts.capacity
        return json.dumps(
            {
                "schema": SCHEMA,
                "engine": {
                    "version": facts.version or values["version"],
                    "profile": values["profile"],
                    "nvfp4Kernel": facts.nvfp4_kernel,
                    "attentionBackend": facts.attention_backend,
                    "quantization": facts.quantization,
                    "maxNumSeqs": values["max_num_seqs"],
                },
                "checkpoint": values.get("checkpoint"),
                "computeFormat": values.get("compute_format"),
                "gpus": [_gpu(gpu) for gpu in values.get("gpus", ())],
                "clamped": asdict(values["clamped"]) if values.get("clamped") else None,
                "capacity": capacity
                and {
                    "blocks": None,  # the engine's log does not say; its metric cache_config_info does
                    "blockTokens": capacity.block_tokens,
                    "tokens": capacity.tokens,
                    "maxConcurrency": capacity.max_concurrency,
                    "kvAvailableGiB": capacity.kv_available_gib,
                    "weightsGiB": capacity.weights_gib,
                },
                "phase": facts.phase or ("prepared" if phases else None),
                "phases": {phase: round(at, 1) for phase, at in phases.items()},
                "canary": {**asdict(canary), "error": canary.error and _cut(canary.error)},
                "retries": retries,
            }
        )


def _gpu(gpu: Gpu) -> dict[str, Any]:
    return {
        "name": gpu.name,
        "memoryMiB": gpu.memory_mib,
        "computeCapability": gpu.capability,
        "driver": gpu.driver,
    }


def _cut(text: str) -> str:
    return text if len(text) <= _SENTENCE_CHARACTERS else text[: _SENTENCE_CHARACTERS - 3] + "..."
