"""`python -m benchmarks.gate`: gate and fit of resources with many nodes known, in CPU time. It needs no cluster."""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import process_time

from falcon_engine import profiles
from falcon_operator.api.spec import Spec
from falcon_operator.app import COLLECT
from falcon_operator.decide.nodes import NodeFacts, NodeIndex
from falcon_operator.decide.placement import place
from falcon_operator.decide.placement_words import compatible

TARGET_MS = 1.0
# Product, MiB (None: the driver states none), capability.
_GPUS = (
    ("NVIDIA-GB10", None, "12.1"),
    ("NVIDIA-GB200", 189471, "10.0"),
    ("NVIDIA-B200", 183359, "10.0"),
    ("NVIDIA-B300-SXM6-AC", 275040, "10.3"),
    ("NVIDIA-GeForce-RTX-5090", 32607, "12.0"),
    ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", 97887, "12.0"),
    ("NVIDIA-H100-80GB-HBM3", 81559, "9.0"),
    ("NVIDIA-H200", 143771, "9.0"),
    ("NVIDIA-L40S", 46068, "8.9"),
    ("NVIDIA-A100-SXM4-80GB", 81920, "8.0"),
    ("Tesla-T4", 15360, "7.5"),
    ("Tesla-V100-SXM2-16GB", 16384, "7.0"),
)
_SHARED = ("NVIDIA-GB10", "Tesla-T4")
_DRIVERS = ("580.95.05", "580.95.05", "570.86.15")
_ZONES = ("a", "b", "c")


def nodes(count: int, chance: random.Random) -> Iterator[NodeFacts]:
    """Nodes as they are in clusters that have grown: few kinds, each with a name and a zone of its own."""
    for number in range(count):
        product, mib, capability = chance.choice(_GPUS)
        major, minor = capability.split(".")
        driver = chance.choice(_DRIVERS)
        replicas = 4 if product in _SHARED else 1
        labels = {
            "kubernetes.io/hostname": f"node-{number}",
            "topology.kubernetes.io/zone": chance.choice(_ZONES),
            "nvidia.com/gfd.timestamp": str(1_760_000_000 + number),
            "nvidia.com/gpu.product": product + ("-SHARED" if replicas > 1 else ""),
            "nvidia.com/gpu.count": "8",
            "nvidia.com/gpu.replicas": str(replicas),
            "nvidia.com/gpu.sharing-strategy": "time-slicing" if replicas > 1 else "none",
            "nvidia.com/gpu.compute.major": major,
            "nvidia.com/gpu.compute.minor": minor,
            "nvidia.com/cuda.driver.major": driver.split(".")[0],
            "nvidia.com/cuda.driver-version.major": driver.split(".")[0],
            "nvidia.com/cuda.driver-version.full": driver,
        }
        if mib is not None:
            labels["nvidia.com/gpu.memory"] = str(mib)
        yield NodeFacts(f"node-{number}", labels, {"nvidia.com/gpu": str(8 * replicas)})


def specs(count: int, chance: random.Random) -> Iterator[Spec]:
    """Specs that differ in what the gate and the fit look at, some of them with selectors of their own."""
    for _ in range(count):
        selector = {"topology.kubernetes.io/zone": chance.choice(_ZONES)} if chance.random() < 0.3 else {}
        yield Spec.model_validate(
            {
                "engine": {
                    "version": chance.choice((None, *profiles.VERSIONS)),
                    "maxModelLen": chance.choice((4096, 16384, 65536, 131072)),
                    "maxNumSeqs": chance.randint(1, 1024),
                    "gpuMemoryUtilization": chance.choice((0.22, 0.45, 0.88, 0.95)),
                    "prefixCaching": chance.random() < 0.5,
                },
                "gpu": {"fp4": chance.choice(("Require", "Prefer", "Allow"))},
                "fit": chance.choice(("Clamp", "Refuse")),
                "scheduling": {"nodeSelector": selector},
            }
        )


def look(spec: Spec, index: NodeIndex) -> float:
    """Milliseconds of CPU until the status and GPUCompatible of one resource are known."""
    begin = process_time()
    found = place(spec, spec.engine.version, index)
    found.in_status({})
    if found.judgement is not None:
        compatible(found.judgement)
    return (process_time() - begin) * 1000


def after_changes(asked: list[Spec], different: int, index: NodeIndex, chance: random.Random) -> Iterator[float]:
    """Some node is cordoned or uncordoned, and every different spec is looked at; then the next node is."""
    for number, spec in enumerate(asked):
        node = index.get(f"node-{chance.randrange(len(index))}")
        if node is not None and number % different == 0:
            index.put(replace(node, unschedulable=not node.unschedulable))
        yield look(spec, index)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.gate", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000, help="nodes known (default 1000)")
    parser.add_argument("--resources", type=int, default=1000, help="resources looked at (default 1000)")
    parser.add_argument("--specs", type=int, default=100, help="different specs among them (default 100)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    return parser.parse_args()


def main() -> int:
    """Measure, print, and say by the exit status whether the target is met."""
    options, chance = _options(), random.Random(5)
    index = NodeIndex(nodes(options.nodes, chance))
    different = list(specs(options.specs, chance))
    asked = [different[number % len(different)] for number in range(options.resources)]
    for version in profiles.VERSIONS:
        profiles.load(version)
    kinds = len(list(index.groups()))
    # As the operator does once it has started.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    print(f"{len(index)} nodes of {kinds} kinds, {len(asked)} resources of {len(different)} different specs")
    numbers: dict[str, dict[str, float]] = {}
    for title, times in (
        ("specs never seen", [look(spec, index) for spec in different]),
        ("after a node has changed", list(after_changes(asked, len(different), index, chance))),
        ("nothing has changed", [look(spec, index) for spec in different + asked][len(different) :]),
    ):
        cut = statistics.quantiles(times, n=100)
        numbers[title] = {"p50": cut[49], "p99": cut[98], "max": max(times)}
        print(f"  {title:<26}" + "  ".join(f"{name} {value:.3f} ms" for name, value in numbers[title].items()))
    if options.json is not None:
        options.json.write_text(json.dumps({"nodes": len(index), "kinds": kinds, "ms": numbers}, indent=1) + "\n")
    worst = max(n["p99"] for n in numbers.values())
    met = worst <= TARGET_MS
    print(f"{'met' if met else 'MISSED'}: p99 at most {worst:.3f} ms of CPU a resource, {TARGET_MS:g} ms wanted")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
