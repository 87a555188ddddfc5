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
BASE = "fp8 fork"
# Of all loads' speeds together: less is noise.
WORTH_IT = 1.01
FORK = {"VLLM_WORKER_MULTIPROC_METHOD": "fork"}
FEW_GRAPHS = tuple(
    [
        "--cudagraph-capture-sizes",
        "1",
        "2",
        "4",
        "8",
        "16",
        "24",
        "32",
        "48",
        "64",
        "96",
        "128",
        "160",
        "192",
        "224",
        "256",
    ]
)


@dataclass(frozen=True)
class Session:
    """One start of an engine and what is asked of it.

    `by` is `launcher` (as the operator starts it, `intent` changing the defaults) or `vllm` (by hand). `seconds` is
    what its start and its first load take at most: with less left it is not begun. `quick` forks the engine core where
    an earlier session has shown that this works, `combine` adds the flags that have won until then. `cache` names the
    folder of compiled kernels, "" the lane's own.
    """

    name: str
    checkpoint: str
    by: str = "launcher"
    intent: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    loads: tuple[Load, ...] = KNOB
    greedy: bool = False
    quick: bool = False
    combine: bool = False
    cache: str = ""
    seconds: int = 130


def _ours(name: str, checkpoint: str = "fp8", *arguments: str, **more: Any) -> Session:
    return Session(name, checkpoint, arguments=arguments, **more)


_BY_HAND: dict[str, Any] = {"by": "vllm", "arguments": CARD, "environ": NO_SAMPLER, "loads": ALL, "greedy": True}
# One GPU: every pair that a claim rests on.
PAIRS = (
    Session("card nvfp4", "nvfp4", **_BY_HAND, seconds=260),
    _ours("ours fp8", "fp8", loads=(*ALL, SAMPLED), greedy=True),
    Session("plain bf16", "bf16", **_BY_HAND),
    _ours("ours bf16", "bf16-expanded", loads=ALL, greedy=True),
    _ours("ours fp8 best", "fp8", quick=True, combine=True, loads=ALL),
)
# Another one: the start, and one thing changed at a time. Each is compared with `fp8 fork`.
KNOBS = (
    _ours("fp8 cold", cache="cold", seconds=220),
    _ours("fp8 warm", cache="cold", loads=(CROWD,)),
    _ours(BASE, cache="cold", environ=FORK, seconds=100),
    _ours("fp8 stream interval 8", "fp8", "--stream-interval", "8", cache="cold", quick=True),
    _ours("fp8 few graphs", "fp8", *FEW_GRAPHS, cache="cold", quick=True),
    _ours("fp8 16384 batched tokens", "fp8", "--max-num-batched-tokens", "16384", cache="cold", quick=True),
    _ours("fp8 two API servers", "fp8", "--api-server-count", "2", cache="cold", quick=True, loads=(CROWD, LONG)),
    _ours("ours nvfp4", "nvfp4", cache="cold", quick=True, loads=ALL),
    _ours("fp8 1024 sequences", cache="cold", quick=True, intent={"max_num_seqs": 1024}, loads=(THOUSAND, CROWD)),
    _ours("fp8 no prefix caching", cache="cold", quick=True, intent={"prefix_caching": False}),
    _ours("nvfp4 humming", "nvfp4", "--linear-backend", "humming", cache="cold", quick=True, seconds=180),
    _ours("fp8 flashinfer mamba", "fp8", "--mamba-backend", "flashinfer", cache="cold", quick=True, seconds=180),
    _ours("fp8 float32 state", "fp8", "--mamba-ssm-cache-dtype", "float32", cache="cold", quick=True),
    _ours("fp8 4096 batched tokens", "fp8", "--max-num-batched-tokens", "4096", cache="cold", quick=True),
    _ours("fp8 humming", "fp8", "--linear-backend", "humming", cache="cold", quick=True, seconds=180),
)


def lanes(gpus: int) -> list[list[Session]]:
    """Sessions for each GPU. With one, the pairs come first, then as many of the rest as there is time for."""
    if gpus > 1:
        return [list(PAIRS), list(KNOBS)]
    by_name = {session.name: replace(session, cache="") for session in (*PAIRS, *KNOBS)}
    first = ("card nvfp4", "ours fp8", "plain bf16", BASE, "ours bf16", "fp8 stream interval 8", "fp8 two API servers")
    rest = [name for name in by_name if name not in (*first, "fp8 cold", "fp8 warm")]
    return [[by_name[name] for name in (*first, *rest)]]


def of_form(checkpoint: str) -> Session:
    """A session that measures one more form of the checkpoint."""
    return _ours(f"ours {checkpoint}", checkpoint, cache="cold", quick=True, greedy=True)


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
        changed_only_flags = session.arguments and session.checkpoint == "fp8" and not session.intent
        if changed_only_flags and both and math.prod(both) ** (1 / len(both)) > WORTH_IT:
            chosen += session.arguments
    return chosen
