"""What is measured, in order of importance: which engine, on which checkpoint, with what set, under which loads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
# One thread compiles in vLLM; here as many as there are processors for it.
PARALLEL = '{"cudagraph_mode":"FULL_AND_PIECEWISE","inductor_compile_config":{"compile_threads":12}}'


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


_BY_HAND: dict[str, Any] = {"by": "vllm", "arguments": CARD, "environ": NO_SAMPLER, "greedy": True}
_ALL: dict[str, Any] = {"cache": "cold", "combine": True, "loads": ALL}
# One GPU: every pair that a claim rests on.
PAIRS = (
    Session("card nvfp4", "nvfp4", **_BY_HAND, loads=(CROWD, LONG, THIRTY_TWO, ONE), seconds=260),
    Session("plain bf16", "bf16", **_BY_HAND, loads=ALL),
    _ours("ours fp8 best", "fp8", **{**_ALL, "loads": (*ALL, SAMPLED)}, greedy=True),
    _ours("ours nvfp4", "nvfp4", **_ALL),
    _ours("ours bf16", "bf16-expanded", **_ALL, greedy=True),
)
# Another one: the start, and one thing changed at a time. Each is compared with `BASE`.
KNOBS = (
    _ours("fp8 cold", cache="cold", loads=(CROWD, SAMPLED), seconds=220),
    _ours(BASE, cache="cold"),
    _ours("fp8 mode all", "fp8", "--mamba-cache-mode", "all", cache="cold"),
    _ours("fp8 no prefix caching", cache="cold", intent={"prefix_caching": False}),
    _ours("fp8 parallel compile", "fp8", "--compilation-config", PARALLEL, cache="parallel", loads=(CROWD,)),
    _ours("fp8 1024 sequences", cache="cold", intent={"max_num_seqs": 1024}, loads=(THOUSAND, CROWD)),
    _ours("fp8 warm", cache="cold", combine=True, loads=(CROWD,)),
    _ours("fp8 flashinfer mamba", "fp8", "--mamba-backend", "flashinfer", cache="cold", offered=True, seconds=180),
    _ours("fp8 float32 state", "fp8", "--mamba-ssm-cache-dtype", "float32", cache="cold"),
    _ours("fp8 two API servers", "fp8", "--api-server-count", "2", cache="cold", loads=(CROWD, LONG)),
    _ours("fp8 humming", "fp8", "--linear-backend", "humming", cache="cold", offered=True, seconds=180),
    _ours("fp8 16384 batched tokens", "fp8", "--max-num-batched-tokens", "16384", cache="cold"),
    _ours("nvfp4 humming", "nvfp4", "--linear-backend", "humming", cache="cold", seconds=180),
)


def lanes(gpus: int) -> list[list[Session]]:
    """Sessions for each GPU. With one, the pairs come first, then as many of the rest as there is time for."""
    if gpus > 1:
        return [list(PAIRS), list(KNOBS)]
    by_name = {session.name: replace(session, cache="") for session in (*PAIRS, *KNOBS)}
    first = ("card nvfp4", BASE, "plain bf16", "ours fp8 best")
    rest = [name for name in by_name if name not in (*first, "fp8 cold", "fp8 warm", "fp8 parallel compile")]
    return [[by_name[name] for name in (*first, *rest)]]


def of_form(checkpoint: str) -> Session:
    """A session that measures one more form of the checkpoint."""
    return _ours(f"ours {checkpoint}", checkpoint, cache="cold", greedy=True)


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
