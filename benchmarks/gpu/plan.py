"""What is measured, in order of importance: which engine, on which checkpoint, with what set, under which loads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gpu.load import Load

ONE = Load(1, 4, 128, 128)
EIGHT = Load(8, 32, 128, 128)
THIRTY_TWO = Load(32, 128, 128, 128)
HUNDRED = Load(100, 400, 128, 128)
CROWD = Load(250, 750, 128, 128)
THOUSAND = Load(1000, 1000, 128, 128)
LONG = Load(256, 256, 128, 1024)
PROMPTS = Load(32, 96, 4096, 128)
SAMPLED = Load(250, 750, 128, 128, sampled=True)
# Sizes of batches for which few CUDA graphs pad most.
PADDED = (Load(66, 264, 128, 128), Load(132, 528, 128, 128))
# Prompts that begin alike: with a block of some 3,100 tokens, one that leaves the first block, and one that leaves the
# last prompt before its last block.
ALIKE = (Load(16, 64, 4096, 64, shared=3840), Load(16, 64, 8000, 64, shared=4000))

ALL = (CROWD, LONG, PROMPTS, ONE, THIRTY_TWO, HUNDRED, THOUSAND, EIGHT)
KNOB = (CROWD, LONG, PROMPTS)

# The model card's flags, for the engine started by hand.
CARD = (
    *[
        "--kv-cache-dtype",
        "fp8",
        "--max-model-len",
        "65536",
        "--max-num-seqs",
        "256",
        "--gpu-memory-utilization",
        "0.88",
    ],
    *("--enable-prefix-caching", "--compilation-config", '{"cudagraph_mode":"FULL_AND_PIECEWISE"}'),
)
# FlashInfer's sampler is built by nvcc for two minutes at its first use, and greedy sampling does not use it.
NO_SAMPLER = {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
# What a knob is compared with: an engine as the launcher starts it.
BASE = "ours fp8"
# Of all loads' speeds together: less is noise.
WORTH_IT = 1.01
# vLLM's own way with torch 2.11: what it has compiled is kept as one piece for each layer.
PIECES = {"VLLM_USE_MEGA_AOT_ARTIFACT": "0"}


@dataclass(frozen=True)
class Session:
    """One start of an engine and what is asked of it.

    `by` is `launcher` (as the operator starts it, `intent` changing the defaults) or `vllm` (by hand). `seconds` is
    what its start and its first load take at most: with less left it is not begun. `offered` is a knob whose flags
    could become defaults, `combine` adds those of them that have won until then. `cache` names the folder of compiled
    kernels, "" the lane's own.
    """

    name: str
    checkpoint: str
    by: str = "launcher"
    intent: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    loads: tuple[Load, ...] = KNOB
    greedy: bool = False
    offered: bool = False
    combine: bool = False
    cache: str = ""
    seconds: int = 130


def _ours(name: str, checkpoint: str = "fp8", *arguments: str, **more: Any) -> Session:
    return Session(name, checkpoint, arguments=arguments, **more)


_BY_HAND: dict[str, Any] = {"by": "vllm", "arguments": CARD, "environ": NO_SAMPLER, "cache": "by-hand", "greedy": True}
# The first GPU: every pair that a claim rests on.
PAIRS = (
    Session("card nvfp4", "nvfp4", **_BY_HAND, loads=(CROWD, LONG, THIRTY_TWO, ONE), seconds=260),
    Session("plain bf16", "bf16", **_BY_HAND, loads=ALL),
    _ours("ours fp8 best", "fp8", combine=True, loads=(*ALL, SAMPLED), greedy=True, seconds=220),
    _ours("ours nvfp4", "nvfp4", loads=ALL, greedy=True),
    _ours("ours bf16", "bf16-expanded", loads=ALL, greedy=True),
)
# After them there: one thing changed at a time.
MORE_KNOBS = (
    _ours("fp8 1024 sequences", intent={"max_num_seqs": 1024}, loads=(THOUSAND, CROWD)),
    _ours("fp8 float32 state", "fp8", "--mamba-ssm-cache-dtype", "float32"),
    _ours("fp8 16384 batched tokens", "fp8", "--max-num-batched-tokens", "16384"),
    _ours("fp8 stream interval 8", "fp8", "--stream-interval", "8"),
    _ours("nvfp4 humming", "nvfp4", "--linear-backend", "humming", seconds=180),
)
# The other GPU: the start, and one thing changed at a time.
KNOBS = (
    _ours("fp8 cold", loads=(CROWD, SAMPLED), seconds=220),
    _ours(BASE, loads=(*KNOB, *PADDED, *ALIKE)),
    _ours("fp8 warm", combine=True, loads=(CROWD,)),
    _ours("fp8 pieces cold", environ=PIECES, cache="pieces", loads=(CROWD,), seconds=220),
    _ours("fp8 pieces warm", environ=PIECES, cache="pieces", loads=(CROWD,)),
    _ours("fp8 no prefix caching", intent={"prefix_caching": False}, loads=(*KNOB, *ALIKE)),
    _ours("fp8 mode all", "fp8", "--mamba-cache-mode", "all", loads=(*KNOB, *ALIKE)),
    _ours("fp8 51 graphs", "fp8", "--max-cudagraph-capture-size", "512", loads=(*KNOB, *PADDED)),
    _ours("fp8 two API servers", "fp8", "--api-server-count", "2", loads=(CROWD, LONG)),
    _ours("fp8 flashinfer mamba", "fp8", "--mamba-backend", "flashinfer", offered=True, seconds=180),
    _ours("fp8 humming", "fp8", "--linear-backend", "humming", offered=True, seconds=180),
)


def lanes(gpus: int) -> list[list[Session]]:
    """Sessions for each GPU. With one, the pairs come first, then as many of the rest as there is time for."""
    if gpus > 1:
        return [[*PAIRS, *MORE_KNOBS], list(KNOBS)]
    by_name = {session.name: session for session in (*PAIRS, *KNOBS, *MORE_KNOBS)}
    first = ("card nvfp4", "fp8 cold", BASE, "plain bf16", "ours fp8 best")
    rest = [name for name in by_name if name not in first]
    return [[by_name[name] for name in (*first, *rest)]]


def of_form(checkpoint: str) -> Session:
    """A session that measures one more form of the checkpoint."""
    return _ours(f"ours {checkpoint}", checkpoint, greedy=True)


def winning(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Arguments of the sessions that changed one flag and were faster than `BASE`, all loads that both had together."""
    speeds: dict[str, dict[str, float]] = {}
    for row in rows:
        if "load" in row and row.get("completed"):
            speeds.setdefault(row["of"], {})[row["load"]] = row["tokens_per_second"]
    base = speeds.get(BASE, {})
    chosen: list[str] = []
    for session in KNOBS:
        measured = speeds.get(session.name, {})
        both = [measured[load] / base[load] for load in measured.keys() & base.keys()]
        if session.offered and both and math.prod(both) ** (1 / len(both)) > WORTH_IT:
            chosen += session.arguments
    return chosen
