"""The GPUs that the container sees, and whether this engine can run on them."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from falcon_engine.profiles import Profile, capability
from falcon_engine.signatures import CONFIGURATION_EXIT, Diagnosis

# nvidia-smi may have to wake the GPUs first.
SECONDS = 15.0
_FIELDS = ("name", "memory.total", "compute_cap", "driver_version")
# The least driver of each major version of CUDA, in NVIDIA's table; for images that say which one they hold.
_CUDA_DRIVERS = {12: 525, 13: 580}
_MIG = re.compile(r"nvidia\.com/mig-(?:\d+c\.)?\d+g\.(\d+)gb")
_MIB_OF_GB = 1e9 / (1 << 20)
_OFFICIAL = re.compile(r"v?[\d.]+(rc\d+)?(\+cu\d+)?")
SHARED = "nvidia.com/gpu.shared"


@dataclass(frozen=True)
class Gpu:
    """One GPU as its driver describes it; None where it does not. `memory_mib` of a MIG slice is the slice's."""

    name: str
    memory_mib: int | None = None
    capability: str | None = None
    driver: str | None = None


def read(
    resource: str | None = None, program: str = "nvidia-smi", environ: Mapping[str, str] = os.environ
) -> tuple[Gpu, ...]:
    """The GPUs that nvidia-smi lists and CUDA_VISIBLE_DEVICES leaves; none without nvidia-smi, or where it fails.

    `resource` is the extended resource that they were asked for as: of a MIG slice its name tells the memory.
    """
    command = [program, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # and no wait for it: a broken driver holds it where no signal reaches
        return ()
    except OSError:
        return ()
    found = parse(output[:65536].decode("utf-8", "replace")) if process.returncode == 0 else ()
    found = visible(found, environ.get("CUDA_VISIBLE_DEVICES", ""))
    slice_mib = mig_mib(resource)
    return tuple(replace(gpu, memory_mib=slice_mib) for gpu in found) if slice_mib else found


def parse(text: str) -> tuple[Gpu, ...]:
    """The GPUs in nvidia-smi's CSV. A value in brackets, such as `[N/A]`, is not known."""
    found = []
    for line in text.splitlines():
        values = [value.strip() for value in line.rsplit(",", len(_FIELDS) - 1)]
        if len(values) == len(_FIELDS) and values[0]:
            name, memory, compute, driver = values
            found.append(
                Gpu(
                    name,
                    int(memory) if re.fullmatch(r"[1-9]\d{0,8}", memory) else None,
                    compute if re.fullmatch(r"\d{1,3}\.\d{1,2}", compute) else None,
                    driver if re.fullmatch(r"\d{1,5}(\.\d{1,5}){0,3}", driver) else None,
                )
            )
    return tuple(found)


def visible(gpus: tuple[Gpu, ...], devices: str) -> tuple[Gpu, ...]:
    """Those that `devices`, a list of indices, names; all of them where it is something else, such as UUIDs."""
    numbers = [int(number) for number in devices.split(",") if number.strip().isdecimal()]
    chosen = tuple(gpus[number] for number in numbers if number < len(gpus))
    return chosen if len(chosen) == len(devices.split(",")) else gpus


def mig_mib(resource: str | None) -> int | None:
    """MiB of a MIG slice by its resource's name, such as nvidia.com/mig-1g.24gb; None for another resource."""
    match = _MIG.match(resource or "")
    return int(int(match[1]) * _MIB_OF_GB) if match else None


def least_mib(gpus: Sequence[Gpu]) -> int | None:
    """Memory of the smallest GPU; None where one of them is not known."""
    sizes = [gpu.memory_mib for gpu in gpus if gpu.memory_mib]
    return min(sizes) if sizes and len(sizes) == len(gpus) else None


def refusal(
    gpus: Sequence[Gpu], profile: Profile, version: str | None, nvfp4: bool, environ: Mapping[str, str]
) -> Diagnosis | None:
    """Why this engine cannot run this checkpoint on these GPUs; None where nothing is known to be in its way."""
    for gpu in gpus:
        for reason, find in (
            ("DriverTooOld", _driver(gpu, profile, version, environ)),
            ("GPUNotSupported", _compute(gpu, profile, version, nvfp4)),
        ):
            if find:
                return Diagnosis(reason, *find, CONFIGURATION_EXIT, version)
    return None


def _driver(gpu: Gpu, profile: Profile, version: str | None, environ: Mapping[str, str]) -> tuple[str, str] | None:
    if environ.get("VLLM_ENABLE_CUDA_COMPATIBILITY", "0").strip().lower() in ("1", "true"):
        return None  # the image brings a newer driver library of its own
    floor, said = _fact(profile, "driverFloor"), f"vLLM {version or profile.version} needs"
    # The engine's version may say, as in 0.26.0+cu129, and an image of NVIDIA's does: the profile's is the wheel's.
    cuda = re.search(r"\+cu(\d\d)", version or "") or re.match(r"(\d\d)\.", environ.get("CUDA_VERSION", ""))
    if cuda and int(cuda[1]) in _CUDA_DRIVERS:
        floor, said = _CUDA_DRIVERS[int(cuda[1])], f"CUDA {cuda[1]} of this image needs"
    if floor is None or gpu.driver is None or int(gpu.driver.partition(".")[0]) >= floor:
        return None
    return (
        f"The driver of {gpu.name} is {gpu.driver}, and {said} {floor} or newer.",
        "Update the node's driver, let spec.scheduling choose other nodes, or use an image with an older CUDA.",
    )


def _compute(gpu: Gpu, profile: Profile, version: str | None, nvfp4: bool) -> tuple[str, str] | None:
    if gpu.capability is None:
        return None
    have, stated = capability.number(gpu.capability), f"vLLM {version or profile.version}"
    least = _fact(profile, "minimumCapability") if nvfp4 else None
    if least and have < capability.number(least):
        return (
            f"{gpu.name} has compute capability {gpu.capability}, and {stated} runs NVFP4 from {least} on.",
            "Let spec.gpu.products or spec.scheduling choose newer GPUs.",
        )
    # A build of somebody else's, such as 0.13.0+nv26.01, has its own list.
    built = _fact(profile, "architectures") if _OFFICIAL.fullmatch(version or profile.version) else None
    if built and not any(_runs(have, architecture) for architecture in built):
        return (
            f"{gpu.name} has compute capability {gpu.capability}, and {stated} is built for {', '.join(built)}.",
            "Use another GPU (spec.gpu.products), or an image that is built for this one.",
        )
    return None


def _runs(have: tuple[int, int], architecture: str) -> bool:
    """Code for 8.0 runs on 8.6 too, not on 9.0; the suffix `a` binds it to its own architecture."""
    major, minor = capability.number(architecture.rstrip("af"))
    return have == (major, minor) if architecture.endswith("a") else have[0] == major and have[1] >= minor


def _fact(profile: Profile, name: str) -> Any:
    return profile.fact(name) if name in profile.facts else None
