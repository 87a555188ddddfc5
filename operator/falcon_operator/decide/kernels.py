"""What multiplies NVFP4 weights on a GPU, by the engine's version and the GPU's compute capability."""

from __future__ import annotations

import functools
import re
from typing import Literal, NamedTuple

from falcon_engine import profiles
from falcon_engine.profiles import capability
from falcon_operator.desired.gpu_needs import NATIVE_FP4

Tier = Literal["native", "weight-only", "emulation"]


class Kernels(NamedTuple):
    """Kernels as the engine's log names them, for checkpoints that quantize activations (W4A4) and for W4A16 ones."""

    tier: Tier | None = None
    kernel: str | None = None
    tier_w4a16: Tier | None = None
    kernel_w4a16: str | None = None

    @property
    def words(self) -> str:
        """How NVFP4 runs, to be read after the GPU's name; the kind of checkpoint counts where it decides."""
        at_best, else_ = (_words(*pair) for pair in ((self.tier, self.kernel), (self.tier_w4a16, self.kernel_w4a16)))
        if not at_best or not else_ or at_best == else_:
            return f"runs NVFP4 {at_best or else_}" if at_best or else_ else ""
        return f"runs NVFP4 {at_best} where the checkpoint is W4A4, {else_} where it is W4A16"


UNKNOWN = Kernels()


@functools.lru_cache(maxsize=1024)
def kernels(version: str | None, have: tuple[int, int]) -> Kernels:
    """The kernels of a profile's version on a GPU of this capability; only the tier where the version is not known."""
    if version is None:
        return Kernels(tier="native" if have >= NATIVE_FP4 else "weight-only")
    text = f"{have[0]}.{have[1]}"
    first: dict[str, tuple[Tier, str]] = {}
    for row in profiles.load(version).fact("kernels"):
        if any(capability.within(text, bounds) for bounds in row["capabilities"]):
            first.setdefault(row["checkpoint"], (row["tier"], row["kernel"]))
    return Kernels(*first.get("W4A4", (None, None)), *first.get("W4A16", (None, None)))


@functools.lru_cache(maxsize=1024)
def compiled(version: str, have: tuple[int, int]) -> bool:
    """Whether binaries of the wheel run: `8.0` on every 8.x from 8.0 on, `10.0f` on its family, `10.0a` on it alone."""
    for architecture in profiles.load(version).fact("architectures"):
        major, minor = capability.number(architecture.rstrip("af"))
        if major == have[0] and (minor == have[1] if architecture.endswith("a") else minor <= have[1]):
            return True
    return False


@functools.lru_cache(maxsize=1024)
def _words(tier: Tier | None, kernel: str | None) -> str:
    if tier is None:
        return ""
    does = {"native": "natively", "emulation": "by emulation"}.get(tier, tier)
    short = re.sub(r"^NvFp4LinearBackend\.|NvFp4|LinearKernel$", "", kernel or "")
    return f"{does} ({short})" if short else does
