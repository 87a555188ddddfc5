"""The gate: which nodes can run an engine, which cannot and why, before any pod exists.

What is refused here is what `desired.affinity` and the scheduler refuse, no more and no less.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from falcon_engine.profiles import Profile
from falcon_operator.api.scheduling import Scheduling
from falcon_operator.api.spec import Spec
from falcon_operator.decide import gpu_checks, gpu_facts, selectors
from falcon_operator.decide.gpu_facts import GpuFacts
from falcon_operator.decide.kernels import UNKNOWN, Kernels, Tier, compiled, kernels
from falcon_operator.decide.nodes import Group, Names, NodeFacts, NodeIndex
from falcon_operator.desired.gpu_needs import Needs, needs

__all__ = [
    "Judgement",
    "Kernels",
    "NodeFacts",
    "NodeIndex",
    "NodeVerdict",
    "Product",
    "Refusal",
    "Rejected",
    "judge",
    "judge_all",
]

Verdict = Literal["Eligible", "Rejected", "Unknown"]


class NodeVerdict(NamedTuple):
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
    kernels: Kernels = UNKNOWN

    @property
    def tier(self) -> Tier | None:
        """How NVFP4 weights are multiplied, at best."""
        return self.kernels.tier

    @property
    def kernel(self) -> str | None:
        """The kernel that does it."""
        return self.kernels.kernel


class Rejected(NamedTuple):
    """A node that cannot run an engine, and why."""

    name: str
    reason: str


class Refusal(NamedTuple):
    """A reason, and the nodes that cannot run an engine for it."""

    reason: str
    nodes: Names


class Product(NamedTuple):
    """One kind of GPU that can run an engine, as far as is known, and on how many nodes it is."""

    product: str | None = None
    gib: float | None = None
    sharers: int = 1
    capability: str | None = None
    kernels: Kernels = UNKNOWN
    nodes: int = 0

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

    eligible: Names
    unknown: Names
    refusals: tuple[Refusal, ...]  # most nodes first
    products: tuple[Product, ...]  # of eligible and unknown nodes, most nodes first
    unknown_reasons: tuple[str, ...]  # what is not known, most nodes first
    without_gpus: int

    def rejected(self, most: int) -> list[Rejected]:
        """The first refused nodes by name, each with its reason."""
        first = [(name, reason) for reason, nodes in self.refusals for name in nodes.first(most)]
        return [Rejected(name, reason) for name, reason in sorted(first)[:most]]


def judge(spec: Spec, profile: Profile | None, node: NodeFacts) -> NodeVerdict:
    """The verdict on one node. `profile` is None where the engine's version is not known. Never raises."""
    said = _judge(spec.scheduling, needs(spec, profile), profile, node, Group({node.name: node}))
    verdict, reason = said.verdict, said.reason
    if verdict is not None and (left_out := selectors.not_selected(spec.scheduling, node)):
        verdict, reason = "Rejected", _together(verdict, reason, left_out)
    kind = said.product
    return NodeVerdict(node.name, verdict, reason, kind.product, kind.gib, kind.sharers, kind.capability, kind.kernels)


def judge_all(spec: Spec, profile: Profile | None, nodes: NodeIndex | Iterable[NodeFacts]) -> Judgement:
    """The verdict on all nodes; each kind of node is judged once. Never raises."""
    index = nodes if isinstance(nodes, NodeIndex) else NodeIndex(nodes)
    scheduling, wanted = spec.scheduling, needs(spec, profile)
    key = _key(wanted, scheduling.tolerations, profile.file if profile is not None else None)
    return index.once((key, *selectors.identity(scheduling)), lambda: _all(scheduling, wanted, profile, index, key))


def _all(
    scheduling: Scheduling, wanted: Needs | None, profile: Profile | None, index: NodeIndex, key: object
) -> Judgement:
    named: dict[str, list[tuple[str, ...]]] = {"Eligible": [], "Unknown": []}
    refused: dict[str, list[tuple[str, ...]]] = {}
    products: Counter[Product] = Counter()
    unknown: Counter[str] = Counter()
    without = 0
    selection = _key(*selectors.identity(scheduling)) if selectors.has_selectors(scheduling) else None
    for group in index.groups():
        said = _said(key, scheduling, wanted, profile, group)
        if said.verdict is None:
            without += len(group.nodes)
            continue
        for left_out, names in _selected(selection, scheduling, group):
            if left_out or said.verdict == "Rejected":
                reason = _together(said.verdict, said.reason, left_out) if left_out else said.reason
                refused.setdefault(reason, []).append(names)
                continue
            named[said.verdict].append(names)
            if said.verdict == "Unknown":
                unknown[said.reason] += len(names)
            products[said.product] += len(names)
    kinds = sorted(products.items(), key=lambda item: (-item[1], *_in_order(item[0])))
    refusals = [Refusal(reason, Names(*lists)) for reason, lists in refused.items()]
    return Judgement(
        eligible=Names(*named["Eligible"]),
        unknown=Names(*named["Unknown"]),
        refusals=tuple(sorted(refusals, key=lambda r: (-len(r.nodes), r.reason))),
        products=tuple(Product(*kind[:-1], nodes=count) for kind, count in kinds),
        unknown_reasons=tuple(reason for reason, _ in sorted(unknown.items(), key=lambda item: (-item[1], item[0]))),
        without_gpus=without,
    )


def _in_order(kind: Product) -> tuple[bool, str, float, int, str]:
    """By name, and the unknown ones last."""
    return kind.product is None, kind.product or "", kind.gib or 0.0, kind.sharers, kind.capability or ""


@functools.lru_cache(maxsize=4096)
def _key(*parts: Hashable) -> object:
    """One object for what is equal: hashed once, not again for each group. A new one only means to judge anew."""
    return object()


class _Said(NamedTuple):
    """What is said of any node of a group, selectors apart."""

    verdict: Verdict | None
    reason: str = ""
    product: Product = Product()


def _said(key: object, scheduling: Scheduling, wanted: Needs | None, profile: Profile | None, group: Group) -> _Said:
    return group.once(key, lambda node: _judge(scheduling, wanted, profile, node, group))


# Names of nodes, sorted, and why the user's selectors leave them out: None where they do not.
_Selected = tuple[str | None, tuple[str, ...]]


def _selected(selection: object | None, scheduling: Scheduling, group: Group) -> Iterable[_Selected]:
    """All nodes of a group; `selection` is None where the user selects none."""
    if selection is None:
        return ((None, group.names),)
    return group.once_of_all(selection, lambda: tuple(_by_selection(scheduling, group)))


def _by_selection(scheduling: Scheduling, group: Group) -> Iterator[_Selected]:
    keys = selectors.labels_looked_at(scheduling)
    alike: Iterable[tuple[NodeFacts, tuple[str, ...]]] = (
        group.alike_in(keys).values() if keys is not None else ((node, (name,)) for name, node in group.nodes.items())
    )
    for node, names in alike:
        yield selectors.not_selected(scheduling, node), names


def _together(verdict: Verdict, reason: str, left_out: str) -> str:
    """Why a node is refused that the user's selectors leave out, and that may be refused for what it is, too."""
    return f"{reason}; {left_out}" if verdict == "Rejected" else left_out


class _Gpu(NamedTuple):
    """What labels say of a node's GPU, and what an engine's version makes of it, whatever a spec asks for."""

    facts: GpuFacts
    product: Product  # counts no nodes
    not_compiled: str | None

    @classmethod
    def of(cls, group: Group, labels_of: str, profile: Profile | None) -> _Gpu:
        facts = group.fact(labels_of, lambda node: gpu_facts.read(node.labels, labels_of))
        have = facts.capability
        text = f"{have[0]}.{have[1]}" if have else None
        version = profile.file.removesuffix(".json") if profile is not None else None
        doubt = None
        if have and profile is not None and version and not compiled(version, have):
            doubt = f"vLLM {profile.version} as published is not compiled for compute capability {text}"
        mib = facts.memory.value or facts.unified_mib
        product = Product(
            product=facts.product,
            gib=None if mib is None else mib / 1024,
            sharers=max(facts.replicas.value or 1, 1),
            capability=text,
            kernels=kernels(version, have) if have else UNKNOWN,
        )
        return cls(facts, product, doubt)


def _judge(
    scheduling: Scheduling, wanted: Needs | None, profile: Profile | None, node: NodeFacts, group: Group
) -> _Said:
    """The verdict on all nodes of a group, without the user's selectors."""
    not_admitted = selectors.not_admitted(scheduling, node)
    if wanted is None:
        return _Said("Rejected", not_admitted) if not_admitted else _Said("Eligible")
    if not node.has_gpus:
        return _Said(None)
    labels_of = wanted.labels_of
    gpu = group.fact((labels_of, profile and profile.file), lambda _: _Gpu.of(group, labels_of, profile))
    refused, doubts = gpu_checks.checked(wanted, node, gpu.facts)
    if not_admitted:
        refused.insert(0, not_admitted)
    if gpu.not_compiled and wanted.capability > (0, 0):
        doubts.append(gpu.not_compiled)
    verdict: Verdict = "Rejected" if refused else "Unknown" if doubts else "Eligible"
    return _Said(verdict, "; ".join(refused or doubts), gpu.product)
