"""Which GPUs the nodes claim to have: labels as GPU feature discovery writes them, all of them fake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FAKE = "falcon.testbed/fake-gpu"
DRIVER = ("580", "95", "05")
CUDA = ("13", "0")


@dataclass(frozen=True)
class Card:
    """One type of GPU."""

    product: str
    memory_mib: int
    family: str
    compute: tuple[int, int]
    count: int


BLACKWELL = Card("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", 97887, "blackwell", (12, 0), 2)
FLEET = (
    Card("NVIDIA-B200", 183359, "blackwell", (10, 0), 8),
    Card("NVIDIA-H200", 143771, "hopper", (9, 0), 8),
)


def labels(card: Card, count: int) -> dict[str, str]:
    """Return a GPU node's labels; the driver's in the new spelling and in the deprecated one."""
    major, minor, revision = DRIVER
    found = {
        "gpu.present": "true",
        "gpu.product": card.product,
        "gpu.count": str(count),
        "gpu.replicas": "1",
        "gpu.sharing-strategy": "none",
        "gpu.mode": "compute",
        "gpu.memory": str(card.memory_mib),
        "gpu.family": card.family,
        "gpu.compute.major": str(card.compute[0]),
        "gpu.compute.minor": str(card.compute[1]),
        "mig.capable": "true",
        "mig.strategy": "single",
        "cuda.driver-version.full": ".".join(DRIVER),
        "cuda.driver-version.major": major,
        "cuda.driver-version.minor": minor,
        "cuda.driver-version.revision": revision,
        "cuda.runtime-version.full": ".".join(CUDA),
        "cuda.runtime-version.major": CUDA[0],
        "cuda.runtime-version.minor": CUDA[1],
        "cuda.driver.major": major,
        "cuda.driver.minor": minor,
        "cuda.driver.rev": revision,
        "cuda.runtime.major": CUDA[0],
        "cuda.runtime.minor": CUDA[1],
    }
    return {f"nvidia.com/{key}": value for key, value in found.items()} | {FAKE: "true"}


def kwok_node(number: int, *, tainted: bool) -> dict[str, Any]:
    """Return a node that only kwok answers for; it is tainted since nothing really runs on it."""
    card = FLEET[(number - 1) % len(FLEET)]
    name = f"gpu-{number}"
    resources = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": str(card.count)}
    taint = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
    basics = {
        "type": "kwok",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": basics | labels(card, card.count),
        },
        "spec": {"taints": [taint] if tainted else []},
        # kwok keeps what a node has when it is made
        "status": {"allocatable": resources, "capacity": resources},
    }
