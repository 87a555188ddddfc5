"""What is known of the engine that runs, or will: its version, kernels, and what is to be said against it."""

from __future__ import annotations

from collections.abc import Sequence

from falcon_engine import profiles
from falcon_engine.profiles import capability as capabilities
from falcon_engine.profiles import remarks
from falcon_operator.api.reasons import Reason
from falcon_operator.decide.facts import Seen
from falcon_operator.decide.gpu import Kernels, Product

_SHOWN_PRODUCTS = 3


def supported(
    version: str | None, image: str, seen: Seen, products: Sequence[Product], *, on_cpu: bool
) -> tuple[str, Reason, str]:
    """Status, reason and message of EngineSupported.

    `products` are the kinds of GPU that an engine may come to, with the kernel that is expected there.
    """
    if on_cpu:
        message = (
            "engine.device is cpu, which is for development: it has no NVFP4 kernels, so weights are computed in BF16."
        )
        running = f" vLLM {version}{_runs(seen)}." if version else ""
        return "True", Reason.DEVELOPMENT_DEVICE, f"{message}{running}{_remarks(version, seen, on_cpu=True)}"
    if version is None:
        message = f"The version of vLLM in {image} is read when an engine starts; spec.engine.version can state it."
        return "Unknown", Reason.ENGINE_VERSION_UNKNOWN, message
    profile, own = profiles.select(version)
    running = _runs(seen)
    said = f" It{running}." if running else _will_run(products)
    said += _remarks(version, seen, on_cpu=False)
    if not own:
        known = ", ".join(profiles.VERSIONS)
        message = (
            f"vLLM {version} is not among the known versions ({known}); the profile of {profile.version} is used, with "
            "the flags alone that its neighbours share."
        )
        return "Unknown", Reason.NEAREST_PROFILE, message + said
    # Known issues refuse nothing: most concern some checkpoints alone, and what does not load says so itself.
    reason = Reason.KNOWN_ISSUES if _concerned(profile, seen) else Reason.PROFILE_FOUND
    return "True", reason, f"vLLM {version} is known to this operator (profile of {profile.version}).{said}"


def _runs(seen: Seen) -> str:
    """What the engine said of itself, to be read after its name."""
    parts = (
        ("NVFP4 kernel", seen.kernel),
        ("quantization", seen.quantization),
        ("attention backend", seen.attention_backend),
    )
    said = [f"{words} {value}" for words, value in parts if value]
    return f" runs with {', '.join(said)}" if said else ""


def _will_run(products: Sequence[Product]) -> str:
    found = [(p.product or "a GPU of unknown product", p.kernels) for p in products if p.kernels.kernel]
    said = [f"{product} by {_either(kernels)}" for product, kernels in found[:_SHOWN_PRODUCTS]]
    more = f", and {len(found) - _SHOWN_PRODUCTS} products more" if len(found) > _SHOWN_PRODUCTS else ""
    return f" NVFP4 will be computed on {', on '.join(said)}{more}." if said else ""


def _either(kernels: Kernels) -> str:
    """Which of the two kinds a checkpoint is shows at the start."""
    first, second = f"{kernels.kernel} ({kernels.tier})", f"{kernels.kernel_w4a16} ({kernels.tier_w4a16})"
    if kernels.kernel_w4a16 is None or first == second:
        return first
    return f"{first}, or {second} where only the weights are quantized"


def _remarks(version: str | None, seen: Seen, *, on_cpu: bool) -> str:
    profile, own = profiles.select(version)
    if version is None or not own:
        return ""
    if on_cpu:
        facts = profile.facts.get("advisories")
        said = remarks.sentences((), facts["value"] if facts else (), None, version)
    else:
        said = profile.remarks(seen.capability, version)
    return "".join(f" {sentence}" for sentence in said)


def _concerned(profile: profiles.Profile, seen: Seen) -> bool:
    """Whether this version is known to do something badly on the GPU that runs, or on all."""
    bad = profile.facts.get("knownBad")
    return any(
        entry["when"] is None or (seen.capability and capabilities.within(seen.capability, entry["when"]))
        for entry in (bad["value"] if bad else ())
    )
