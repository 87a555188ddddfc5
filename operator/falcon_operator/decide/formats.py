"""In which format an engine is going to compute its weights, before there is one: as its launcher will decide it."""

from __future__ import annotations

from collections.abc import Sequence

from falcon_engine import compute_format
from falcon_engine.ask import Ask
from falcon_engine.compute_format import AUTO, NVFP4, Choice, Facts
from falcon_engine.profiles import Profile
from falcon_engine.shape import FALCON_H1R_7B
from falcon_operator.api.spec import Spec
from falcon_operator.decide.gpu import Product
from falcon_operator.decide.report import Computed
from falcon_operator.desired import gpu_needs, quantity

_SHOWN = 3


def words(computed: Computed | None, choices: Sequence[tuple[Product, Choice]], *, on_cpu: bool, kept: bool) -> str:
    """What to say of the format, as sentences to add: of the engine that runs, else of the kinds of GPU there are.

    `kept`: the cache outlives a pod.
    """
    if on_cpu and (computed is None or computed.format == NVFP4):
        return ""  # nothing is gained, nor lost
    if computed is not None:
        took = f" Making them took {computed.seconds:.0f} s." if computed.seconds else ""
        said, others = f" Weights are computed in {computed.format}: {computed.why}{took}", computed.format != NVFP4
    else:
        found = list(dict.fromkeys(f" Weights will be computed in {c.format}: {c.why}" for _, c in choices))[:_SHOWN]
        said, others = "".join(found), any(c.format != NVFP4 for _, c in choices)
    if others and not kept:
        said += " They are made again for every pod: spec.cache, with a claim or a size, keeps them."
    return said


def choice(spec: Spec, profile: Profile, product: Product, visible_gib: float) -> Choice:
    """The format on one kind of GPU, of which the engine sees `visible_gib` GiB.

    The checkpoint is taken to be Falcon-H1R-7B in NVFP4. Room in the cache counts where the spec states its size.
    """
    wanted = gpu_needs.ask_of(spec, profile)

    def lacks(form: str) -> str | None:
        if problem := compute_format.gpu_lacks(FALCON_H1R_7B, profile, wanted, form, visible_gib):
            return problem
        if spec.cache.size is None:
            return None
        size = float(quantity.parse(spec.cache.size))
        problem = compute_format.disk_lacks(FALCON_H1R_7B, wanted, form, size, size)
        return f"the cache {problem}" if problem else None

    facts = Facts(
        device=spec.engine.device.value,
        product=product.product,
        capability=product.capability,
        version=profile.version,
        sequences=wanted.max_num_seqs,
    )
    return compute_format.choose(spec.engine.compute_format.value, facts, lacks)


def ask_of(spec: Spec, profile: Profile, chosen: Choice) -> Ask:
    """What the engine is asked for with its weights in that format."""
    wanted = gpu_needs.ask_of(spec, profile)
    if spec.engine.compute_format.value != AUTO:
        return wanted
    return compute_format.in_format(wanted, chosen.format, FALCON_H1R_7B)
