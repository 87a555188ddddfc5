"""What the GPU is to compute with, decided from what was measured: pure, so that operator and launcher decide alike.

`winners.json` holds the measurements, one entry a GPU and version, each with its source. `capabilities` are the GPUs
that it is taken to speak for; of several that do, one of the very device counts first, then the last. A row is a number
of sequences at once, with output tokens a second of each format that was measured, all formats of it in one run.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pkgutil import get_data
from typing import Any

from falcon_engine import profiles
from falcon_engine.ask import Ask
from falcon_engine.fit import Fit, fit
from falcon_engine.gpu_memory import GIB, weights_gib
from falcon_engine.intent import COMPUTE_FORMATS
from falcon_engine.profiles import capability as capabilities
from falcon_engine.shape import ModelShape

AUTO, NVFP4, FP8, BF16 = COMPUTE_FORMATS
# From here on a GPU multiplies FP4 itself.
NATIVE_FP4 = (10, 0)
# The first version whose loader hands the quantization to every linear of Falcon-H1 (read in 0.18, 0.26 and 0.33).
FP8_VERSION = (0, 18)
# Of the volume, what `Auto` leaves free: a kubelet evicts pods from a node whose disk is filled further.
LEFT_FREE = 0.1
# How much one must be faster than NVFP4 to be worth the room: less is what two runs differ by.
_WORTH = 1.03


@dataclass(frozen=True)
class Facts:
    """What is known where the decision is made; None where it is not.

    `product` is the GPU's name, `capability` its compute capability, `version`
    that of the engine. `sequences` is the load that is expected: as many at once as the engine takes.
    """

    device: str
    product: str | None = None
    capability: str | None = None
    version: str | None = None
    sequences: int = 256


@dataclass(frozen=True)
class Choice:
    """The format that the weights are computed in, and one sentence on why. `asked`: the resource names it."""

    format: str
    why: str
    asked: bool = False


# Why a format cannot be had here, as the end of a sentence; None where nothing is known to be in its way.
Lacks = Callable[[str], "str | None"]


def choose(asked: str, facts: Facts, lacks: Lacks) -> Choice:
    """The format to compute an NVFP4 checkpoint in. `lacks` is asked for each that is wanted, the fastest first.

    A format that the resource names is chosen whatever it lacks: whoever makes it then says so.
    """
    if asked != AUTO:
        return Choice(asked, f"engine.computeFormat says {asked}.", asked=True)
    if facts.device == "cpu":
        return Choice(NVFP4, "engine.device is cpu, for which no other format was measured.")
    if facts.capability is None:
        return Choice(NVFP4, "The GPU's compute capability is not known.")
    if capabilities.number(facts.capability) >= NATIVE_FP4:
        return Choice(NVFP4, f"{_gpu(facts)} multiplies FP4 numbers itself.")
    found = measured(facts.product, facts.capability)
    if found is None:
        return Choice(NVFP4, f"No other format was measured on a GPU like {_gpu(facts)}.")
    return _fastest(found, facts, lacks)


def _fastest(found: Mapping[str, Any], facts: Facts, lacks: Lacks) -> Choice:
    row = min(found["rows"], key=lambda r: (abs(math.log(r["sequences"] / facts.sequences)), r["sequences"]))
    where = f"at {row['sequences']} sequences on an {found['device']} with vLLM {found['vllm']}"
    speeds = {form: row[form] for form in (FP8, BF16) if row.get(form, 0) > _WORTH * row[NVFP4]}
    missed = ""
    for form in sorted(speeds, key=lambda f: -speeds[f]):
        problem = _version_lacks(form, facts.version) or lacks(form)
        if problem is None:
            return Choice(form, f"{form} was {speeds[form] / row[NVFP4]:.2f} times as fast as NVFP4 {where}.{missed}")
        missed += f" {form} would be {speeds[form] / row[NVFP4]:.2f} times as fast as NVFP4 {where}, but {problem}."
    return Choice(NVFP4, missed.strip() or f"No other format was faster than NVFP4 {where}.")


def measured(product: str | None, capability: str) -> Mapping[str, Any] | None:
    """The measurement that speaks for a GPU, if one does."""
    alike = [w for w in winners() if capabilities.within(capability, w["capabilities"])]
    same = [w for w in alike if _key(w["device"]) == _key(product or "")]
    return next(reversed(same or alike), None)


@functools.cache
def winners() -> tuple[dict[str, Any], ...]:
    """The measurements of `winners.json`."""
    data = get_data(__package__, "winners.json")
    return tuple(json.loads(data or b"[]"))


def expanded_weights(weights: str, form: str, shape: ModelShape) -> str:
    """How `gpu_memory.FORMATS` calls the weights of an NVFP4 checkpoint (`weights`) in another format."""
    if form == NVFP4 or not weights.startswith("nvfp4"):
        return weights
    if form == BF16:
        return "bf16"
    rest = weights.removeprefix("nvfp4")
    if rest:
        return "fp8" + {"-linears-without-mamba": "-without-mamba", "-mlp": "-mlp"}[rest]
    return "fp8" if shape.in_proj_rows % 16 == 0 else "fp8-without-in-proj"


def in_format(wanted: Ask, form: str, shape: ModelShape) -> Ask:
    """The ask of the same engine after the expansion of an NVFP4 model of this shape."""
    return replace(wanted, weights=expanded_weights(wanted.weights, form, shape))


def gpu_lacks(shape: ModelShape, profile: profiles.Profile, wanted: Ask, form: str, gpu_gib: float) -> str | None:
    """Why a GPU does not hold the weights in this format beside a cache for as many sequences as with NVFP4."""
    there = fit(shape, profile, in_format(wanted, form, shape), gpu_gib=gpu_gib)
    now = fit(shape, profile, wanted, gpu_gib=gpu_gib)
    if there.verdict == "Refused" and now.verdict != "Refused":
        return f"its {there.weights_gib:.1f} GiB of weights leave too little of the GPU's {gpu_gib:.1f} GiB"
    fewer, many = _at_once(there), _at_once(now)
    if fewer < many:
        return (
            f"beside its {there.weights_gib:.1f} GiB of weights the GPU's {gpu_gib:.1f} GiB hold {fewer:,} sequences "
            f"at once, and with NVFP4 {many:,}"
        )
    return None


def _at_once(held: Fit) -> int:
    """Short sequences that run at once."""
    return min(held.max_num_seqs, held.sequences[0][1] if held.sequences else 0)


def disk_lacks(shape: ModelShape, wanted: Ask, form: str, free: float, total: float) -> str | None:
    """Why a volume with so many bytes does not do for the expansion, to be read after its name."""
    need = weights_gib(shape, replace(in_format(wanted, form, shape), tensor_parallel_size=1, device="cpu")) * GIB
    if free - need >= LEFT_FREE * total:
        return None
    return (
        f"has {free / GIB:.1f} of {total / GIB:.1f} GiB free, and it needs {need / GIB:.1f} GiB and leaves a tenth "
        "free (spec.cache)"
    )


def _version_lacks(form: str, version: str | None) -> str | None:
    parsed = profiles.parse(version) if version else None
    if form == FP8 and parsed is not None and parsed[:2] < FP8_VERSION:
        return f"vLLM {version} does not load it for this model"
    return None


def _gpu(facts: Facts) -> str:
    named = facts.product or "this GPU"
    return f"{named} (compute capability {facts.capability})"


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", re.sub("nvidia", "", name.lower()))
