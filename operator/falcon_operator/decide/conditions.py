"""The conditions: each one small function of the situation, in the words of somebody who must act on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from falcon_operator.api.engine import Device
from falcon_operator.api.reasons import ConditionType as Type
from falcon_operator.api.reasons import Reason
from falcon_operator.api.spec import Spec
from falcon_operator.decide import formats, placement_words
from falcon_operator.decide.endpoint import Endpoint
from falcon_operator.decide.endpoint_words import count
from falcon_operator.decide.facts import Seen
from falcon_operator.decide.placement import Placement
from falcon_operator.decide.quantize import Hold
from falcon_operator.decide.refused_children import ChildRefused
from falcon_operator.decide.revision import Choice, Revision
from falcon_operator.decide.rollout import Rollout
from falcon_operator.decide.scheduler import unschedulable
from falcon_operator.decide.setback import Setback
from falcon_operator.decide.supported import supported

_SHOWN_NODES = 5
# Ends of an engine that say that something does not fit.
_TOO_LARGE = (
    Reason.SEQUENCES_EXCEED_MEMORY,
    Reason.CONTEXT_EXCEEDS_MEMORY,
    Reason.WEIGHTS_EXCEED_MEMORY,
    Reason.GPU_OUT_OF_MEMORY,
    Reason.OUT_OF_MEMORY,
)
# What came of the one-token completion; nothing is said of an engine whose launcher knows of none.
_CANARY: Mapping[str | None, str] = {
    "passed": " and has answered a first request",
    "off": "; no first request was made, as spec.startup.canary is false",
}


@dataclass(frozen=True)
class Condition:
    """One condition without its times."""

    type: Type
    status: str
    reason: Reason
    message: str


@dataclass(frozen=True)
class Situation:
    """Everything that conditions are made of."""

    spec: Spec
    image: str
    version: str | None  # of the engine, as far as it is known
    url: str
    choice: Choice
    rollout: Rollout
    seen: Seen
    recorded: bool  # the wanted revision has served before
    refused: ChildRefused | None
    deadline_exceeded: bool
    live: Mapping[str, Mapping[str, Any]]
    remarks: tuple[str, ...]  # what stays other than the spec asks, and is no failure
    placement: Placement
    endpoint: Endpoint
    setback: Setback | None = None
    hold: Hold | None = None  # what pods of the wanted revision wait for
    autoscaling: tuple[str, Reason, str] | None = None  # status, reason and message of AutoscalingActive
    # Serving engines that are enough while an autoscaler moves the number; None: all that are wanted.
    enough: int | None = None

    @property
    def has_started(self) -> bool:
        """Whether an engine of the wanted revision has started."""
        return self.recorded or any(p.ready or (p.started and not p.starting) for p in self.rollout.updated)

    @property
    def idle(self) -> Reason | None:
        """Why no pods are wanted, if none are."""
        if self.spec.suspend:
            return Reason.SUSPENDED
        return Reason.SCALED_TO_ZERO if self.rollout.desired == 0 else None

    @property
    def serves_enough(self) -> bool:
        """Whether all wanted pods serve, or so many that more of them are no concern of who waits for Ready."""
        if self.rollout.complete:
            return True
        if self.enough is None or self.rollout.outdated:
            return False
        return len(self.rollout.updated_ready) >= min(self.enough, self.rollout.desired)

    @property
    def waits(self) -> Hold | None:
        """What is worked on before pods start; nothing while the resource is suspended."""
        return None if self.spec.suspend else self.hold

    @property
    def stand_in(self) -> tuple[Revision, Reason] | None:
        """The revision that runs although the spec asks for another one, and why."""
        if self.setback is not None:
            return self.setback.good, Reason.ROLLED_BACK
        if self.hold is not None and self.hold.keeps is not None:
            return self.hold.keeps, self.hold.reason
        return None

    @property
    def stall(self) -> tuple[Reason, str] | None:
        """What only a person can resolve: nothing serves, a rollout cannot go on, or it was rolled back."""
        if self.refused is not None:
            return self.refused.reason, self.refused.message
        if self.waits is not None and self.waits.final:
            return self.waits.reason, self.waits.message + self.meanwhile
        blocker = self.rollout.blocker
        if blocker is not None and blocker.final and not self.rollout.ready:
            return blocker.reason, blocker.message
        if self.setback is not None:
            return Reason.ROLLED_BACK, self.setback.message
        if blocker is not None and blocker.final and self.rollout.outdated:
            kept = f"{_pods(len(self.rollout.ready))} of earlier revisions kept"
            return blocker.reason, f"{blocker.message} The rollout is held, with {kept}."
        return None

    @property
    def meanwhile(self) -> str:
        """Who serves while something is waited for."""
        if not self.rollout.ready:
            return ""
        return f" Until then requests go to {_pods(len(self.rollout.ready))} of revision {self.rollout.revision}."

    @property
    def returning(self) -> bool:
        """Whether the last good revision is on its way back."""
        return self.stall is not None and self.stall[0] is Reason.ROLLED_BACK and not self.rollout.complete


def all_conditions(s: Situation) -> list[Condition]:
    """All conditions; the summary is made of the others."""
    served, gateway = model_served(s), s.endpoint.condition
    return [
        ready(s, served),
        reconciling(s, served),
        stalled(s),
        available(s),
        progressing(s),
        served,
        gpu_compatible(s),
        fits(s),
        engine_supported(s),
        up_to_date(s),
        *([Condition(Type.AUTOSCALING_ACTIVE, *s.autoscaling)] if s.autoscaling else []),
        *([Condition(Type.GATEWAY_READY, *gateway)] if gateway else []),
    ]


def ready(s: Situation, served: Condition) -> Condition:
    """True where every wanted pod serves the model. A resource that wants no pods is not ready: nobody is served.

    While an autoscaler adds pods, or removes some, those that are never to be less are enough.
    """
    if s.refused is not None and (s.refused.needed or not s.rollout.complete):
        return Condition(Type.READY, "False", s.refused.reason, s.refused.message)
    if s.idle is not None:
        return Condition(Type.READY, "False", s.idle, _idle_words(s))
    if s.waits is not None:
        return Condition(Type.READY, "False", s.waits.reason, s.waits.message)
    if s.setback is not None and s.stall is not None:
        return Condition(Type.READY, "False", *s.stall)
    if s.serves_enough:
        if served.status != "True":
            return Condition(Type.READY, "False", served.reason, served.message)
        if s.endpoint.gap is not None:
            return Condition(Type.READY, "False", *s.endpoint.gap)
        there = min(len(s.rollout.updated_ready), s.rollout.desired)
        message = f"{there} of {_pods(s.rollout.desired)} ready. {served.message}"
        return Condition(Type.READY, "True", Reason.READY, message)
    if s.rollout.blocker is not None:
        return Condition(Type.READY, "False", s.rollout.blocker.reason, s.rollout.blocker.message)
    return Condition(Type.READY, "False", _going_on(s), s.rollout.progress)


def reconciling(s: Situation, served: Condition) -> Condition:
    """True while the operator or the cluster still works towards the spec by itself."""
    if s.returning:
        return Condition(Type.RECONCILING, "True", Reason.ROLLED_BACK, s.rollout.progress)
    if s.stall is not None:
        return Condition(Type.RECONCILING, "False", s.stall[0], "Nothing goes on by itself: see Stalled.")
    if s.waits is not None:
        return Condition(Type.RECONCILING, "True", s.waits.reason, s.waits.message)
    if s.rollout.complete:
        if s.rollout.desired and served.status == "Unknown":
            return Condition(Type.RECONCILING, "True", served.reason, served.message)
        if s.endpoint.gap is not None and s.endpoint.gap[0] is Reason.API_MISSING:
            return Condition(
                Type.RECONCILING, "False", Reason.API_MISSING, "Nothing goes on by itself: see GatewayReady."
            )
        if not s.endpoint.complete and not s.idle:
            message = f"The engines are as they should be; {count(s.endpoint.ready, s.endpoint.wanted)}"
            return Condition(Type.RECONCILING, "True", Reason.GATEWAY_NOT_READY, message)
        message = " ".join(("The cluster holds what the spec asks for.", *s.remarks))
        return Condition(Type.RECONCILING, "False", Reason.RECONCILED, message)
    return Condition(Type.RECONCILING, "True", _going_on(s), s.rollout.progress)


def stalled(s: Situation) -> Condition:
    """True where nothing serves, or nothing gets on, until a person acts."""
    if s.stall is not None:
        return Condition(Type.STALLED, "False" if s.returning else "True", *s.stall)
    return Condition(Type.STALLED, "False", Reason.NOT_STALLED, "Nothing waits for a person.")


def available(s: Situation) -> Condition:
    """True where at least one pod serves, of whichever revision, and clients have a way to it."""
    serving = len(s.rollout.ready)
    if serving and not s.endpoint.open and s.endpoint.gap is not None:
        return Condition(Type.AVAILABLE, "False", *s.endpoint.gap)
    if serving:
        message = f"{serving} of {_pods(s.rollout.desired)} ready to serve."
        return Condition(Type.AVAILABLE, "True", Reason.MINIMUM_REPLICAS_AVAILABLE, message)
    if s.refused is not None and s.refused.needed:
        return Condition(Type.AVAILABLE, "False", s.refused.reason, s.refused.message)
    if s.idle is not None:
        return Condition(Type.AVAILABLE, "False", s.idle, _idle_words(s))
    if s.waits is not None:
        return Condition(Type.AVAILABLE, "False", s.waits.reason, s.waits.message)
    if s.rollout.blocker is not None:
        return Condition(Type.AVAILABLE, "False", s.rollout.blocker.reason, s.rollout.blocker.message)
    held = f" New requests wait in the gateway, up to {s.spec.gateway.hold_timeout}." if s.endpoint.ready else ""
    message = f"No pod is ready: {s.rollout.progress}{held}"
    return Condition(Type.AVAILABLE, "False", Reason.MINIMUM_REPLICAS_UNAVAILABLE, message)


def progressing(s: Situation) -> Condition:
    """As a Deployment's: True while pods are replaced and once they are, False where that does not get on."""
    if s.returning:
        return Condition(Type.PROGRESSING, "True", Reason.ROLLED_BACK, s.rollout.progress)
    if s.stall is not None:
        return Condition(Type.PROGRESSING, "False", s.stall[0], s.stall[1])
    if s.waits is not None:
        return Condition(Type.PROGRESSING, "True", s.waits.reason, s.waits.message + s.meanwhile)
    if s.rollout.complete:
        if s.idle is not None:
            return Condition(Type.PROGRESSING, "False", s.idle, _idle_words(s))
        message = f"{_pods(s.rollout.desired)} of revision {s.rollout.revision} in place."
        return Condition(Type.PROGRESSING, "True", Reason.ROLLOUT_COMPLETE, message)
    why = f" {s.rollout.blocker.message}" if s.rollout.blocker is not None else ""
    if s.deadline_exceeded:
        message = (
            f"Not complete within spec.startup.budget and the time for nodes and images: {s.rollout.progress}{why}"
        )
        return Condition(Type.PROGRESSING, "False", Reason.ROLLOUT_STALLED, message)
    return Condition(Type.PROGRESSING, "True", _going_on(s), s.rollout.progress + why)


def model_served(s: Situation) -> Condition:
    """True where an engine has said that it serves every name of the spec."""
    names = ", ".join(s.spec.model.names)
    if not s.rollout.ready:
        failed = next((c.error for c in s.rollout.canaries if c.state == "failed" and c.error), None)
        why = f" A first request fails: {failed.rstrip('.')}." if failed else ""
        message = f"No pod is ready to serve {names}.{why}"
        return Condition(Type.MODEL_SERVED, "False", s.idle or Reason.NOT_SERVING, message)
    for facts in s.seen.known:
        missing = [name for name in s.spec.model.names if name not in facts.model_names]
        if missing:
            there = ", ".join(facts.model_names) or "nothing"
            return Condition(
                Type.MODEL_SERVED,
                "False",
                Reason.MODEL_MISMATCH,
                f"The engine serves {there}, and not {', '.join(missing)} of spec.model.names. "
                "Correct what changes the served names in spec.engine.extraArgs or in the image.",
            )
    if s.seen.known:
        length = s.seen.known[0].max_model_len
        upto = f" with up to {length} tokens" if length is not None else ""
        message = f"Serves {names}{upto}{_CANARY.get(s.seen.canary, '')}."
        return Condition(Type.MODEL_SERVED, "True", Reason.MODEL_SERVED, message)
    before = s.live.get(Type.MODEL_SERVED, {})
    if before.get("status") == "True" and s.seen.blind and (kept := _kept(Type.MODEL_SERVED, before)) is not None:
        # A Ready engine that is slow to answer still serves.
        return kept
    if s.seen.error is not None:
        message = f"A pod is ready, but what it serves cannot be read: {s.seen.error}. It is asked again."
        return Condition(Type.MODEL_SERVED, "Unknown", Reason.NOT_OBSERVED, message)
    return Condition(Type.MODEL_SERVED, "Unknown", Reason.NOT_OBSERVED, "A pod is ready and is asked what it serves.")


def gpu_compatible(s: Situation) -> Condition:
    """Whether nodes with the right GPUs are there: by what nodes say of themselves, and by what the scheduler found."""
    if not s.spec.effective_gpu_count and not s.spec.gpu.claims and s.spec.engine.device is Device.CPU:
        message = "engine.device is cpu: no GPU is needed."
        return Condition(Type.GPU_COMPATIBLE, "True", Reason.DEVELOPMENT_DEVICE, message)
    blocker = s.rollout.blocker
    if blocker is not None and blocker.reason in (Reason.UNSCHEDULABLE, Reason.NO_COMPATIBLE_NODE):
        return Condition(Type.GPU_COMPATIBLE, "False", blocker.reason, blocker.message)
    if any(unschedulable(p) for p in s.rollout.updated):
        message = "The scheduler finds no node for every pod: see Progressing."
        return Condition(Type.GPU_COMPATIBLE, "False", Reason.UNSCHEDULABLE, message)
    nodes = sorted({p.node for p in s.rollout.updated if p.node})
    judgement = s.placement.judgement
    if judgement is not None and (judgement.eligible or not nodes):
        return Condition(Type.GPU_COMPATIBLE, *placement_words.compatible(judgement))
    if nodes:
        shown = ", ".join(nodes[:_SHOWN_NODES]) + (
            f" and {len(nodes) - _SHOWN_NODES} more" if len(nodes) > _SHOWN_NODES else ""
        )
        message = f"The scheduler found what the pods ask for on {'node' if len(nodes) == 1 else 'nodes'} {shown}."
        return Condition(Type.GPU_COMPATIBLE, "True", Reason.PODS_SCHEDULED, message)
    return Condition(Type.GPU_COMPATIBLE, "Unknown", Reason.NODES_NOT_READABLE, placement_words.NOT_READABLE)


def fits(s: Situation) -> Condition:
    """Whether the engine holds what the spec asks of it: as computed, and then as its own start has shown."""
    blocker = s.rollout.blocker
    if blocker is not None and blocker.reason in _TOO_LARGE:
        return Condition(Type.FITS, "False", blocker.reason, blocker.message)
    before = s.live.get(Type.FITS, {})
    if s.seen.blind and (kept := _kept(Type.FITS, before)) is not None:
        return kept
    engine, clamped = s.spec.engine, s.seen.clamped
    asked = f"maxModelLen {engine.max_model_len} and maxNumSeqs {engine.max_num_seqs}"
    if s.stand_in is not None:
        message = f"Revision {s.stand_in[0].revision} runs, which is not what spec.engine asks for: see Progressing."
        return Condition(Type.FITS, "Unknown", s.stand_in[1], message)
    if s.has_started and clamped is not None:
        message = f"The engine started with {asked}, lowered to {clamped.given}: {clamped.why}"
        return Condition(Type.FITS, "True", Reason.CLAMPED, message)
    if s.has_started:
        return Condition(Type.FITS, "True", Reason.ENGINE_STARTED, f"The engine started with {asked}.")
    if predicted := placement_words.predicted(s.placement):
        return Condition(Type.FITS, *predicted)
    return Condition(Type.FITS, "Unknown", Reason.NOT_EVALUATED, f"No engine has started with {asked} yet.")


def engine_supported(s: Situation) -> Condition:
    """Whether this operator knows the engine's version, what runs in it, and what speaks against it."""
    before = s.live.get(Type.ENGINE_SUPPORTED, {})
    if s.seen.blind and (kept := _kept(Type.ENGINE_SUPPORTED, before)) is not None:
        return kept
    on_cpu = s.spec.engine.device is Device.CPU
    status, reason, message = supported(s.version, s.image, s.seen, s.placement.products, on_cpu=on_cpu)
    lasting = s.spec.cache.claim_name is not None or s.spec.cache.size is not None
    message += formats.words(s.seen.computed, s.placement.choices, on_cpu=on_cpu, kept=lasting)
    return Condition(Type.ENGINE_SUPPORTED, status, reason, message)


def up_to_date(s: Situation) -> Condition:
    """Whether an adoption of today's renderer and defaults would change the pods."""
    if s.stand_in is not None:
        message = f"Revision {s.stand_in[0].revision} runs, which is not what the spec asks for: see Progressing."
        return Condition(Type.UP_TO_DATE, "False", s.stand_in[1], message)
    if s.choice.up_to_date:
        message = "The pods are what this operator makes of the spec."
        return Condition(Type.UP_TO_DATE, "True", Reason.UP_TO_DATE, message)
    changes = ", ".join(s.choice.adoption) or "nothing but fields that are no longer set"
    target, fresh = s.choice.target, s.choice.fresh
    message = (
        f"Revision {target.revision} was made by renderer {target.renderer or 'unknown'} and is kept. "
        f"Adopting {fresh.renderer} would change {changes} and restart the engines; spec.updatePolicy Auto does that."
    )
    return Condition(Type.UP_TO_DATE, "False", Reason.ADOPTION_AVAILABLE, message)


def _kept(kind: Type, before: Mapping[str, Any]) -> Condition | None:
    """The condition on record, for an operator that has just started and knows nothing yet."""
    try:
        return Condition(kind, str(before["status"]), Reason(before["reason"]), str(before["message"]))
    except (KeyError, ValueError):
        return None


def _going_on(s: Situation) -> Reason:
    if s.idle is not None or len(s.rollout.updated) > s.rollout.desired:
        return Reason.SCALING
    if s.rollout.outdated:
        return Reason.ROLLOUT_IN_PROGRESS
    return Reason.SCALING if s.rollout.updated_ready else Reason.STARTING


def _idle_words(s: Situation) -> str:
    if s.idle is Reason.SUSPENDED:
        return "spec.suspend is true: no pods run, everything else stays. Set it to false to serve."
    if s.enough is not None and s.spec.autoscaling is not None:
        idle = s.spec.autoscaling.scale_to_zero_after
        return f"No requests for {idle}: no engine runs. The next request is held by the gateway and starts one."
    return "spec.replicas is 0: no pods run. Raise it to serve."


def _pods(count: int) -> str:
    return f"{count} pod" if count == 1 else f"{count} pods"
