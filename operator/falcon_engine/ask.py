"""What an engine is asked for, as far as memory depends on it: from the intent, extra arguments included."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from falcon_engine import flags
from falcon_engine.intent import Intent
from falcon_engine.profiles import Profile


@dataclass(frozen=True)
class Ask:
    """What an engine is asked for, in the words of vLLM's flags. `None` leaves a choice to the engine.

    `weights` is the format, see `shape.ModelShape.weights`. `sharers` is how many engines share one GPU (time-slicing,
    MPS); each then takes its part of the utilization. `cuda_graph_mode` has vLLM's names. `positions_overridden`: an
    argument changes how long a sequence the model takes.
    """

    max_model_len: int
    max_num_seqs: int
    gpu_memory_utilization: float
    kv_cache_dtype: str
    prefix_caching: bool
    weights: str
    tensor_parallel_size: int = 1
    ssm_dtype: str = "auto"
    sharers: int = 1
    device: str = "cuda"
    cuda_graph_mode: str = "FULL_AND_PIECEWISE"
    max_num_batched_tokens: int | None = None
    kv_cache_memory_bytes: int | None = None
    block_size: int | None = None
    mamba_block_size: int | None = None
    mamba_dtype: str = "auto"
    mamba_cache_mode: str | None = None
    blocks_override: int | None = None
    positions_overridden: bool = False


# Flag -> the ask's field, and how its text is read.
_INTEGERS = {
    "--max-model-len": "max_model_len",
    "--max-num-seqs": "max_num_seqs",
    "--max-num-batched-tokens": "max_num_batched_tokens",
    "--kv-cache-memory-bytes": "kv_cache_memory_bytes",
    "--tensor-parallel-size": "tensor_parallel_size",
    "--block-size": "block_size",
    "--mamba-block-size": "mamba_block_size",
    "--num-gpu-blocks-override": "blocks_override",
}
_TEXTS = {
    "--kv-cache-dtype": "kv_cache_dtype",
    "--mamba-cache-dtype": "mamba_dtype",
    "--mamba-ssm-cache-dtype": "ssm_dtype",
    "--mamba-cache-mode": "mamba_cache_mode",
}
_POSITIONS = ("--hf-overrides", "--rope-scaling")
# As vLLM reads whole numbers: 1k is 1,000 and 1K is 1,024.
_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "K": 2**10,
    "M": 2**20,
    "G": 2**30,
    "T": 2**40,
}


def from_intent(intent: Intent, profile: Profile, weights: str, *, sharers: int = 1, float32_state: bool = True) -> Ask:
    """What the engine of this intent is asked for, as `flags.argv` renders it.

    `float32_state`: whether the CPU makes the engine keep Mamba states in FP32, as those with AVX512-BF16 do; it counts
    on CPU only. An extra argument that cannot be read is left to the engine, which refuses it.
    """
    cpu = intent.device == "cpu"
    ask = Ask(
        max_model_len=intent.max_model_len,
        max_num_seqs=intent.max_num_seqs,
        gpu_memory_utilization=intent.gpu_memory_utilization,
        kv_cache_dtype=flags.cpu_cache_dtype(weights.startswith("nvfp4")) if cpu else intent.kv_cache_dtype,
        prefix_caching=intent.prefix_caching and (not cpu or bool(profile.fact("cpuPrefixCaching"))),
        weights=weights,
        tensor_parallel_size=intent.tensor_parallel_size,
        sharers=sharers,
        device=intent.device,
        cuda_graph_mode="NONE" if cpu else intent.cuda_graph_mode,
        kv_cache_memory_bytes=flags.CPU_CACHE_BYTES if cpu else None,
        mamba_cache_mode=None if cpu else profile.fact("mambaCacheMode"),
    )
    changes = dict(_changes(intent.extra_args, profile))
    if cpu and float32_state:
        changes["ssm_dtype"] = "float32"
    return replace(ask, **changes) if changes else ask


def _changes(arguments: Sequence[str], profile: Profile) -> Iterator[tuple[str, Any]]:
    """The ask's fields that the extra arguments set, in their order."""
    for index, argument in enumerate(arguments):
        flag = profile.lookup(argument) if argument.startswith("-") else None
        if flag is None:
            continue
        spelling, equals, text = argument.partition("=")
        if not equals:
            text = arguments[index + 1] if index + 1 < len(arguments) else ""
        if flag.name in _INTEGERS:
            if (number := _integer(text)) is not None:
                yield _INTEGERS[flag.name], number
        elif flag.name in _TEXTS:
            if text:
                yield _TEXTS[flag.name], text
        elif flag.name == "--gpu-memory-utilization":
            if re.fullmatch(r"[0-9]*\.?[0-9]+", text):
                yield "gpu_memory_utilization", float(text)
        elif flag.name == "--enable-prefix-caching":
            yield "prefix_caching", not spelling.startswith("--no-")
        elif flag.name == "--enforce-eager":
            yield "cuda_graph_mode", "NONE"
        elif flag.name == "--compilation-config":
            if mode := _graph_mode(spelling, text):
                yield "cuda_graph_mode", mode
        elif flag.name in _POSITIONS:
            yield "positions_overridden", True


def _integer(text: str) -> int | None:
    match = re.fullmatch(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)([kmgtKMGT]?)", text)
    if match is None or ("." in match[1] and not match[2]):
        return None
    return int(float(match[1]) * _UNITS[match[2]]) if "." in match[1] else int(match[1]) * _UNITS[match[2]]


def _graph_mode(spelling: str, text: str) -> str | None:
    """The mode that a compilation config sets, as JSON or in the dotted form."""
    _, _, key = spelling.partition(".")
    value: object = text
    if not key:
        try:
            config = json.loads(text)
        except ValueError:
            return None
        value = config.get("cudagraph_mode") if isinstance(config, dict) else None
    elif key.replace("-", "_") != "cudagraph_mode":
        return None
    return value.upper() if isinstance(value, str) and value else None
