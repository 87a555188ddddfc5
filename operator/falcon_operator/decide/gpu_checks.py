"""Why a node's GPU does not do for an engine, and what of it is not known: each as a part of a sentence."""

from __future__ import annotations

from falcon_operator.decide.gpu_facts import GpuFacts
from falcon_operator.decide.nodes import NodeFacts
from falcon_operator.desired import gpu_labels
from falcon_operator.desired.gpu_needs import NATIVE_FP4, SHARED_UTILIZATION, Needs


def checked(wanted: Needs, node: NodeFacts, gpu: GpuFacts) -> tuple[list[str], list[str]]:
    """Why the node is refused, and what is not known of it."""
    refused: list[str] = []
    doubts: list[str] = []
    _quantity(wanted, node, refused)
    _product(wanted, node, gpu, refused)
    for check in (_capability, _memory, _driver, _sharing):
        check(wanted, gpu, refused, doubts)
    return refused, doubts


def _quantity(wanted: Needs, node: NodeFacts, refused: list[str]) -> None:
    """The scheduler counts what nodes offer; the gate says it where there can never be enough."""
    if wanted.resource is None:
        return
    offered = node.allocatable.get(wanted.resource)
    count = gpu_labels.plain_number(offered, 1_000_000)
    if offered is None or count == 0:
        refused.append(f"has no {wanted.resource}")
    elif count is None:
        refused.append(f'has "{offered}" of {wanted.resource}')
    elif count < wanted.count:
        refused.append(f"has {count} {wanted.resource}, {wanted.count} asked")


def _product(wanted: Needs, node: NodeFacts, gpu: GpuFacts, refused: list[str]) -> None:
    if gpu.mixed_up:
        refused.append("its GPUs have unlike MIG slices, which nvidia.com/mig.strategy single does not take")
    if wanted.products:
        have = node.labels.get(gpu_labels.PRODUCT)
        if have is None:
            refused.append(f"no label {gpu_labels.PRODUCT}, and spec.gpu.products asks for one")
        elif have not in wanted.products:
            refused.append(f"product {have} is not in spec.gpu.products")


def _capability(wanted: Needs, gpu: GpuFacts, refused: list[str], doubts: list[str]) -> None:
    least = wanted.least_capability
    if least <= (1, 0):
        return
    major, minor = gpu.major.value, gpu.minor.value
    if major is None:
        doubts.append(gpu.major.doubt)
    elif major < least[0] or (major == least[0] and minor is not None and minor < least[1]):
        have = f"compute capability {major}.{'x' if minor is None else minor}"
        if (major, minor or 0) < wanted.capability:
            refused.append(f"{have} < {wanted.capability[0]}.{wanted.capability[1]}")
        else:
            first = f"{NATIVE_FP4[0]}.{NATIVE_FP4[1]}"
            refused.append(f"{have} has no native FP4, which begins with {first} (spec.gpu.fp4 is Require)")
    elif minor is None and major == least[0] and least[1]:
        doubts.append(gpu.minor.doubt)


def _memory(wanted: Needs, gpu: GpuFacts, refused: list[str], doubts: list[str]) -> None:
    least = max(wanted.memory_mib, wanted.memory_asked_mib or 0)
    if least < 1:
        return
    whose = "asked" if least == wanted.memory_asked_mib else "needed"
    what = "memory"
    if wanted.profile_mib is not None:
        what = f"memory of a {wanted.labels_of.rpartition('/')[2]}"
    memory = gpu.memory
    if not memory.passes:
        refused.append(f"{memory.doubt}, no number of MiB to compare with the {_gib(least)} GiB {whose}")
    elif memory.value is not None:
        if memory.value < least:
            refused.append(f"{what} {_gib(memory.value)} GiB < {_gib(least)} GiB {whose}")
    elif memory.text is not None:
        doubts.append(memory.doubt)
    elif wanted.memory_asked_mib is not None:
        refused.append(f"{memory.doubt}, and spec.gpu.memoryAtLeast asks for one")
    elif wanted.profile_mib is not None:
        if wanted.profile_mib < least:
            refused.append(f"{what} {_gib(wanted.profile_mib)} GiB < {_gib(least)} GiB {whose}")
    elif gpu.unified_mib is None or gpu.unified_mib < least:
        doubts.append(memory.doubt)


def _driver(wanted: Needs, gpu: GpuFacts, refused: list[str], doubts: list[str]) -> None:
    if wanted.driver < 1:
        return
    driver = gpu.driver
    if not driver.passes:
        refused.append(f"{driver.doubt}, no number to compare with {wanted.driver}")
    elif driver.value is None:
        doubts.append(driver.doubt)
    elif driver.value < wanted.driver:
        refused.append(f"driver {driver.value} < {wanted.driver}")


def _sharing(wanted: Needs, gpu: GpuFacts, refused: list[str], doubts: list[str]) -> None:
    most = wanted.most_sharers
    if most is None:
        return
    replicas, strategy = gpu.replicas, gpu.strategy
    how = f" ({strategy})" if strategy in gpu_labels.SHARED else ""
    sharers = replicas.value
    if most > 1 and replicas.text is not None:
        sharers = gpu_labels.scheduler_number(replicas.text)
        if sharers is None:
            refused.append(f"{replicas.doubt}, no number to compare with {most}")
            return
    if sharers is not None and sharers > most:
        refused.append(f"shared by {sharers}{how}: {_way_out(wanted, gpu, sharers)}")
    elif most == 1 and how:
        number = f"{replicas.text} " if replicas.text else ""
        refused.append(f"shared by {number}pods{how}: {_way_out(wanted, gpu, None)}")
    elif replicas.text is not None and replicas.value is None:
        doubts.append(replicas.doubt)


def _way_out(wanted: Needs, gpu: GpuFacts, sharers: int | None) -> str:
    if wanted.count > 1:
        return f"{wanted.count} shares can be of one GPU, so ask for one (spec.gpu.count)"
    if sharers is None:
        return "spec.engine.gpuMemoryUtilization is of the whole GPU, so set it to 0.9 over their number"
    mib = gpu.memory.value or gpu.unified_mib
    needed = wanted.memory_mib * wanted.utilization
    if mib is not None and mib * SHARED_UTILIZATION / sharers < needed:
        return f"{_gib(mib / sharers)} GiB each, {_gib(needed)} GiB needed"
    share = int(100 * SHARED_UTILIZATION / sharers) / 100
    if share < 0.1:
        return "too many for one engine"
    return (
        f"spec.engine.gpuMemoryUtilization {wanted.utilization:g} is of the whole GPU, so set it to {share:g} or less"
    )


def _gib(mib: float) -> str:
    return f"{mib / 1024:.1f}".removesuffix(".0")
