"""Where an engine can run and what it holds there, before any pod exists."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from falcon_engine import fit, profiles
from falcon_engine.ask import Ask
from falcon_engine.compute_format import Choice
from falcon_engine.profiles import Profile
from falcon_engine.shape import FALCON_H1R_7B
from falcon_operator.api.engine import Device
from falcon_operator.api.lifecycle import Fit
from falcon_operator.api.spec import Spec
from falcon_operator.decide import formats, gpu_facts
from falcon_operator.decide.capacity import Figures, capacity
from falcon_operator.decide.gpu import Judgement, Product, judge_all
from falcon_operator.decide.nodes import NodeIndex
from falcon_operator.desired import gpu_labels

# As many and as long as the schema takes.
_SHOWN_REJECTED = 10
_REASON_CHARACTERS = 1024


@dataclass(frozen=True)
class Prediction:
    """What one engine holds on one kind of GPU, and in which format it computes the weights there."""

    product: Product
    fit: fit.Fit
    choice: Choice

    @property
    def refused(self) -> bool:
        """Whether it would not start there."""
        return self.fit.verdict == "Refused"


@dataclass(frozen=True)
class Placement:
    """What the nodes say. `judgement` is None where no GPU is asked for, or where nodes may not be read.

    `predictions` are of the kinds of GPU whose memory is known; `profile` is the version whose rules they were made by.
    `too_large`: there are GPUs that would do, but none holds what `fit: Refuse` insists on.
    """

    judgement: Judgement | None = None
    predictions: tuple[Prediction, ...] = ()
    profile: str = ""
    too_large: bool = False

    @property
    def nowhere(self) -> bool:
        """Whether all nodes were judged and none can run an engine."""
        return self.judgement is not None and not self.judgement.eligible and not self.judgement.unknown

    @property
    def products(self) -> tuple[Product, ...]:
        """The kinds of GPU that an engine may come to."""
        return self.judgement.products if self.judgement is not None else ()

    @property
    def choices(self) -> tuple[tuple[Product, Choice], ...]:
        """The format that weights will be computed in, by kind of GPU."""
        return tuple((p.product, p.choice) for p in self.predictions)

    @property
    def figures(self) -> dict[str, Figures]:
        """What is predicted for each GPU product; the least, where it is there in several sizes or shares."""
        found: dict[str, Figures] = {}
        for p in sorted(self.predictions, key=lambda p: p.fit.tokens, reverse=True):
            if p.product.product and p.fit.blocks:
                held = p.fit
                found[p.product.product] = Figures.of(held.blocks, held.block_tokens, held.tokens, held.max_concurrency)
        return found

    def in_status(self, measured: Mapping[str, Figures]) -> dict[str, Any]:
        """`nodes` and `capacity` as the status holds them, with what engines have been measured to hold."""
        found: dict[str, Any] = {}
        if held := capacity(self.figures, measured):
            found["capacity"] = held
        if self.judgement is not None:
            shown = self.judgement.rejected(_SHOWN_REJECTED)
            rejected = [{"name": r.name, "reason": r.reason[:_REASON_CHARACTERS]} for r in shown]
            found["nodes"] = {"eligible": len(self.judgement.eligible), **({"rejected": rejected} if rejected else {})}
        return found


NOWHERE_LOOKED = Placement()


def place(spec: Spec, version: str | None, nodes: NodeIndex | None) -> Placement:
    """Judge the nodes for a spec whose engine has this version; None where that is not known."""
    if nodes is None or not _asks_for_gpus(spec):
        return Placement()
    profile = profiles.select(version)[0] if version is not None else None
    judgement = judge_all(spec, profile, nodes)
    products = judgement.products
    if not products and spec.fit is Fit.REFUSE:
        # Are there nodes that would do with fewer sequences?
        products = judge_all(spec.model_copy(update={"fit": Fit.CLAMP}), profile, nodes).products
    # An image whose version nobody states is most likely a new one.
    rules = profile or profiles.load(profiles.VERSIONS[-1])
    predictions = tuple(_predictions(spec, rules, products))
    refused = spec.fit is Fit.REFUSE and bool(products) and all(p.refused for p in predictions)
    return Placement(judgement, predictions, rules.version, refused and len(predictions) == len(products))


def products_of(spec: Spec, names: Iterable[str], nodes: NodeIndex | None) -> dict[str, str]:
    """The GPU products of nodes, by the node's name, as far as they are known."""
    found = {name: nodes.get(name) for name in names} if nodes is not None and _asks_for_gpus(spec) else {}
    labels_of = gpu_labels.prefix(spec.gpu.effective_resource_name)
    products = {name: gpu_facts.read(n.labels, labels_of).product for name, n in found.items() if n is not None}
    return {name: product for name, product in products.items() if product}


def _asks_for_gpus(spec: Spec) -> bool:
    return spec.engine.device is Device.CUDA and bool(spec.effective_gpu_count or spec.gpu.claims)


def _predictions(spec: Spec, rules: Profile, products: Iterable[Product]) -> Iterable[Prediction]:
    mig = gpu_labels.mig_gib(spec.gpu.effective_resource_name) is not None
    for product in products:
        if product.gib is not None:
            visible = fit.visible_gib(product.gib * 1024, mig=mig)
            choice = formats.choice(spec, rules, product, visible)
            wanted = formats.ask_of(spec, rules, choice)
            yield Prediction(product, _held(rules.file, wanted, visible, spec.fit is Fit.CLAMP), choice)


@functools.lru_cache(maxsize=4096)
def _held(profile_file: str, wanted: Ask, visible_gib: float, clamp: bool) -> fit.Fit:
    """The same for every resource that asks alike, and for all changes of nodes that have such a GPU."""
    rules = profiles.load(profile_file.removesuffix(".json"))
    return fit.fit(FALCON_H1R_7B, rules, wanted, gpu_gib=visible_gib, clamp=clamp)
