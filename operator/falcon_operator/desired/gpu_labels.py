"""Node labels of NVIDIA's GPU feature discovery, and numbers in labels as the scheduler reads them."""

from __future__ import annotations

import functools
import re

DOMAIN = "nvidia.com/"
GPU = "nvidia.com/gpu"
CAPABILITY_MAJOR = "nvidia.com/gpu.compute.major"
CAPABILITY_MINOR = "nvidia.com/gpu.compute.minor"
PRODUCT = "nvidia.com/gpu.product"
# Feature discovery has published the first name since 0.15 beside the second, which every version has.
DRIVER = "nvidia.com/cuda.driver-version.major"
DRIVER_OLD = "nvidia.com/cuda.driver.major"

# Strategies in which several pods get one GPU.
SHARED = ("mps", "time-slicing")

_MIG_RESOURCE = re.compile(r"nvidia\.com/mig-(?:[1-9]\d*c\.)?[1-9]\d*g\.([1-9]\d{0,4})gb")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_PLAIN = re.compile(r"0|[1-9][0-9]{0,17}")
_LARGEST = 2**63

_RELEVANT = frozenset({CAPABILITY_MAJOR, CAPABILITY_MINOR, DRIVER, DRIVER_OLD})
_OF_RESOURCE = ("product", "memory", "replicas", "sharing-strategy")


def prefix(resource: str) -> str:
    """What the labels of an extended resource begin with.

    A resource that was renamed because it is shared keeps its labels.
    """
    return resource.removesuffix(".shared")


def of(resource: str, what: str) -> str:
    """A label of an extended resource: its `memory` (MiB), `product`, `replicas` or `sharing-strategy`."""
    return f"{prefix(resource)}.{what}"


def mig_gib(resource: str) -> int | None:
    """The memory that a MIG profile has in its name; None for a whole GPU."""
    match = _MIG_RESOURCE.match(resource)
    return int(match[1]) if match else None


def concerns_gate(key: str) -> bool:
    """Whether the gate looks at a label."""
    if key in _RELEVANT:
        return True
    return key.startswith((GPU, DOMAIN + "mig-")) and key.rpartition(".")[2] in _OF_RESOURCE


def scheduler_number(text: str) -> int | None:
    """What the scheduler's Gt and Lt make of a label's value; None where they do not match at all."""
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text) if len(text) < 30 else _LARGEST
    return number if -_LARGEST <= number < _LARGEST else None


@functools.lru_cache(maxsize=1024)
def plain_number(text: str | None, most: int) -> int | None:
    """A count as labels write it, up to the largest that can be true; None for anything else."""
    if text is None or not _PLAIN.fullmatch(text) or int(text) > most:
        return None
    return int(text)
