"""What an engine of a resource would hold on a GPU, for people and for programs, without a cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass

from falcon_engine import ask as asks
from falcon_engine import compute_format, profiles, shape
from falcon_engine.compute_format import Choice
from falcon_engine.fit import Fit, fit
from falcon_engine.intent import Intent
from falcon_engine.profiles import Profile
from falcon_engine.shape import ModelShape
from falcon_operator import gpus, manifests
from falcon_operator.api.config import OperatorConfig
from falcon_operator.api.lifecycle import Fit as Policy
from falcon_operator.api.resource import InvalidResourceError, parse
from falcon_operator.desired import quantity
from falcon_operator.desired.intent import intent


@dataclass(frozen=True)
class Question:
    """What is asked: GiB of one GPU as vLLM sees it, or for its cache; version and model in place of the spec's."""

    gpu: str | None = None
    gpu_gib: float | None = None
    kv_available_gib: float | None = None
    engine_version: str | None = None
    model_config: str | None = None


@dataclass(frozen=True)
class Answer:
    """A fit and what it was computed for."""

    fit: Fit
    ask: asks.Ask
    model: str
    weights: str
    profile: str
    exact: bool
    version: str | None
    choice: Choice | None = None


def answer(text: str, question: Question, config: OperatorConfig) -> Answer:
    """The fit of the one resource in a YAML text. Raises ValueError with a sentence."""
    resources, problems = manifests.resources(text)
    if problems:
        raise manifests.ManifestError(problems[0])
    if len(resources) != 1:
        raise manifests.ManifestError(f"there must be one resource in it, not {len(resources)}")
    try:
        spec = parse(resources[0]).spec
    except InvalidResourceError as error:
        sentence = str(error)
        raise InvalidResourceError(
            sentence if sentence.startswith(("spec", "metadata")) else f"spec.{sentence}"
        ) from None
    wanted = intent(spec, spec.image.reference or config.default_image)
    version = question.engine_version or wanted.version
    # An image whose version nobody states is most likely a new one.
    profile, exact = profiles.select(version) if version else (profiles.load(profiles.VERSIONS[-1]), False)
    model = shape.read(question.model_config) if question.model_config else shape.FALCON_H1R_7B
    ask = asks.from_intent(wanted, profile, model.weights)
    choice = _choice(wanted, spec.cache.size, profile, model, ask, question)
    ask = compute_format.in_format(ask, choice.format, model) if choice else ask
    result = fit(
        model,
        profile,
        ask,
        gpu_gib=question.gpu_gib,
        kv_available_gib=question.kv_available_gib,
        clamp=spec.fit is Policy.CLAMP,
    )
    return Answer(
        fit=result,
        ask=ask,
        model=question.model_config or "Falcon-H1R-7B",
        weights=model.weights,
        profile=profile.version,
        exact=exact,
        version=version,
        choice=choice,
    )


def _choice(
    wanted: Intent, cache_size: str | None, profile: Profile, model: ModelShape, ask: asks.Ask, question: Question
) -> Choice | None:
    """The format that an NVFP4 checkpoint will be computed in on the GPU in question; None for another checkpoint."""
    if not model.weights.startswith("nvfp4"):
        return None
    product = gpus.product(question.gpu) if question.gpu else None

    def lacks(form: str) -> str | None:
        gib = question.gpu_gib
        if gib is not None and (problem := compute_format.gpu_lacks(model, profile, ask, form, gib)):
            return problem
        size = float(quantity.parse(cache_size)) if cache_size else None
        problem = compute_format.disk_lacks(model, ask, form, size, size) if size is not None else None
        return f"the cache {problem}" if problem else None

    facts = compute_format.Facts(
        device=wanted.device,
        product=product,
        capability=gpus.CAPABILITY[product] if product else None,
        version=profile.version,
        sequences=ask.max_num_seqs,
    )
    return compute_format.choose(wanted.compute_format, facts, lacks)


def needs_memory(found: Answer, question: Question) -> bool:
    """Whether neither the question nor the resource says how much memory there is."""
    given = (question.gpu_gib, question.kv_available_gib, found.ask.kv_cache_memory_bytes)
    return all(value is None for value in given)


def as_json(found: Answer) -> str:
    """The figures as one JSON object; `sequences` maps a length in tokens to how many run at once."""
    result = found.fit
    return json.dumps(
        {
            "block_tokens": result.block_tokens,
            "blocks": result.blocks,
            "tokens": result.tokens,
            "max_concurrency": result.max_concurrency,
            "sequences": {str(length): number for length, number in result.sequences},
            "weights_gib": round(result.weights_gib, 3),
            "kv_available_gib": round(result.kv_available_gib, 3),
            "max_num_seqs": result.max_num_seqs,
            "verdict": result.verdict,
            "compute_format": found.choice.format if found.choice else None,
        }
    )


def as_text(found: Answer, question: Question) -> str:
    """The figures as a table, the verdict last."""
    result, ask = found.fit, found.ask
    where = question.gpu or ("a GPU" if question.gpu_gib is not None else None)
    gpu = f"{where}, of which vLLM sees {question.gpu_gib:.2f} GiB" if where else "not told"
    if ask.tensor_parallel_size > 1:
        gpu = f"{ask.tensor_parallel_size} x {gpu}"
    each = " on each GPU" if ask.tensor_parallel_size > 1 else ""
    caching = "on" if ask.prefix_caching else "off"
    rows = [
        ("model", f"{found.model}, weights {found.weights}"),
        *([("computed in", f"{found.choice.format}: {found.choice.why}")] if found.choice else []),
        ("GPU", "none: the engine runs on CPU" if ask.device == "cpu" else gpu),
        ("vLLM", _version(found)),
        (
            "asked for",
            f"{ask.max_num_seqs:,} sequences of up to {ask.max_model_len:,} tokens, prefix caching {caching}",
        ),
        ("weights", f"{result.weights_gib:.2f} GiB{each}"),
        ("cache", f"{result.kv_available_gib:.2f} GiB{each}"),
        ("block", f"{result.block_tokens:,} tokens"),
        ("blocks", f"{result.blocks:,}"),
        ("tokens", f"{result.tokens:,}"),
        ("concurrency", f"{result.max_concurrency:.2f}x of {ask.max_model_len:,} tokens"),
        *(("at once", f"{number:,} sequences of {length:,} tokens") for length, number in result.sequences),
        ("max_num_seqs", f"{result.max_num_seqs:,}"),
        ("verdict", result.verdict),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join([*(f"{name:<{width}}  {value}" for name, value in rows), "", result.message]) + "\n"


def _version(found: Answer) -> str:
    if found.version is None:
        return f"not told; computed as {found.profile} does it (set spec.engine.version or --engine-version)"
    return found.version if found.exact else f"{found.version}, computed as {found.profile} does it"
