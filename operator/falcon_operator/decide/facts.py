"""What the engines themselves say: the model, its length, what runs, how far a start is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from falcon_operator.decide.capacity import CPU_PRODUCT, Figures, measured_before
from falcon_operator.decide.pods import Pod
from falcon_operator.decide.report import CacheFigures, Clamped, Computed, Report
from falcon_operator.decide.rollout import Rollout
from falcon_operator.decide.termination import diagnosed_version
from falcon_operator.decide.types import EngineFacts
from falcon_operator.desired.intent import version_of_tag


@dataclass(frozen=True)
class Seen:
    """The answers of the pods that serve, and what was written down of this revision before."""

    known: tuple[EngineFacts, ...]
    error: str | None
    remembered: Mapping[str, Any]  # the live status where it is of the same revision, else empty
    reports: tuple[Report, ...] = ()  # of the pods that serve, then of those that start
    measured: Mapping[str, Figures] = field(default_factory=dict)  # by GPU product
    blind: bool = False  # pods serve and none has answered: an operator that has just started knows nothing yet

    @property
    def version(self) -> str | None:
        """The engine's true version."""
        return self._first("version", [facts.version for facts in self.known])

    @property
    def kernel(self) -> str | None:
        """The kernel of the NVFP4 multiplications, as the engine named it."""
        return self._first("nvfp4Kernel", [])

    @property
    def attention_backend(self) -> str | None:
        """The backend of attention, as the engine named it."""
        return self._first("attentionBackend", [])

    @property
    def engine(self) -> dict[str, str] | None:
        """As `status.engine` holds it."""
        values = {
            "version": self.version,
            "nvfp4Kernel": self.kernel,
            "attentionBackend": self.attention_backend,
        }
        return {key: value for key, value in values.items() if value} or None

    @property
    def quantization(self) -> str | None:
        """How the engine says that the weights are quantized."""
        return next((report.quantization for report in self.reports if report.quantization), None)

    @property
    def computed(self) -> Computed | None:
        """The format that the weights are computed in, and why."""
        return next((report.computed for report in self.reports if report.computed), None)

    @property
    def capability(self) -> str | None:
        """Compute capability of the GPU that runs."""
        return next((gpu.capability for report in self.reports for gpu in report.gpus if gpu.capability), None)

    @property
    def clamped(self) -> Clamped | None:
        """Fewer sequences than the spec asks for, where a GPU holds no more."""
        return next((report.clamped for report in self.reports if report.clamped), None)

    @property
    def canary(self) -> str | None:
        """What came of the first request: `off`, `pending`, `passed` or `failed`; None where nobody said."""
        return next((report.canary.state for report in self.reports if report.canary), None)

    @property
    def model(self) -> dict[str, Any] | None:
        """As `status.model` holds it."""
        if not self.known:
            return self.remembered.get("model")
        facts = self.known[0]
        found: dict[str, Any] = {"name": facts.model_names[0]} if facts.model_names else {}
        if facts.max_model_len is not None:
            found["maxModelLen"] = facts.max_model_len
        return found or None

    def _first(self, key: str, candidates: list[str | None]) -> str | None:
        """The first that is known: of the candidates, of the reports, of the status."""
        own = {"version": "version", "nvfp4Kernel": "kernel", "attentionBackend": "attention_backend"}[key]
        said = [*candidates, *(getattr(report, own) for report in self.reports)]
        before = (self.remembered.get("engine") or {}).get(key)
        return next((value for value in said if value), before)


def of_start(pod: Pod, engines: Mapping[str, EngineFacts]) -> EngineFacts | None:
    """What is known of the present start of a pod's engine."""
    found = engines.get(pod.uid)
    return found if found is not None and found.restarts == pod.restarts else None


def seen(
    rollout: Rollout,
    engines: Mapping[str, EngineFacts],
    live_status: Mapping[str, Any],
    *,
    on_cpu: bool,
    products: Mapping[str, str],
) -> Seen:
    """The facts of the pods of the wanted revision, or of the ones that serve in their place.

    `products` are the GPU products of nodes, by the node's name, as far as they are known.
    """
    same = (live_status.get("revision") or {}).get("updated") == rollout.revision and rollout.revision is not None
    remembered = live_status if same else {}
    answering = rollout.updated_ready or rollout.ready
    asked = [f for f in (of_start(p, engines) for p in answering) if f is not None and f.serving]
    starting = [f for f in (of_start(p, engines) for p in rollout.updated if not p.ready) if f is not None]
    known = tuple(f for f in asked if f.error is None)
    measured = measured_before(remembered)
    for pod in reversed(rollout.updated_ready):
        facts = of_start(pod, engines)
        if facts is not None and (figures := _figures(facts)) is not None:
            product = CPU_PRODUCT if on_cpu else products.get(pod.node or "") or _product(facts)
            measured |= {product: figures} if product else {}
    return Seen(
        known=known,
        error=next((f.error for f in asked if f.error is not None), None),
        remembered=remembered,
        reports=(*_reports(known), *map(_so_far, _reports(starting))),
        measured=measured,
        blind=bool(answering and not known and remembered),
    )


def doing(pods: Iterable[Pod], engines: Mapping[str, EngineFacts]) -> dict[str, Report]:
    """By pod's name, the reports of engines that start."""
    return reports([p for p in pods if p.starting], engines)


def reports(pods: Iterable[Pod], engines: Mapping[str, EngineFacts]) -> dict[str, Report]:
    """By pod's name, what launchers say of the present start of their engine."""
    found = {p.name: of_start(p, engines) for p in pods}
    return {name: facts.report for name, facts in found.items() if facts is not None and facts.report is not None}


def unobserved(pods: Iterable[Pod], engines: Mapping[str, EngineFacts]) -> tuple[str, ...]:
    """Ready pods that nobody has asked since their engine started, and pods whose engine starts."""
    found = []
    for pod in pods:
        facts = of_start(pod, engines)
        if pod.uid and (pod.starting or (pod.ready and not (facts is not None and facts.serving))):
            found.append(pod.uid)
    return tuple(found)


def engine_version(seen: Seen, rollout: Rollout, stated: str | None, image: str) -> str | None:
    """The engine's version: as it says itself, as the launcher of an ended one wrote down, as stated, as tagged."""
    ended = next((v for v in map(diagnosed_version, rollout.updated) if v), None)
    return seen.version or ended or stated or version_of_tag(image)


def _so_far(report: Report) -> Report:
    """What is worth a status before an engine serves: its parts become known one by one."""
    return replace(report, kernel=None, attention_backend=None, quantization=None)


def _reports(facts: Iterable[EngineFacts]) -> tuple[Report, ...]:
    return tuple(f.report for f in facts if f.report is not None)


def _product(facts: EngineFacts) -> str | None:
    """The GPU's name as the engine's container sees it."""
    gpus = facts.report.gpus if facts.report is not None else ()
    return gpus[0].product if gpus else None


def _figures(facts: EngineFacts) -> Figures | None:
    """The metric's figures are exact, the log's are rounded; but the log's block size is the one that is meant."""
    metric, log = facts.cache or CacheFigures(), (facts.report.cache if facts.report else None) or CacheFigures()
    found = Figures.of(
        blocks=metric.blocks or log.blocks,
        block_tokens=log.block_tokens or metric.block_tokens,
        tokens=metric.tokens or log.tokens,
        concurrency=metric.max_concurrency if metric.max_concurrency is not None else log.max_concurrency,
    )
    return found if found != Figures() else None
