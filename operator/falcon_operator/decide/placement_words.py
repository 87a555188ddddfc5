"""What is said of where an engine can run and what it holds there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from falcon_operator.api.reasons import Reason
from falcon_operator.decide.gpu import Judgement, Product, Refusal
from falcon_operator.decide.nodes import Names
from falcon_operator.decide.placement import Placement, Prediction
from falcon_operator.decide.rollout import Blocker, Rollout

_SHOWN_NODES = 5
_SHOWN_REASONS = 8
_SHOWN_PRODUCTS = 4
_SLOWER = {"weight-only": ", slower than BF16 beyond about 32 sequences", "emulation": ", which is slow"}
_HINT = "Add a node that can, or ask for less in spec.gpu, spec.engine or spec.scheduling; nodes that come are seen."
_NO_GPU = (
    "No node has a GPU, as far as its labels and its resources tell. Add one, or install NVIDIA's device plugin and "
    "GPU feature discovery on the nodes that have some."
)
NOT_READABLE = (
    "The operator may not read nodes: it needs the verbs list and watch on nodes in a ClusterRole, which the chart "
    "gives with rbac.nodes. Which nodes can run an engine shows when the scheduler has placed a pod; all else works."
)


def compatible(judgement: Judgement) -> tuple[str, Reason, str]:
    """Status, reason and message of GPUCompatible by the nodes alone."""
    if judgement.eligible:
        count = len(judgement.eligible)
        said = [f"{_nodes(count)} can run an engine: {_products(judgement.products)}."]
        said += _may(judgement, f"{len(judgement.unknown)} more may: ")
        return "True", Reason.COMPATIBLE_NODES, " ".join([*said, *_refused(judgement.refusals)])
    if judgement.unknown:
        count = len(judgement.unknown)
        said = _may(judgement, f"{_nodes(count)} may run an engine, and {'its' if count == 1 else 'their'} labels do "
                    "not tell: ")  # fmt: skip
        said.append("NVIDIA's GPU feature discovery writes these labels.")
        return "Unknown", Reason.NODE_LABELS_MISSING, " ".join([*said, *_refused(judgement.refusals)])
    if not judgement.refusals:
        return "False", Reason.NO_COMPATIBLE_NODE, _NO_GPU
    said = ["No node can run an engine.", *_refused(judgement.refusals), _HINT]
    return "False", Reason.NO_COMPATIBLE_NODE, " ".join(said)


def predicted(placement: Placement) -> tuple[str, Reason, str] | None:
    """Status, reason and message of Fits before any engine has started; None where nothing can be said."""
    if not placement.predictions:
        return None
    said = f"Computed with the rules of vLLM {placement.profile}. {_fits(placement.predictions)}"
    if all(p.refused for p in placement.predictions):
        return "False", Reason.SEQUENCES_EXCEED_MEMORY, said
    if any(p.fit.verdict == "Clamped" for p in placement.predictions):
        return "True", Reason.CLAMPED, said
    return "True", Reason.FIT_PREDICTED, said


def too_large(placement: Placement) -> str:
    """Why no pods are made, and the ways out."""
    return (
        f"spec.fit is Refuse, and no node's GPU holds what spec.engine asks for. {_fits(placement.predictions)} "
        "Lower spec.engine.maxNumSeqs or spec.engine.maxModelLen, set spec.fit to Clamp, or add a larger GPU."
    )


def explained(state: Rollout, placement: Placement) -> Rollout:
    """The rollout with the nodes' own reason why no pod finds a place: the scheduler counts labels, and names none."""
    judgement, blocker = placement.judgement, state.blocker
    if judgement is None or not placement.nowhere or not state.desired or any(p.node for p in state.updated):
        return state
    if blocker is not None and blocker.reason is not Reason.UNSCHEDULABLE:
        return state
    _, reason, message = compatible(judgement)
    return replace(state, blocker=Blocker(reason, message))


def _may(judgement: Judgement, begin: str) -> list[str]:
    if not judgement.unknown:
        return []
    reasons = judgement.unknown_reasons[:_SHOWN_REASONS]
    return [f"{begin}{'; '.join(reasons)} ({_some(judgement.unknown)})."]


def _products(products: Sequence[Product]) -> str:
    said = [_product(p) for p in products[:_SHOWN_PRODUCTS]]
    more = len(products) - _SHOWN_PRODUCTS
    return "; ".join([*said, *([f"{more} other kinds of GPU"] if more > 0 else [])])


def _product(product: Product) -> str:
    name = f"{product.product or 'a GPU of unknown product'} ({_nodes(product.nodes)})"
    words = product.kernels.words
    return f"{name} {words}{_SLOWER.get(product.tier or '', '')}" if words else name


def _refused(refusals: Sequence[Refusal]) -> list[str]:
    """Refused nodes by reason; nodes of one kind share theirs."""
    if not refusals:
        return []
    said = [f"{reason} ({_some(nodes)})" for reason, nodes in refusals[:_SHOWN_REASONS]]
    more = len(refusals) - _SHOWN_REASONS
    return ["Refused: " + "; ".join([*said, *([f"{more} other reasons"] if more > 0 else [])]) + "."]


def _fits(predictions: Sequence[Prediction]) -> str:
    said = [f"{p.product.product or 'A GPU of unknown product'}: {p.fit.message}" for p in predictions]
    more = len(said) - _SHOWN_PRODUCTS
    return " ".join([*said[:_SHOWN_PRODUCTS], *([f"And {more} other kinds of GPU."] if more > 0 else [])])


def _some(names: Names) -> str:
    more = len(names) - _SHOWN_NODES
    return ", ".join(names.first(_SHOWN_NODES)) + (f" and {more} more" if more > 0 else "")


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"
