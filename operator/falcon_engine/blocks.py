"""The cache's blocks, as vLLM cuts them: attention and Mamba states of Falcon-H1 share one pool of blocks.

A block of the pool holds one page in every layer. An attention page holds the keys and values of `tokens` tokens; a
Mamba page holds one state, padded to the same size. The profile's fact `blockRules` says what differs by version:
`prefixCachingMode` is the Mamba cache mode with prefix caching (without it: `none`), `modes` those that can be asked
for, `stateBlocks` the blocks that a sequence's states take (in mode `all` one beside every block of its tokens),
`alignment` what a block is a multiple of, `blockSizeAligns` whether `--block-size` replaces that, `checkpointKVDtype`
whether `--kv-cache-dtype auto` follows the checkpoint. `tokens` is how the engine counts them: by its concurrency, or
by half of its blocks. `nullBlockReserved`: its start check leaves out the block that it keeps for itself.
`sequencesNeedBlocks`: capturing whole CUDA graphs, it needs a block for each of max_num_seqs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from falcon_engine.ask import Ask
from falcon_engine.shape import ModelShape

# Bytes of a number, by vLLM's names of its formats; those of NVFP4 with their scales.
BYTES: dict[str, float] = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "half": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_inc": 1,
    "nvfp4": 0.5625,
}
MODEL_DTYPE = "bfloat16"


@dataclass(frozen=True)
class Blocks:
    """How the cache is cut: `tokens` of a block, `size` of a block in bytes on one GPU, and the Mamba cache's mode."""

    tokens: int
    size: int
    mode: str
    # Tokens that one state stands for in mode `all`; the blocks of a sequence's states in the others.
    state_tokens: int
    state_blocks: int

    def of_sequence(self, length: int) -> int:
        """Blocks that one sequence of `length` tokens takes."""
        blocks = -(-length // self.tokens)
        return blocks + (-(-length // self.state_tokens) if self.mode == "all" else self.state_blocks)

    def longest(self, blocks: int) -> int:
        """Tokens of the longest sequence that `blocks` blocks hold; 0 where they hold none."""
        if self.mode == "all":
            low, high = 0, blocks * self.tokens
            while low < high:
                middle = (low + high + 1) // 2
                low, high = (middle, high) if self.of_sequence(middle) <= blocks else (low, middle - 1)
            return low
        return max(0, blocks - self.state_blocks) * self.tokens


def cut(shape: ModelShape, rules: Mapping[str, Any], ask: Ask) -> Blocks:
    """How this version cuts the cache of this model."""
    token = token_bytes(shape, rules, ask)
    state = state_bytes(shape, ask)
    mode = _mode(rules, ask)
    default = rules["alignment"][ask.device]
    given = ask.block_size or default
    alignment = max(given, rules["alignment"]["cuda"]) if rules["blockSizeAligns"] else rules["alignment"]["cuda"]
    if mode == "all":
        alignment = math.lcm(ask.mamba_block_size or shape.mamba_chunk, alignment)
    least = alignment * -(-state // (alignment * token))
    tokens = max(given, least)
    return Blocks(tokens, shape.layers * tokens * token, mode, least, rules["stateBlocks"].get(mode, 0))


def token_bytes(shape: ModelShape, rules: Mapping[str, Any], ask: Ask) -> int:
    """Bytes of one token's keys and values in one layer on one GPU; a head that cannot be split is repeated."""
    dtype = ask.kv_cache_dtype
    if dtype == "auto" and rules["checkpointKVDtype"]:
        dtype = shape.kv_cache_dtype
    heads = max(1, shape.kv_heads // ask.tensor_parallel_size)
    return int(2 * heads * shape.head_dim * BYTES[MODEL_DTYPE if dtype == "auto" else dtype])


def state_bytes(shape: ModelShape, ask: Ask) -> int:
    """Bytes of one sequence's Mamba state in one layer on one GPU: the convolution's window and the SSM state."""
    parallel = ask.tensor_parallel_size
    conv_dtype = MODEL_DTYPE if ask.mamba_dtype == "auto" else ask.mamba_dtype
    ssm_dtype = conv_dtype if ask.ssm_dtype == "auto" else ask.ssm_dtype
    # A group that cannot be split is repeated on every GPU.
    groups = shape.mamba_groups if shape.mamba_groups % parallel == 0 else parallel
    columns = (shape.mamba_d_ssm + 2 * groups * shape.mamba_d_state) // parallel
    conv = (shape.mamba_d_conv - 1) * columns * BYTES[conv_dtype]
    ssm = shape.mamba_heads // parallel * shape.mamba_head_dim * shape.mamba_d_state * BYTES[ssm_dtype]
    return int(conv + ssm)


def _mode(rules: Mapping[str, Any], ask: Ask) -> str:
    if not ask.prefix_caching:
        return "none"
    return str(ask.mamba_cache_mode if ask.mamba_cache_mode in rules["modes"] else rules["prefixCachingMode"])
