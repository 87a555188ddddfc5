"""How many blocks, tokens and sequences an engine holds.

The sums on blocks are vLLM's own, by version: given what the engine prints as "Available KV cache memory", blocks,
tokens and concurrency equal its other prints. What it will have available is an estimate, see `gpu_memory`.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from falcon_engine import blocks, gpu_memory
from falcon_engine.ask import Ask
from falcon_engine.gpu_memory import GIB
from falcon_engine.profiles import Profile
from falcon_engine.shape import ModelShape

__all__ = ["Ask", "Fit", "fit", "kv_available_gib", "least_gpu_gib", "least_mib", "visible_gib"]

# Lengths in tokens that a fit tells the sequences of, besides the longest.
LENGTHS = (1024, 4096, 16384, 65536, 131072)
# More than any GPU, and any engine, has; beyond it a number is a mistake.
_MOST_GIB = 1 << 20
_MOST_COUNT = 1 << 30
# What the driver keeps of a GPU: GiB, and a share.
_KEPT_GIB, _KEPT_SHARE = 0.42, 0.0015


@dataclass(frozen=True)
class Fit:
    """What one engine holds.

    `block_tokens`, `blocks`, `tokens` and `max_concurrency` (sequences of max_model_len) are as the engine prints them.
    `weights_gib` and `kv_available_gib` are GiB of one GPU.
    `max_num_seqs` is what the engine can be started with: as asked, or lowered to the blocks; 0 where nothing fits.
    `verdict` is `Fits`, `Clamped` (starts with the lower max_num_seqs) or `Refused`; `message` says why in a sentence.
    """

    block_tokens: int
    blocks: int
    tokens: int
    max_concurrency: float
    weights_gib: float
    kv_available_gib: float
    max_num_seqs: int
    verdict: str
    message: str
    _of_ask: "_OfAsk | None" = field(default=None, repr=False, compare=False)

    @property
    def sequences(self) -> tuple[tuple[int, int], ...]:
        """Lengths in tokens, each with how many sequences of it run at once.

        One block less than the engine prints is theirs, since it keeps one for itself.
        """
        if self._of_ask is None:
            return ()
        longest, cut = self._of_ask.ask.max_model_len, self._of_ask.cut
        lengths = [*(length for length in LENGTHS if length < longest), longest]
        return tuple((length, max(0, self.blocks - 1) // cut.of_sequence(length)) for length in lengths)


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

    `kv_available_gib` counts before the ask's `kv_cache_memory_bytes`, and both before the estimate from `gpu_gib`.
    `clamp` lowers max_num_seqs where the engine would not start with it; the verdict then is `Clamped`, else `Refused`.
    Never raises for a number: what cannot be is Refused with a sentence.
    """
    of_ask = _of_ask(shape, profile, ask)
    problem = of_ask.problem or _bad_memory("the GPU's memory", gpu_gib)
    if problem is None and kv_available_gib is not None and not abs(kv_available_gib) <= _MOST_GIB:
        problem = f"{kv_available_gib:g} GiB for the cache is no amount of memory."
    if problem is not None:
        return _nothing(problem)
    weights = of_ask.weights
    if kv_available_gib is not None:
        available = int(kv_available_gib * GIB)
    elif ask.kv_cache_memory_bytes is not None:
        available = ask.kv_cache_memory_bytes
        if gpu_gib is not None and ask.device != "cpu":
            beside = of_ask.beside(gpu_gib)
            if beside + available / GIB > gpu_gib:
                return _nothing(
                    f"A cache of {available / GIB:.2f} GiB and {beside:.2f} GiB of weights and working memory are more "
                    f"than the GPU's {gpu_gib:.1f} GiB; lower --kv-cache-memory-bytes.",
                    weights,
                    available / GIB,
                )
    elif gpu_gib is not None and ask.device != "cpu":
        available = int(of_ask.available(gpu_gib) * GIB)
    else:
        return _nothing("How much memory the engine gets is not known.", weights)
    return _counted(of_ask, available, clamp, gpu_gib)


def least_gpu_gib(shape: ModelShape, profile: Profile, ask: Ask, *, clamp: bool) -> float:
    """The least memory of one GPU, in GiB as vLLM sees it, below which `fit` says Refused; infinite where it always is.

    With steps of the engine's default size, which grows on larger GPUs, a GPU just above 70 GiB can be left with less
    than one just below; the least is over all sizes.
    """
    of_ask = _of_ask(shape, profile, ask)
    if of_ask.problem is not None or ask.device == "cpu":
        return math.inf
    rules, cut = of_ask.rules, of_ask.cut
    need = cut.of_sequence(ask.max_model_len) + (1 if rules["nullBlockReserved"] else 0)
    if not clamp and _limits_sequences(rules, ask):
        need = max(need, ask.max_num_seqs)
    bytes_needed = need * cut.size
    share = ask.gpu_memory_utilization / ask.sharers
    if ask.kv_cache_memory_bytes is not None:
        if ask.kv_cache_memory_bytes < bytes_needed:
            return math.inf
        bytes_needed, share = ask.kv_cache_memory_bytes, 1.0
    tiers = [float(least) for least, _ in rules["batchedTokens"]] if ask.max_num_batched_tokens is None else [0.0]
    above = math.inf
    found = math.inf
    for tier in tiers:  # the largest first
        # A byte more: a fraction of one is lost when the engine counts.
        gib = max(tier, ((bytes_needed + 1) / GIB + of_ask.beside(tier)) / share)
        if gib < above:
            found = gib
        above = tier
    return math.ceil(found * 1e6) / 1e6 if math.isfinite(found) else found


def kv_available_gib(shape: ModelShape, profile: Profile, ask: Ask, gpu_gib: float) -> float:
    """GiB that one GPU of `gpu_gib` GiB has left for the cache; negative where weights and steps leave nothing.

    An estimate, see `gpu_memory`. Negative infinity where ask or memory are not possible.
    """
    of_ask = _of_ask(shape, profile, ask)
    if of_ask.problem is not None or _bad_memory("", gpu_gib) is not None:
        return -math.inf
    return of_ask.available(gpu_gib)


def visible_gib(mib: float, *, mig: bool = False) -> float:
    """GiB that vLLM sees of a GPU whose driver states `mib` MiB (nvidia-smi, node label nvidia.com/gpu.memory).

    `mig`: it is a MIG instance, whose memory is stated as it is seen. Of a whole GPU the driver keeps something: 0.60
    GiB of an H200's 143,771 MiB (measured); this is within 0.1 GiB of what users report of others, 0.3 for an A100.
    """
    if not 0 < mib < math.inf:
        return 0.0
    gib = mib / 1024
    return gib if mig else max(0.0, gib - _KEPT_GIB - _KEPT_SHARE * gib)


def least_mib(gib: float, *, mig: bool = False) -> int | None:
    """The least whole MiB of a driver's statement of which vLLM sees `gib` GiB; None where no GPU has so much."""
    if not gib <= _MOST_GIB:
        return None
    mib = math.ceil(1024 * (gib if mig else (gib + _KEPT_GIB) / (1 - _KEPT_SHARE)))
    while visible_gib(mib, mig=mig) < gib:  # rounding
        mib += 1
    while mib > 1 and visible_gib(mib - 1, mig=mig) >= gib:
        mib -= 1
    return mib


@dataclass(frozen=True)
class _OfAsk:
    """What does not depend on the GPU. Where there is a `problem`, nothing else of it counts."""

    shape: ModelShape
    rules: Mapping[str, Any]
    ask: Ask
    problem: str | None
    weights: float
    cut: blocks.Blocks

    def beside(self, gpu_gib: float) -> float:
        """GiB of weights and working memory."""
        tokens = gpu_memory.batched_tokens(self.rules, self.ask, gpu_gib)
        return self.weights + gpu_memory.working_gib(self.shape, self.rules, self.ask, tokens)

    def available(self, gpu_gib: float) -> float:
        """GiB left for the cache."""
        return gpu_gib * self.ask.gpu_memory_utilization / self.ask.sharers - self.beside(gpu_gib)


_NO_BLOCKS = blocks.Blocks(1, 1, "none", 1, 0)


@functools.lru_cache(maxsize=64)
def _of_ask(shape: ModelShape, profile: Profile, ask: Ask) -> _OfAsk:
    """Kept, since an ask is fitted to one kind of GPU after the other."""
    if (problem := _problem(shape, ask)) is not None:
        return _OfAsk(shape, {}, ask, problem, 0.0, _NO_BLOCKS)
    rules = profile.fact("blockRules")
    return _OfAsk(shape, rules, ask, None, gpu_memory.weights_gib(shape, ask), blocks.cut(shape, rules, ask))


def _limits_sequences(rules: Mapping[str, Any], ask: Ask) -> bool:
    """Whether the engine refuses more sequences than blocks: it does where it captures CUDA graphs of whole steps."""
    return bool(rules["sequencesNeedBlocks"]) and "FULL" in ask.cuda_graph_mode and ask.device != "cpu"


def _counted(of_ask: _OfAsk, available: int, clamp: bool, gpu_gib: float | None) -> Fit:
    """The fit of `available` bytes of cache."""
    rules, ask, cut = of_ask.rules, of_ask.ask, of_ask.cut
    count = max(0, available // cut.size)
    if ask.blocks_override is not None:
        count = ask.blocks_override
    longest = cut.of_sequence(ask.max_model_len)
    concurrency = count / longest
    if rules["tokens"] == "blocks":
        # Older versions print half of the blocks, times the smaller of the two groups' blocks.
        state = ask.max_model_len if cut.mode == "none" else cut.state_tokens if cut.mode == "all" else cut.tokens
        tokens = count // 2 * min(cut.tokens, state)
    else:
        tokens = int(concurrency * ask.max_model_len)
    usable = max(0, count - 1)
    given, verdict = ask.max_num_seqs, "Fits"
    kept = 1 if rules["nullBlockReserved"] else 0
    of_gpu = f" of the GPU's {gpu_gib:.1f} GiB" if gpu_gib is not None else ""
    if count - kept < longest:
        given, verdict = 0, "Refused"
        message = _too_long(cut, ask, count, kept, available, longest, of_gpu)
    elif count < ask.max_num_seqs and _limits_sequences(rules, ask):
        given, verdict = count, "Clamped" if clamp else "Refused"
        held = f"{available / GIB:.2f} GiB{of_gpu} are left for the cache, which is {count:,} blocks"
        asked = f"{ask.max_num_seqs:,}"
        message = (
            f"max_num_seqs is lowered from {asked} to {count:,}: {held}, and each sequence needs one."
            if clamp
            else f"max_num_seqs is {asked}, but {held}, and each sequence needs one: lower it to {count:,}."
        )
    else:
        message = (
            f"{count:,} blocks of {cut.tokens:,} tokens hold {tokens:,} tokens: {usable // longest:,} sequences of "
            f"{ask.max_model_len:,} tokens at once, or {usable // cut.of_sequence(1):,} short ones."
        )
    return Fit(
        block_tokens=cut.tokens,
        blocks=count,
        tokens=tokens,
        max_concurrency=concurrency,
        weights_gib=of_ask.weights,
        kv_available_gib=available / GIB,
        max_num_seqs=given,
        verdict=verdict,
        message=message,
        _of_ask=of_ask,
    )


def _too_long(cut: blocks.Blocks, ask: Ask, count: int, kept: int, available: int, longest: int, of_gpu: str) -> str:
    if available <= 0:
        return f"Weights and working memory leave nothing{of_gpu} for the cache: it needs more memory."
    need = (longest + kept) * cut.size / GIB
    shorter = cut.longest(count - kept)
    way_out = f"lower max_model_len to at most {shorter:,}" if shorter > 0 else "it needs more memory"
    return (
        f"One sequence of {ask.max_model_len:,} tokens needs {need:.2f} GiB of cache, and {available / GIB:.2f} GiB"
        f"{of_gpu} are left for it: {way_out}."
    )


def _nothing(message: str, weights: float = 0.0, available: float = 0.0) -> Fit:
    return Fit(0, 0, 0, 0.0, weights, available, 0, "Refused", message)


def _bad_memory(what: str, gib: float | None) -> str | None:
    if gib is None or 0 < gib <= _MOST_GIB:
        return None
    return f"{gib:g} GiB is not possible as {what}."


def _problem(shape: ModelShape, ask: Ask) -> str | None:
    """Why this ask cannot be, whatever the GPU."""
    for name, value in (
        ("max_model_len", ask.max_model_len),
        ("max_num_seqs", ask.max_num_seqs),
        ("tensor_parallel_size", ask.tensor_parallel_size),
        ("the number of engines on one GPU", ask.sharers),
        ("max_num_batched_tokens", ask.max_num_batched_tokens),
        ("block_size", ask.block_size),
        ("mamba_block_size", ask.mamba_block_size),
        ("num_gpu_blocks_override", ask.blocks_override),
    ):
        if value is not None and not 1 <= value <= _MOST_COUNT:
            return f"{name} is {value}, and must be from 1 to {_MOST_COUNT}."
    if ask.max_model_len > shape.max_positions and not ask.positions_overridden:
        return f"max_model_len is {ask.max_model_len:,}, and the model takes {shape.max_positions:,} tokens at most."
    if not 0 < ask.gpu_memory_utilization <= 1:
        return f"gpu_memory_utilization is {ask.gpu_memory_utilization:g}, and must be above 0 and at most 1."
    bytes_given = ask.kv_cache_memory_bytes
    if bytes_given is not None and not 0 < bytes_given <= _MOST_GIB * GIB:
        return f"kv_cache_memory_bytes is {bytes_given}, which is no amount of memory."
    for name, dtype in (
        ("kv_cache_dtype", ask.kv_cache_dtype),
        ("mamba_ssm_cache_dtype", ask.ssm_dtype),
        ("mamba_cache_dtype", ask.mamba_dtype),
    ):
        if dtype != "auto" and dtype not in blocks.BYTES:
            return f"{name} is {dtype}, whose size is not known here; known are auto, {', '.join(blocks.BYTES)}."
    if ask.weights not in gpu_memory.FORMATS:
        return f"the weights' format is {ask.weights}; known are {', '.join(gpu_memory.FORMATS)}."
    for name, heads in (("attention", shape.attention_heads), ("Mamba", shape.mamba_heads)):
        if heads % ask.tensor_parallel_size:
            return f"{heads} {name} heads cannot be split over {ask.tensor_parallel_size} GPUs."
    return None
