"""What an engine is asked for, as far as memory depends on it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ask:
    """What an engine is asked for, in the words of vLLM's flags.

    `weights` is the format, see `shape.ModelShape.weights`. `sharers` is how many engines share one GPU (time-slicing,
    MPS); each then takes its part of the utilization. `None` leaves a choice to the engine.
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
    cuda_graphs: bool = True
    max_num_batched_tokens: int | None = None
    kv_cache_memory_bytes: int | None = None
    block_size: int | None = None
    mamba_block_size: int | None = None
    mamba_dtype: str = "auto"
    mamba_cache_mode: str | None = None
    blocks_override: int | None = None
