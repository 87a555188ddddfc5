"""The gate: which nodes can run an engine, which cannot and why, before any pod exists.

What is refused here is what `desired.affinity` and the scheduler refuse, no more and no less.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from falcon_engine.profiles import Profile, capability
from falcon_operator.api.scheduling import Scheduling
from falcon_operator.api.spec import Spec
from falcon_operator.decide import gpu_facts, selectors
from falcon_operator.decide.gpu_facts import GpuFacts
from falcon_operator.decide.nodes import Group, NodeFacts, NodeIndex
from falcon_operator.desired import gpu_labels
from falcon_operator.desired.gpu_needs import NATIVE_FP4, SHARED_UTILIZATION, Needs, needs

__all__ = ["Judgement", "Kernels", "NodeFacts", "NodeIndex", "NodeVerdict", "Product", "Rejected", "judge", "judge_all"]

Verdict = Literal["Eligible", "Rejected", "Unknown"]
Tier = Literal["native", "weight-only", "emulation"]


@dataclass(frozen=True)
class Kernels:
    """What multiplies NVFP4 weights on a GPU, as the engine's log names it; W4A4 quantizes activations too."""

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


@dataclass(frozen=True)
class NodeVerdict:
    """What the gate says of one node; `verdict` is None for a node without GPUs.

    `reason` is parts of a sentence, such as `driver 570 < 580`: for Rejected why, for Unknown what is not known, empty
    for Eligible. `gib` is the memory of one GPU or MIG slice in GiB as the driver states it, None where it is not
    known; `sharers` engines share it, and `engine.gpuMemoryUtilization` is each one's share of all of it. `tier` and
    `kernel` are those of a W4A4 checkpoint, the first that `kernels` names.
    """

    node: str
    verdict: Verdict | None
    reason: str = ""
    product: str | None = None
    gib: float | None = None
    sharers: int = 1
    capability: str | None = None
    kernels: Kernels = Kernels()

    @property
    def tier(self) -> Tier | None:
        """How NVFP4 weights are multiplied, at best."""
        return self.kernels.tier

    @property
    def kernel(self) -> str | None:
        """The kernel that does it."""
        return self.kernels.kernel


@dataclass(frozen=True)
class Rejected:
    """A node that cannot run an engine, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Product:
    """One kind of GPU that can run an engine, as far as is known, and on how many nodes it is."""

    product: str | None
    gib: float | None
    sharers: int
    capability: str | None
    kernels: Kernels
    nodes: int

    @property
    def tier(self) -> Tier | None:
        """How NVFP4 weights are multiplied, at best."""
        return self.kernels.tier

    @property
    def kernel(self) -> str | None:
        """The kernel that does it."""
        return self.kernels.kernel


@dataclass(frozen=True)
class Judgement:
    """What the gate says of all nodes; everything is sorted, so the order in which nodes came does not matter."""

    eligible: tuple[str, ...]
    unknown: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    products: tuple[Product, ...]  # of eligible and unknown nodes, most nodes first
    unknown_reasons: tuple[str, ...]  # what is not known, most nodes first
    without_gpus: int


def judge(spec: Spec, profile: Profile | None, node: NodeFacts) -> NodeVerdict:
    """The verdict on one node. `profile` is None where the engine's version is not known. Never raises."""
    verdict = _judge(spec.scheduling, needs(spec, profile), profile, node)
    if verdict.verdict is not None and (why := selectors.not_selected(spec.scheduling, node)):
        return _with_reason(verdict, why)
    return verdict


def judge_all(spec: Spec, profile: Profile | None, nodes: NodeIndex | Iterable[NodeFacts]) -> Judgement:
    """The verdict on all nodes; each kind of node is judged once. Never raises."""
    index = nodes if isinstance(nodes, NodeIndex) else NodeIndex(nodes)
    wanted = needs(spec, profile)
    named: dict[str, list[str]] = {"Eligible": [], "Unknown": []}
    rejected: list[Rejected] = []
    products: Counter[Product] = Counter()
    unknown: Counter[str] = Counter()
    without = 0
    for group in index.groups():
        common = _judge(spec.scheduling, wanted, profile, group.example)
        if common.verdict is None:
            without += len(group.nodes)
            continue
        for verdict, names in _by_selection(spec.scheduling, common, group):
            if verdict.verdict == "Rejected":
                rejected += [Rejected(name, verdict.reason) for name in names]
                continue
            named[str(verdict.verdict)] += names
            if verdict.verdict == "Unknown":
                unknown[verdict.reason] += len(names)
            v = verdict
            products[Product(v.product, v.gib, v.sharers, v.capability, v.kernels, nodes=0)] += len(names)
    return Judgement(
        eligible=tuple(sorted(named["Eligible"])),
        unknown=tuple(sorted(named["Unknown"])),
        rejected=tuple(sorted(rejected, key=lambda r: r.name)),
        products=tuple(
            replace(product, nodes=count)
            for product, count in sorted(products.items(), key=lambda item: (-item[1], repr(item[0])))
        ),
        unknown_reasons=tuple(reason for reason, _ in sorted(unknown.items(), key=lambda item: (-item[1], item[0]))),
        without_gpus=without,
    )


def _by_selection(scheduling: Scheduling, common: NodeVerdict, group: Group) -> Iterator[tuple[NodeVerdict, list[str]]]:
    """The group's verdict, and apart from it the nodes that the user's selectors leave out."""
    if not selectors.has_selectors(scheduling):
        yield common, list(group.nodes)
        return
    keys = selectors.labels_looked_at(scheduling)
    why: dict[object, str | None] = {}
    found: dict[str | None, list[str]] = {}
    for name, node in group.nodes.items():
        alike = name if keys is None else tuple(map(node.labels.get, keys))
        if alike not in why:
            why[alike] = selectors.not_selected(scheduling, node)
        found.setdefault(why[alike], []).append(name)
    for reason, names in found.items():
        yield (common if reason is None else _with_reason(common, reason)), names


def _with_reason(verdict: NodeVerdict, why: str) -> NodeVerdict:
    before = [verdict.reason] if verdict.verdict == "Rejected" else []
    return replace(verdict, verdict="Rejected", reason="; ".join([*before, why]))


def _judge(scheduling: Scheduling, wanted: Needs | None, profile: Profile | None, node: NodeFacts) -> NodeVerdict:
    """The verdict without the user's selectors."""
    refused = [why] if (why := selectors.not_admitted(scheduling, node)) else []
    if wanted is None:
        return NodeVerdict(node.name, "Rejected" if refused else "Eligible", "; ".join(refused))
    if not node.has_gpus:
        return NodeVerdict(node.name, None)
    gpu = gpu_facts.read(node.labels, wanted.labels_of)
    doubts: list[str] = []
    refused += _quantity(wanted, node)
    refused += _product(wanted, node, gpu)
    for refuse in (_capability, _memory, _driver, _sharing):
        refused += refuse(wanted, gpu, doubts)
    have = gpu.capability
    text = f"{have[0]}.{have[1]}" if have else None
    if have and profile is not None and wanted.capability > (0, 0) and not _compiled(profile, have):
        doubts.append(f"vLLM {profile.version} as published is not compiled for compute capability {text}")
    mib = gpu.memory.value or gpu.unified_mib
    return NodeVerdict(
        node=node.name,
        verdict="Rejected" if refused else "Unknown" if doubts else "Eligible",
        reason="; ".join(refused or doubts),
        product=gpu.product,
        gib=None if mib is None else mib / 1024,
        sharers=max(gpu.replicas.value or 1, 1),
        capability=text,
        kernels=_kernels(profile, have),
    )


def _quantity(wanted: Needs, node: NodeFacts) -> Iterator[str]:
    """The scheduler counts what nodes offer; the gate says it where there can never be enough."""
    if wanted.resource is None:
        return
    offered = node.allocatable.get(wanted.resource)
    count = gpu_labels.plain_number(offered, 1_000_000)
    if offered is None or count == 0:
        yield f"has no {wanted.resource}"
    elif count is None:
        yield f'has "{offered}" of {wanted.resource}'
    elif count < wanted.count:
        yield f"has {count} {wanted.resource}, {wanted.count} asked"


def _product(wanted: Needs, node: NodeFacts, gpu: GpuFacts) -> Iterator[str]:
    if gpu.mixed_up:
        yield "its GPUs have unlike MIG slices, which nvidia.com/mig.strategy single does not take"
    if wanted.products:
        have = node.labels.get(gpu_labels.PRODUCT)
        if have is None:
            yield f"no label {gpu_labels.PRODUCT}, and spec.gpu.products asks for one"
        elif have not in wanted.products:
            yield f"product {have} is not in spec.gpu.products"


def _capability(wanted: Needs, gpu: GpuFacts, doubts: list[str]) -> Iterator[str]:
    least = wanted.least_capability
    if least <= (1, 0):
        return
    major, minor = gpu.major.value, gpu.minor.value
    if major is None:
        doubts.append(gpu.major.doubt)
    elif major < least[0] or (major == least[0] and minor is not None and minor < least[1]):
        have = f"compute capability {major}.{'x' if minor is None else minor}"
        yield (
            f"{have} < {wanted.capability[0]}.{wanted.capability[1]}"
            if (major, minor or 0) < wanted.capability
            else (
                f"{have} has no native FP4, which begins with {NATIVE_FP4[0]}.{NATIVE_FP4[1]} (spec.gpu.fp4 is Require)"
            )
        )
    elif minor is None and major == least[0] and least[1]:
        doubts.append(gpu.minor.doubt)


def _memory(wanted: Needs, gpu: GpuFacts, doubts: list[str]) -> Iterator[str]:
    least = max(wanted.memory_mib, wanted.memory_asked_mib or 0)
    if least < 1:
        return
    whose = "asked" if least == wanted.memory_asked_mib else "needed"
    what = "memory"
    if wanted.profile_mib is not None:
        what = f"memory of a {wanted.labels_of.rpartition('/')[2]}"
    memory = gpu.memory
    if not memory.passes:
        yield f"{memory.doubt}, no number of MiB to compare with the {_gib(least)} GiB {whose}"
    elif memory.value is not None:
        if memory.value < least:
            yield f"{what} {_gib(memory.value)} GiB < {_gib(least)} GiB {whose}"
    elif memory.text is not None:
        doubts.append(memory.doubt)
    elif wanted.memory_asked_mib is not None:
        yield f"{memory.doubt}, and spec.gpu.memoryAtLeast asks for one"
    elif wanted.profile_mib is not None:
        if wanted.profile_mib < least:
            yield f"{what} {_gib(wanted.profile_mib)} GiB < {_gib(least)} GiB {whose}"
    elif gpu.unified_mib is None or gpu.unified_mib < least:
        doubts.append(memory.doubt)


def _driver(wanted: Needs, gpu: GpuFacts, doubts: list[str]) -> Iterator[str]:
    if wanted.driver < 1:
        return
    driver = gpu.driver
    if not driver.passes:
        yield f"{driver.doubt}, no number to compare with {wanted.driver}"
    elif driver.value is None:
        doubts.append(driver.doubt)
    elif driver.value < wanted.driver:
        yield f"driver {driver.value} < {wanted.driver}"


def _sharing(wanted: Needs, gpu: GpuFacts, doubts: list[str]) -> Iterator[str]:
    most = wanted.most_sharers
    if most is None:
        return
    replicas, strategy = gpu.replicas, gpu.strategy
    how = f" ({strategy})" if strategy in gpu_labels.SHARED else ""
    sharers = replicas.value
    if most > 1 and replicas.text is not None:
        sharers = gpu_labels.scheduler_number(replicas.text)
        if sharers is None:
            yield f"{replicas.doubt}, no number to compare with {most}"
            return
    if sharers is not None and sharers > most:
        yield f"shared by {sharers}{how}: {_way_out(wanted, gpu, sharers)}"
    elif most == 1 and how:
        number = f"{replicas.text} " if replicas.text else ""
        yield f"shared by {number}pods{how}: {_way_out(wanted, gpu, None)}"
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


def _compiled(profile: Profile, have: tuple[int, int]) -> bool:
    """Whether binaries of the wheel run: `8.0` on every 8.x from 8.0 on, `10.0f` on its family, `10.0a` on it alone."""
    for architecture in profile.fact("architectures"):
        major, minor = capability.number(architecture.rstrip("af"))
        if major == have[0] and (minor == have[1] if architecture.endswith("a") else minor <= have[1]):
            return True
    return False


def _kernels(profile: Profile | None, have: tuple[int, int] | None) -> Kernels:
    if have is None:
        return Kernels()
    if profile is None:
        return Kernels(tier="native" if have >= NATIVE_FP4 else "weight-only")
    text = f"{have[0]}.{have[1]}"
    first: dict[str, tuple[Tier, str]] = {}
    for row in profile.fact("kernels"):
        if any(capability.within(text, bounds) for bounds in row["capabilities"]):
            first.setdefault(row["checkpoint"], (row["tier"], row["kernel"]))
    tier, kernel = first.get("W4A4", (None, None))
    tier16, kernel16 = first.get("W4A16", (None, None))
    return Kernels(tier, kernel, tier16, kernel16)


def _words(tier: Tier | None, kernel: str | None) -> str:
    if tier is None:
        return ""
    short = re.sub(r"^NvFp4LinearBackend\.|NvFp4|LinearKernel$", "", kernel or "")
    return ("natively" if tier == "native" else f"by {tier}" if tier == "emulation" else tier) + (
        f" ({short})" if short else ""
    )


def _gib(mib: float) -> str:
    return f"{mib / 1024:.1f}".removesuffix(".0")
