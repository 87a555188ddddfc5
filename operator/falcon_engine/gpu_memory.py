"""What an engine needs of a GPU's memory besides its cache. An estimate; the cache's own sums are exact, see `blocks`.

Calibrated on vLLM 0.26 on an H200 (139.8 GiB visible, utilization 0.88, 256 sequences, 8,192 tokens a step), where
four starts with NVFP4 and BF16 weights, prefix caching on and off, leave 115.91 to 115.97 and 106.79 GiB: there this
file is within 0.06 GiB. Three starts on an H100 (79.18 GiB visible) that were not calibrated on leave 62.58, 61.70 (938
sequences) and 63.47 GiB (eager): within 0.01, 0.06 and 0.14 GiB. Elsewhere it has not been compared with an engine. The
weights are arithmetic (0.02 GiB); activations, CUDA graphs and NCCL are scaled by what they are made of, so expect it
within about 0.5 GiB, which is 5 % of the blocks of a 16 GB card.
"""

from collections.abc import Mapping
from typing import Any

from falcon_engine.ask import Ask
from falcon_engine.shape import ModelShape

GIB = 1 << 30

# Bytes of a weight of the layers' linears. NVFP4 has half a byte and a scale of one byte for 16 weights.
_NVFP4, _FP8, _BF16 = 0.5625, 1.0, 2.0
# Attention, MLP, the mixer's in_proj and its out_proj.
FORMATS = {
    "nvfp4": (_NVFP4, _NVFP4, _NVFP4, _NVFP4),
    "nvfp4-linears-without-mamba": (_NVFP4, _NVFP4, _BF16, _BF16),
    "nvfp4-mlp": (_BF16, _NVFP4, _BF16, _BF16),
    "fp8": (_FP8, _FP8, _FP8, _FP8),
    "fp8-without-in-proj": (_FP8, _FP8, _BF16, _FP8),
    "fp8-without-mamba": (_FP8, _FP8, _BF16, _BF16),
    "fp8-mlp": (_BF16, _FP8, _BF16, _BF16),
    "bf16": (_BF16, _BF16, _BF16, _BF16),
}
# NVFP4 on a GPU: padded columns and a workspace (measured: 5.19 GiB loaded).
_NVFP4_EXTRA = 0.02
# CUDA context and libraries; NCCL's buffers come on top with more than one GPU (not measured).
_NON_TORCH, _NCCL = 0.25, 0.65
# Step: what a forward pass keeps at its widest point, in activations of hidden and intermediate size, and the rest.
_HIDDEN_COPIES, _INTERMEDIATE_COPIES, _STEP_EXTRA = 5, 3, 0.11
# Sampler: logits, probabilities and their order, in bytes of each entry of the vocabulary of each sequence.
_SAMPLER_BYTES = 14
# Estimated by the engine for 86 graphs (51 piecewise, 35 full): it measures two of each kind and multiplies.
_GRAPH = 0.76 / 86
_MOST_CAPTURED = 512


def weights_gib(shape: ModelShape, ask: Ask) -> float:
    """GiB of weights on one GPU, as in the log line "Model loading took"."""
    attention_rate, mlp_rate, in_rate, out_rate = FORMATS[ask.weights]
    hidden = shape.hidden_size
    heads = shape.attention_heads * shape.head_dim
    attention = hidden * (2 * heads + 2 * shape.kv_heads * shape.head_dim)
    mlp = 3 * hidden * shape.intermediate_size
    columns = shape.mamba_d_ssm + 2 * shape.mamba_groups * shape.mamba_d_state
    mixer = hidden * (shape.in_proj_rows * in_rate + shape.mamba_d_ssm * out_rate)
    small = 2.0 * (columns * (shape.mamba_d_conv + 1) + 3 * shape.mamba_heads + 2 * hidden)
    layer = attention * attention_rate + mlp * mlp_rate + mixer + small
    embeddings = 2.0 * shape.vocab_size * hidden * (1 if shape.tied_embeddings else 2)
    shared = (layer * shape.layers + embeddings) / ask.tensor_parallel_size
    if ask.device == "cpu":
        return shared / GIB
    # The table of rotary positions is whole on every GPU, in FP32.
    rotary = 4.0 * shape.max_positions * shape.head_dim
    return (shared + rotary) / GIB + (_NVFP4_EXTRA if ask.weights.startswith("nvfp4") else 0.0)


def batched_tokens(rules: Mapping[str, Any], ask: Ask, gpu_gib: float) -> int:
    """Tokens of one step: the engine's default grows with the GPU."""
    if ask.max_num_batched_tokens is not None:
        return ask.max_num_batched_tokens
    for least, tokens in rules["batchedTokens"]:
        if gpu_gib >= least:
            return int(tokens)
    return 0


def working_gib(shape: ModelShape, rules: Mapping[str, Any], ask: Ask, tokens: int) -> float:
    """GiB of one GPU beside weights and cache, with steps of `tokens` tokens."""
    parallel = ask.tensor_parallel_size
    width = _INTERMEDIATE_COPIES * shape.intermediate_size / parallel + _HIDDEN_COPIES * shape.hidden_size
    step = 2.0 * tokens * width / GIB
    sampler = float(_SAMPLER_BYTES) * ask.max_num_seqs * shape.vocab_size / GIB
    gib = max(step, sampler) + _STEP_EXTRA + _NON_TORCH + (_NCCL if parallel > 1 else 0.0)
    if rules["cudaGraphsCounted"] and ask.cuda_graph_mode != "NONE":
        largest = min(2 * ask.max_num_seqs, _MOST_CAPTURED)
        graphs = _captured(largest) if "PIECEWISE" in ask.cuda_graph_mode or ask.cuda_graph_mode == "FULL" else 0
        if "FULL" in ask.cuda_graph_mode and ask.cuda_graph_mode != "FULL":
            graphs += _captured(min(ask.max_num_seqs, largest))
        gib += _GRAPH * graphs
    return gib


def _captured(largest: int) -> int:
    """How many batch sizes are captured: 1, 2, 4, by eights to 256, by sixteens beyond."""
    return min(largest, 3) + min(largest, 256) // 8 + max(0, largest - 256) // 16
