"""Reads the engine's own log: version, kernel, attention backend, cache, and how far its start has come.

Chunks are searched as they are, line by line only where a marker stands in one: a log of any size costs little.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

# The steps of a start, in order. The launcher itself reaches the first one.
PHASES = ("prepared", "imported", "loaded", "compiled", "captured", "ready")
# uvicorn says so when it accepts connections.
SERVING_LINE = "Application startup complete"
# A line's part that is looked at, on either side of its marker. The engine's configuration is one line of 4,300 bytes.
_REACH = 8192


@dataclass(frozen=True)
class Capacity:
    """The cache in the engine's own words; None where it has not said it. GiB are of one GPU."""

    block_tokens: int | None = None
    tokens: int | None = None
    max_concurrency: float | None = None
    kv_available_gib: float | None = None
    weights_gib: float | None = None


@dataclass(frozen=True)
class Facts:
    """What one start of the engine has said so far. `phases` pairs a step with when it was reached."""

    version: str | None = None
    nvfp4_kernel: str | None = None
    attention_backend: str | None = None
    quantization: str | None = None
    capacity: Capacity | None = None
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def phase(self) -> str | None:
        """The last step that has been reached."""
        return next((phase for phase in reversed(PHASES) if phase in self.phases), None)


@dataclass(frozen=True)
class _Pattern:
    """A line to look for: what it always holds, how it reads, which facts its groups are, and the step that it ends."""

    marker: bytes
    text: "re.Pattern[bytes]"
    phase: str | None = None


def _pattern(marker: str, text: str, phase: str | None = None) -> _Pattern:
    return _Pattern(marker.encode(), re.compile(text.encode()), phase)


# Groups are named as the fields above. Of one fact, a later pattern and a later line win.
_PATTERNS = (
    _pattern(
        "LLM engine (v",
        r"Initializing a V1 LLM engine \(v(?P<version>[^)\s]{1,64})\) with config: "
        r"(?:.*?[ (,]quantization=(?P<quantization>[A-Za-z_][\w.-]{0,63}))?",
        "imported",
    ),
    # 0.22 to 0.26 take this kernel for W4A16 without the line that names one.
    _pattern("leveraging the Marlin kernel", r"FP4 compression will be used leveraging the (?P<marlin>Marlin) kernel"),
    # "marlin" in 0.13, "NvFp4LinearBackend.MARLIN" in 0.18, "MarlinNvFp4LinearKernel" from 0.20 on. Emulation is named
    # here as well; its warning stands before.
    _pattern(" for NVFP4 GEMM", r"Using (?P<nvfp4_kernel>[\w.-]{1,100}) for NVFP4 GEMM"),
    _pattern(
        " attention backend",
        r"Using (?:AttentionBackendEnum\.)?(?P<attention_backend>\w{1,100}) attention backend out of potential",
    ),
    # Where the backend was asked for by name.
    _pattern(" backend.", r"Using (?:AttentionBackendEnum\.)?(?P<attention_backend>[A-Z][A-Z0-9_]{1,99}) backend\."),
    # The end of the step on CPU; on a GPU the weights are then changed for their kernels.
    _pattern("Loading weights took", r"Loading weights took \d", "loaded"),
    _pattern("Model loading took", r"Model loading took (?P<weights_gib>\d{1,9}(?:\.\d{1,9})?) GiB", "loaded"),
    _pattern("attention block size to", r"Setting attention block size to (?P<block_tokens>\d{1,12}) tokens"),
    _pattern(
        "Available KV cache memory", r"Available KV cache memory: (?P<kv_available_gib>\d{1,9}(?:\.\d{1,9})?) GiB"
    ),
    # On CPU.
    _pattern(" GiB for KV cache", r" \((?P<kv_available_gib>\d{1,9}(?:\.\d{1,9})?)/[\d.]{1,19}\) GiB for KV cache"),
    # One line with the next from 0.30 on; "CPU KV cache size" on CPU.
    _pattern("KV cache size:", r"KV cache size: (?P<tokens>\d[\d,]{0,18}) tokens", "compiled"),
    _pattern(
        "Maximum concurrency for",
        r"Maximum concurrency for [\d,]{1,19} tokens per request: (?P<max_concurrency>\d{1,12}(?:\.\d{1,9})?)x",
    ),
    _pattern("Graph capturing finished", r"Graph capturing finished in ", "captured"),
    # The same step of an engine without CUDA graphs.
    _pattern("init engine (profile", r"init engine \(profile, create kv cache, warmup model\) took ", "captured"),
    _pattern(SERVING_LINE, re.escape(SERVING_LINE), "ready"),
)
_MARLIN = "MarlinNvFp4LinearKernel"


class EngineLog:
    """What one start of the engine has said. Fed by the threads that read its output; read by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts = Facts()

    @property
    def facts(self) -> Facts:
        """What is known now."""
        return self._facts

    def ready(self, at: float) -> None:
        """Note that the engine serves, where that was seen otherwise."""
        with self._lock:
            self._reach("ready", at)

    def feed(self, chunk: bytes, at: float) -> None:
        """Read whole lines that came in at a time. Nothing is read any more once the engine serves."""
        if "ready" in self._facts.phases:
            return
        with self._lock:
            for pattern in _PATTERNS:
                for match in _matches(pattern, chunk):
                    self._take({k: v.decode("ascii", "replace") for k, v in match.groupdict().items() if v})
                    if pattern.phase:
                        self._reach(pattern.phase, at)

    def _reach(self, phase: str, at: float) -> None:
        """Of several lines on loading, and of several workers, the last one counts; of other steps the first line."""
        if phase not in self._facts.phases or self._facts.phase == phase == "loaded":
            self._facts = replace(self._facts, phases={**self._facts.phases, phase: at})

    def _take(self, words: dict[str, str]) -> None:
        if words.pop("marlin", None) and not self._facts.nvfp4_kernel:
            words["nvfp4_kernel"] = _MARLIN
        if words.get("quantization") == "None":
            del words["quantization"]
        numbers = {k: _number(words.pop(k)) for k in list(words) if k in Capacity.__dataclass_fields__}
        if numbers:
            self._facts = replace(
                self._facts,
                capacity=replace(self._facts.capacity or Capacity(), **numbers),  # type: ignore[arg-type]
            )
        if words:
            self._facts = replace(self._facts, **words)  # type: ignore[arg-type]


def _number(text: str) -> int | float:
    text = text.replace(",", "")
    return float(text) if "." in text else int(text)


def _matches(pattern: _Pattern, chunk: bytes) -> "Iterator[re.Match[bytes]]":
    at = chunk.find(pattern.marker)
    while at >= 0:
        begin = chunk.rfind(b"\n", max(0, at - _REACH), at) + 1 or max(0, at - _REACH)
        end = chunk.find(b"\n", at, at + _REACH)
        end = end if end >= 0 else min(len(chunk), at + _REACH)
        match = pattern.text.search(chunk, begin, end)
        if match:
            yield match
        at = chunk.find(pattern.marker, end)
