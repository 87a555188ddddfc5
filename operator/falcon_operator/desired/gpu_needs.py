"""What an engine needs of a node's GPU, from the spec and the engine's profile alone.

Nothing here depends on which nodes there are: what a node's labels do to the pod template would restart engines.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

from falcon_engine import profiles
from falcon_engine.ask import Ask, from_intent
from falcon_engine.compute_format import in_format
from falcon_engine.fit import least_gpu_gib, least_mib
from falcon_engine.profiles import Profile, capability
from falcon_engine.shape import FALCON_H1R_7B
from falcon_operator.api.engine import ComputeFormat, Device, Engine
from falcon_operator.api.gpu import FP4, GPU
from falcon_operator.api.lifecycle import Fit
from falcon_operator.api.spec import Spec
from falcon_operator.desired import gpu_labels, quantity
from falcon_operator.desired.intent import intent, version_of_tag

# The first compute capability that multiplies FP4 numbers itself.
NATIVE_FP4 = (10, 0)
# What all engines of a shared GPU may take of it together; the rest is for their contexts.
SHARED_UTILIZATION = 0.9
# Where no strategy is labelled, no count of sharers above it is believed: each is a value in every affinity.
MOST_SHARERS = 20
_LARGEST_MIB = 1 << 24
# What the checkpoint is taken to be until an engine has loaded it: Falcon-H1R-7B with every linear in NVFP4.
_WEIGHTS = FALCON_H1R_7B.weights
_NOTHING_ASKED = Spec()


@dataclass(frozen=True)
class Needs:
    """What a node must offer.

    `memory_mib` is what the engine cannot do without, `memory_asked_mib` what the user asks for, both as the label
    states memory. `profile_mib` is the memory that a MIG profile has in its name. `most_sharers` is how many engines
    may share a GPU at this utilization; None where that is not looked at.
    """

    resource: str | None
    count: int
    labels_of: str
    products: tuple[str, ...] = ()
    memory_asked_mib: int | None = None
    memory_mib: int = 0
    profile_mib: int | None = None
    capability: tuple[int, int] = (0, 0)
    native_fp4: FP4 = FP4.ALLOW
    driver: int = 0
    most_sharers: int | None = None
    utilization: float = 0.0

    @functools.cached_property
    def least_capability(self) -> tuple[int, int]:
        """The least compute capability, native FP4 included where it is required."""
        return max(self.capability, NATIVE_FP4) if self.native_fp4 is FP4.REQUIRE else self.capability


def profile_of(spec: Spec, image: str) -> Profile | None:
    """The profile of the version that the spec or the image's tag states; None where neither does."""
    version = spec.engine.version or version_of_tag(image)
    return None if version is None else profiles.select(version)[0]


def needs(spec: Spec, profile: Profile | None) -> Needs | None:
    """What a pod needs; None where it asks for no GPU.

    `profile` is None where the engine's version is not known: then only what every known version needs is needed.
    """
    return _needs(spec.engine, spec.gpu, spec.fit, profile.file.removesuffix(".json") if profile is not None else None)


def ask_of(spec: Spec, profile: Profile) -> Ask:
    """What an engine of the spec is asked for, as far as its memory depends on it; with Auto as the checkpoint is."""
    # Versions read arguments, and treat the CPU, each in their own way; of all else they are asked alike.
    alike = not spec.engine.extra_args and spec.engine.device is Device.CUDA
    return _ask(spec.engine, spec.gpu, profiles.VERSIONS[-1] if alike else profile.file.removesuffix(".json"))


@functools.lru_cache(maxsize=4096)
def _ask(engine: Engine, gpu: GPU, version: str) -> Ask:
    # Engines that share a GPU are each asked for their share of all of it.
    spec = _NOTHING_ASKED.model_copy(update={"engine": engine, "gpu": gpu})
    wanted = from_intent(intent(spec, ""), profiles.load(version), _WEIGHTS)
    return (
        wanted
        if engine.compute_format is ComputeFormat.AUTO
        else in_format(wanted, engine.compute_format.value, FALCON_H1R_7B)
    )


@functools.lru_cache(maxsize=4096)
def _needs(engine: Engine, gpu: GPU, fit: Fit, version: str | None) -> Needs | None:
    spec = _NOTHING_ASKED.model_copy(update={"engine": engine, "gpu": gpu, "fit": fit})
    count = spec.effective_gpu_count
    if not count and not spec.gpu.claims:
        return None
    resource = spec.gpu.effective_resource_name if count else None
    asked = spec.gpu.memory_at_least
    asked_mib = None if asked is None else quantity.mebibytes(asked)
    named = gpu_labels.mig_gib(resource) if resource else None
    if spec.engine.device is Device.CPU:
        # It asks for the device and computes nothing on it: only what the user says of it counts.
        return Needs(
            resource=resource,
            count=count,
            labels_of=gpu_labels.prefix(resource or gpu_labels.GPU),
            products=spec.gpu.products,
            memory_asked_mib=asked_mib,
        )
    known = [profiles.load(v) for v in (profiles.VERSIONS if version is None else (version,))]
    asks = [ask_of(spec, p) for p in known]
    utilization = asks[0].gpu_memory_utilization
    return Needs(
        resource=resource,
        count=count,
        labels_of=gpu_labels.prefix(resource or gpu_labels.GPU),
        capability=min(capability.number(p.fact("minimumCapability")) for p in known),
        native_fp4=spec.gpu.fp4,
        driver=min(int(p.fact("driverFloor")) for p in known),
        memory_mib=_least_mib(known, asks, fit is Fit.CLAMP, named is not None),
        memory_asked_mib=asked_mib,
        profile_mib=None if named is None else named * 1024,
        products=spec.gpu.products,
        most_sharers=None if resource is None else _most_sharers(utilization, count),
        utilization=utilization,
    )


def _most_sharers(utilization: float, count: int) -> int:
    """Two shares of one pod may be of one GPU, so that a pod which asks for several can have no shares."""
    return 1 if count > 1 else max(1, int(SHARED_UTILIZATION / utilization + 1e-9))


def _least_mib(known: list[Profile], asks: list[Ask], clamp: bool, mig: bool) -> int:
    """The least memory as the label states it, which counts what the driver keeps for itself; 0 where none is enough.

    What no GPU can hold is no matter of nodes: the fit says it.
    """
    # Versions differ in many things and in few of these.
    unlike = {(_rules(p.file), a): p for p, a in zip(known, asks, strict=True)}
    least = min(least_gpu_gib(FALCON_H1R_7B, p, a, clamp=clamp) for (_, a), p in unlike.items())
    found = least_mib(least, mig=mig)
    return 0 if found is None or found > _LARGEST_MIB else found


@functools.cache
def _rules(file: str) -> str:
    """What a version's memory depends on; equal where two versions do not differ in it."""
    return json.dumps(profiles.load(file.removesuffix(".json")).fact("blockRules"), sort_keys=True)
