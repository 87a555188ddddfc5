"""A revision that does not come to serve, and the last good one that runs in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from falcon_operator.api import names
from falcon_operator.api.lifecycle import OnFailure
from falcon_operator.api.spec import Spec
from falcon_operator.decide import rollout
from falcon_operator.decide.pods import Pod
from falcon_operator.decide.revision import Revision
from falcon_operator.decide.rollout import Rollout

# Of what is kept in an annotation.
_CHARACTERS = 1000


@dataclass(frozen=True)
class Setback:
    """The revision that was given up, why, and the one that runs instead."""

    failed: str
    why: str
    good: Revision

    @property
    def annotations(self) -> dict[str, str]:
        """What the Deployment says of it, so that it is still known after the failed pods and this process are gone."""
        return {names.ANNOTATION_FAILED_REVISION: self.failed, names.ANNOTATION_FAILED_WHY: self.why}

    @property
    def message(self) -> str:
        """What happened and the way on."""
        return (
            f"Revision {self.failed} was given up, and revision {self.good.revision} runs instead: {self.why} Correct "
            "the spec, or set it back; to try the same once more, set spec.rollout.onFailure to Hold."
        )


def decide(
    spec: Spec,
    deployment: Mapping[str, Any] | None,
    target: Revision,
    state: Rollout,
    recorded: Sequence[Revision],
    launchers: frozenset[str],
) -> Setback | None:
    """Whether the revision that the spec asks for is given up, or was: until another one, or Hold, is asked for."""
    if spec.rollout.on_failure is not OnFailure.ROLL_BACK or deployment is None:
        return None
    said = deployment["metadata"].get("annotations") or {}
    if said.get(names.ANNOTATION_FAILED_REVISION) == target.revision:
        why = said.get(names.ANNOTATION_FAILED_WHY) or ""
    elif said.get(names.ANNOTATION_REVISION) == target.revision and _on_trial(deployment):
        why = _failure(deployment, state)
    else:
        return None
    good = _last_good(target, recorded, launchers, state.ready)
    return Setback(target.revision, why, good) if why and good is not None else None


def _failure(deployment: Mapping[str, Any], state: Rollout) -> str:
    """Why what is being rolled out will not come: it fails for good, or has not come in its time. Empty: it may."""
    blocker = state.blocker
    if blocker is not None and blocker.final:
        why = blocker.message
    elif rollout.progress_deadline_exceeded(deployment):
        why = f"It was not in place in time. {blocker.message if blocker is not None else state.progress}"
    else:
        return ""
    return why if len(why) <= _CHARACTERS else why[: _CHARACTERS - 1] + "…"


def _on_trial(deployment: Mapping[str, Any]) -> bool:
    """Whether the Deployment has not been complete with its template yet.

    What ails a revision that was in place once, an earlier one would not cure.
    """
    status = deployment.get("status") or {}
    if int(status.get("observedGeneration") or 0) < int(deployment["metadata"].get("generation") or 0):
        return False  # its controller has not spoken of this revision yet
    return not rollout.was_complete(deployment)


def _last_good(
    target: Revision, recorded: Sequence[Revision], launchers: frozenset[str], ready: Sequence[Pod]
) -> Revision | None:
    """The newest other one that has served and can start again, or still serves."""
    serving = {pod.revision for pod in ready}
    others = [r for r in recorded if r.revision != target.revision]
    able = [r for r in others if r.launcher in launchers or r.revision in serving]
    return max(able, key=lambda r: r.number, default=None)
