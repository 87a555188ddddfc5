"""What the engines themselves say: the model, its length, their version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from falcon_operator.decide.pods import Pod
from falcon_operator.decide.rollout import Rollout
from falcon_operator.decide.termination import diagnosed_version
from falcon_operator.decide.types import EngineFacts


@dataclass(frozen=True)
class Seen:
    """The answers of the pods that serve, and what was written down of this revision before."""

    known: tuple[EngineFacts, ...]
    error: str | None
    remembered: Mapping[str, Any]  # the live status where it is of the same revision, else empty

    @property
    def version(self) -> str | None:
        """The engine's true version."""
        for facts in self.known:
            if facts.version:
                return facts.version
        version: str | None = (self.remembered.get("engine") or {}).get("version")
        return version

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


def seen(rollout: Rollout, engines: Mapping[str, EngineFacts], live_status: Mapping[str, Any]) -> Seen:
    """The facts of the pods of the wanted revision, or of the ones that serve in their place."""
    answering = rollout.updated_ready or rollout.ready
    facts = [engines[p.uid] for p in answering if p.uid in engines]
    same = (live_status.get("revision") or {}).get("updated") == rollout.revision and rollout.revision is not None
    return Seen(
        known=tuple(f for f in facts if f.error is None),
        error=next((f.error for f in facts if f.error is not None), None),
        remembered=live_status if same else {},
    )


def unobserved(pods: tuple[Pod, ...], engines: Mapping[str, EngineFacts]) -> tuple[str, ...]:
    """Ready pods that nobody has asked yet."""
    return tuple(p.uid for p in pods if p.ready and p.uid and p.uid not in engines)


def version_in_failures(rollout: Rollout) -> str | None:
    """The version that the launcher of an ended engine wrote down."""
    return next((v for v in map(diagnosed_version, rollout.updated) if v), None)
