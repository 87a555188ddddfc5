"""How many blocks, tokens and sequences an engine holds. The sums are vLLM's own, so its log lines come out."""

from dataclasses import dataclass

from falcon_engine.ask import Ask
from falcon_engine.profiles import Profile
from falcon_engine.shape import ModelShape

__all__ = ["Ask", "Fit", "fit", "kv_available_gib", "least_gpu_gib", "visible_gib"]


@dataclass(frozen=True)
class Fit:
    """What one engine holds. `sequences` pairs a length in tokens with how many sequences of it run at once."""

    block_tokens: int
    blocks: int
    tokens: int
    max_concurrency: float
    sequences: tuple[tuple[int, int], ...]
    weights_gib: float
    kv_available_gib: float
    max_num_seqs: int
    verdict: str
    message: str


def fit(
    shape: ModelShape,
    profile: Profile,
    ask: Ask,
    *,
    gpu_gib: float | None = None,
    kv_available_gib: float | None = None,
    clamp: bool = True,
) -> Fit:
    """What an engine holds on a GPU of `gpu_gib` GiB as vLLM sees it, or with `kv_available_gib` GiB for its cache.

    `clamp` lowers max_num_seqs where the engine would not start with it; the verdict then is `Clamped`, else `Refused`.
    """
    raise NotImplementedError


def least_gpu_gib(shape: ModelShape, profile: Profile, ask: Ask, *, clamp: bool) -> float:
    """The least memory of one GPU, in GiB as vLLM sees it, below which `fit` says Refused."""
    raise NotImplementedError


def kv_available_gib(shape: ModelShape, profile: Profile, ask: Ask, gpu_gib: float) -> float:
    """GiB that the engine has left for its cache on a GPU of `gpu_gib` GiB; negative where the weights do not fit."""
    raise NotImplementedError


def visible_gib(mib: float) -> float:
    """GiB that vLLM sees of a GPU whose driver states `mib` MiB (nvidia-smi, label nvidia.com/gpu.memory)."""
    raise NotImplementedError
