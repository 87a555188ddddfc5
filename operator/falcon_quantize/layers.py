"""Which weights of a Falcon-H1 become NVFP4, which of them belong together, and why the others stay in BF16."""

from __future__ import annotations

import re
from collections.abc import Iterator

BLOCK = 16
# Linears that vLLM computes as one matrix have one second-level scale: it keeps one number for the whole, and warns of
# lost accuracy where the parts bring different ones. ModelOpt's export does the same for linears with the same input.
GROUPS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mamba.in_proj",),
    ("mamba.out_proj",),
    ("feed_forward.gate_proj", "feed_forward.up_proj"),
    ("feed_forward.down_proj",),
)
MAMBA = ("mamba.in_proj", "mamba.out_proj")

_KEPT = (
    (r"lm_head\.", "vLLM computes the logits in BF16"),
    (r"model\.embed_tokens\.", "a lookup, not a product"),
    (r".*\.mamba\.conv1d\.", "vLLM's kernel takes BF16; 4 numbers a channel"),
    (r".*\.mamba\.(A_log|D|dt_bias)$", "the recurrence adds up their errors; a number a head"),
    (r".*norm\.weight$", "a number a channel"),
    (r".*\.bias$", "a number a channel"),
    (r".*\.mamba\.(in|out)_proj\.", "--keep-mamba"),
)


def groups(layer: int, keep_mamba: bool) -> Iterator[tuple[str, ...]]:
    """The names of a layer's weights to quantize, those together that share a scale."""
    for parts in GROUPS:
        if not (keep_mamba and parts[0] in MAMBA):
            yield tuple(f"model.layers.{layer}.{part}.weight" for part in parts)


def why_kept(name: str) -> str:
    """Why a tensor stays in BF16."""
    return next((reason for pattern, reason in _KEPT if re.match(pattern, name)), "not a linear that this tool knows")


def position(name: str) -> tuple[int, int, str]:
    """Where a tensor stands in the result: embedding, layers in order, the rest."""
    if found := re.match(r"model\.layers\.(\d+)\.", name):
        return (1, int(found[1]), name)
    return (0 if "embed" in name else 2, 0, name)
