"""What the launcher of an engine reports of the start, as decisions see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# The steps of a start, each when it has been reached, and what is done after it.
PHASES = ("prepared", "imported", "loaded", "compiled", "captured", "ready")
_DOING = {
    None: "preparing its weights",
    "prepared": "importing vLLM",
    "imported": "loading the weights",
    "loaded": "compiling kernels and sizing its cache",
    "compiled": "warming up",
    "captured": "opening its port",
    "ready": "answering a first request",
}


@dataclass(frozen=True)
class Gpu:
    """One GPU that the container sees."""

    name: str
    memory_mib: int | None = None
    capability: str | None = None
    driver: str | None = None

    @property
    def product(self) -> str:
        """Its name as the label nvidia.com/gpu.product has it."""
        return self.name.replace(" ", "-")


@dataclass(frozen=True)
class Clamped:
    """Fewer sequences than the spec asks for, since the GPU holds no more."""

    asked: int
    given: int
    why: str


@dataclass(frozen=True)
class Computed:
    """The format that weights are computed in, why, and the seconds that making them took."""

    format: str
    why: str
    seconds: float | None = None


@dataclass(frozen=True)
class CacheFigures:
    """The KV cache in the engine's own words."""

    blocks: int | None = None
    block_tokens: int | None = None
    tokens: int | None = None
    max_concurrency: float | None = None


@dataclass(frozen=True)
class Canary:
    """The one-token completion before an engine is ready: `off`, `pending`, `passed` or `failed`."""

    state: str
    error: str | None = None


@dataclass(frozen=True)
class Retry:
    """A start that failed for a reason that passes, and was tried again."""

    reason: str
    message: str
    at: float


@dataclass(frozen=True)
class Report:
    """One start of one engine; None where nothing is known. Times are seconds since the launcher's own start."""

    version: str | None = None
    kernel: str | None = None
    attention_backend: str | None = None
    quantization: str | None = None
    max_num_seqs: int | None = None
    gpus: tuple[Gpu, ...] = ()
    clamped: Clamped | None = None
    computed: Computed | None = None
    cache: CacheFigures | None = None
    phase: str | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    canary: Canary | None = None
    retries: tuple[Retry, ...] = ()

    @property
    def doing(self) -> str:
        """What the engine is at, to be read after "pod x is"."""
        if self.retries and self.retries[-1].at > max(self.phases.values(), default=0.0):
            return f"starting its engine again after {self.retries[-1].reason} ({self.retries[-1].message.rstrip('.')})"
        if self.canary is not None and self.canary.state == "failed":
            why = f": {self.canary.error.rstrip('.')}" if self.canary.error else ""
            return f"asking its engine for a first token again, which failed{why}"
        if self.phase == "ready" and self.canary is not None and self.canary.state in ("off", "passed"):
            return "about to be ready"
        return _DOING.get(self.phase, _DOING[None])

    @property
    def since(self) -> float:
        """When that began."""
        return max([*self.phases.values(), *(retry.at for retry in self.retries)], default=0.0)
