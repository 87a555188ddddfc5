"""The gate: which nodes can run an engine, which cannot and why, before any pod exists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from falcon_engine.profiles import Profile
from falcon_operator.api.spec import Spec
from falcon_operator.decide.nodes import NodeFacts, NodeIndex

__all__ = ["Judgement", "NodeFacts", "NodeIndex", "NodeVerdict", "Product", "Rejected", "changes", "judge", "judge_all"]

Verdict = Literal["Eligible", "Rejected", "Unknown"]
Tier = Literal["native", "weight-only", "emulation"]


@dataclass(frozen=True)
class NodeVerdict:
    """What the gate says of one node.

    `reason` is a part of a sentence, such as `driver 570 < 580`: for Rejected why, for Unknown what is not known; empty
    for Eligible where nothing is to be said. `gib` is the memory that the engine's utilization is a share of: of a GPU
    or MIG slice, or of one share under MPS; None where it is not known. `tier` and `kernel` are of a W4A4 checkpoint,
    `weight_only_kernel` of a W4A16 one. `verdict` is None for a node without GPUs.
    """

    node: str
    verdict: Verdict | None
    reason: str = ""
    product: str | None = None
    gib: float | None = None
    tier: Tier | None = None
    kernel: str | None = None
    sharers: int = 1
    capability: str | None = None


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
    tier: Tier | None
    kernel: str | None
    capability: str | None
    nodes: int


@dataclass(frozen=True)
class Judgement:
    """What the gate says of all nodes; names are sorted, so the order in which nodes came does not matter."""

    eligible: tuple[str, ...]
    unknown: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    products: tuple[Product, ...]  # of eligible and unknown nodes, most nodes first
    unknown_reasons: tuple[str, ...]  # what is not known, most nodes first
    without_gpus: int


def judge(spec: Spec, profile: Profile | None, node: NodeFacts) -> NodeVerdict:
    """The verdict on one node. `profile` is None where the engine's version is not known. Never raises."""
    raise NotImplementedError


def judge_all(spec: Spec, profile: Profile | None, nodes: NodeIndex | Iterable[NodeFacts]) -> Judgement:
    """The verdict on all nodes; each kind of node is judged once. Never raises."""
    raise NotImplementedError


def changes(spec: Spec, profile: Profile | None, before: NodeFacts | None, after: NodeFacts | None) -> bool:
    """Whether what happened to a node (None: not there) can change a resource's judgement."""
    raise NotImplementedError
