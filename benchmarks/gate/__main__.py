"""`python -m benchmarks.gate`: gate and fit of resources with many nodes known, in CPU time. It needs no cluster.

What runs once in a process is among the numbers, as the slowest of the first case: the labels of a thousand nodes are
read, and each version's kernels. So are the garbage collector's pauses, with the operator's own settings of it.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from time import process_time

from falcon_engine import profiles
from falcon_operator.api.spec import Spec
from falcon_operator.app import COLLECT
from falcon_operator.decide.nodes import NodeFacts, NodeIndex
from falcon_operator.decide.placement import place
from falcon_operator.decide.placement_words import compatible, predicted

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


def specs(count: int, chance: random.Random) -> list[Spec]:
    """Specs that all differ in what the gate and the fit look at, some of them with selectors of their own."""
    found: dict[str, Spec] = {}
    while len(found) < count:
        spec = _spec(chance)
        found[spec.model_dump_json()] = spec
    return list(found.values())


def _spec(chance: random.Random) -> Spec:
    selector = {"topology.kubernetes.io/zone": chance.choice(_ZONES)} if chance.random() < 0.3 else {}
    return Spec.model_validate(
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
    """Milliseconds of CPU until the status, GPUCompatible and Fits of one resource are known."""
    begin = process_time()
    found = place(spec, spec.engine.version, index)
    found.in_status({})
    if found.judgement is not None:
        compatible(found.judgement)
    predicted(found)
    return (process_time() - begin) * 1000


def after_changes(asked: list[Spec], different: int, index: NodeIndex, chance: random.Random) -> Iterator[float]:
    """Some node is cordoned or uncordoned, and every different spec is looked at; then the next node is."""
    for number, spec in enumerate(asked):
        node = index.get(f"node-{chance.randrange(len(index))}")
        if node is not None and number % different == 0:
            index.put(replace(node, unschedulable=not node.unschedulable))
        yield look(spec, index)


class Collector:
    """The garbage collector's pauses, in milliseconds of CPU."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._begin = 0.0
        # As the operator does once it has started.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT)
        gc.callbacks.append(self._called)

    def _called(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._begin = process_time()
        else:
            self.pauses.append((process_time() - self._begin) * 1000)


def unrest() -> float:
    """How uneven the machine is: p99 over p50 of a sum that is always the same and as long as a look."""
    times = []
    for _ in range(1000):
        begin = process_time()
        sum(number * number for number in range(5000))
        times.append(process_time() - begin)
    cut = statistics.quantiles(times, n=100)
    return cut[98] / cut[49]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.gate", description="CPU time of gate and fit; needs no cluster.")
    parser.add_argument("--nodes", type=int, default=1000, help="nodes known (default 1000)")
    parser.add_argument("--resources", type=int, default=1000, help="resources looked at in each case (default 1000)")
    parser.add_argument("--specs", type=int, default=100, help="different specs among those seen before (default 100)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, too")
    return parser.parse_args()


def _numbers(title: str, times: Iterable[float]) -> dict[str, float]:
    """Print one case and whether it meets the target."""
    taken = list(times)
    cut = statistics.quantiles(taken, n=100)
    numbers = {"p50": cut[49], "p99": cut[98], "max": max(taken)}
    said = "  ".join(f"{name} {value:.3f} ms" for name, value in numbers.items())
    print(f"  {title:<26}{said}  {'met' if cut[98] <= TARGET_MS else 'MISSED'}")
    return numbers


def main() -> int:
    """Measure, print, and say by the exit status whether the target is met."""
    options, chance = _options(), random.Random(5)
    index = NodeIndex(nodes(options.nodes, chance))
    new = specs(options.resources, chance)
    different = new[: options.specs]
    asked = [different[number % len(different)] for number in range(options.resources)]
    for version in profiles.VERSIONS:
        profiles.load(version)  # a file each, which the first resource of a version waits for
    kinds = len(list(index.groups()))
    collector = Collector()
    print(
        f"{len(index)} nodes of {kinds} kinds, {len(asked)} resources in each case; {len(different)} specs seen before"
    )
    numbers = {"a spec never seen": _numbers("a spec never seen", (look(spec, index) for spec in new))}
    for spec in different:
        look(spec, index)
    changes = after_changes(asked, len(different), index, chance)
    numbers["after a node has changed"] = _numbers("after a node has changed", changes)
    for spec in different:
        look(spec, index)
    numbers["nothing has changed"] = _numbers("nothing has changed", (look(spec, index) for spec in asked))
    pauses, uneven = collector.pauses, unrest()
    print(f"  of it the garbage collector: {len(pauses)} pauses, the longest {max(pauses, default=0.0):.3f} ms")
    print(f"  of the machine: for a sum that is always the same, p99 is {uneven:.1f} times p50 now")
    if options.json is not None:
        found = {"nodes": len(index), "kinds": kinds, "ms": numbers, "collector_ms": pauses, "unrest": uneven}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    worst = max(n["p99"] for n in numbers.values())
    met = worst <= TARGET_MS
    print(f"{'met' if met else 'MISSED'}: p99 at most {worst:.3f} ms of CPU a resource, {TARGET_MS:g} ms wanted")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
