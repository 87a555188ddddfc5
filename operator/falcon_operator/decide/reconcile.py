"""The decision: from what is there to what is to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from falcon_operator.api import names
from falcon_operator.api.engine import Device
from falcon_operator.api.reasons import Reason
from falcon_operator.api.spec import Spec
from falcon_operator.decide import (
    autoscaling,
    autoscaling_status,
    deletion_cost,
    facts,
    failure,
    gate,
    placement,
    placement_words,
    quantize,
    refused_children,
    revision,
    rollout,
    setback,
    strategy,
)
from falcon_operator.decide import endpoint as endpoints
from falcon_operator.decide import status as statuses
from falcon_operator.decide.capacity import measured_before
from falcon_operator.decide.conditions import Situation, all_conditions
from falcon_operator.decide.events import events
from falcon_operator.decide.held import conditions_of_refusal
from falcon_operator.decide.pods import Pod, pods_of
from falcon_operator.decide.report import Report
from falcon_operator.decide.types import Plan, Renderer, Snapshot
from falcon_operator.desired import claims
from falcon_operator.desired.deployment import deployment
from falcon_operator.desired.launcher import launcher_config_map
from falcon_operator.desired.metadata import Owner
from falcon_operator.desired.pod import image_of


def decide(snapshot: Snapshot, renderer: Renderer, now: datetime) -> Plan:
    """Compute everything from what is there; the same inputs give the same plan."""
    owner = Owner.of(snapshot.resource)
    live = snapshot.resource.get("status") or {}
    if snapshot.resource["metadata"].get("deletionTimestamp"):
        # The garbage collector removes the children; there is nothing to say to a resource that leaves.
        return Plan(apply=(), delete=(), status=dict(live), events=(), requeue_after=None, observe=())
    pods = pods_of(owner.uid, snapshot.pods)
    admitted = gate.admit(snapshot.resource, renderer.config)
    if isinstance(admitted, gate.Refusal):
        return _held(snapshot, owner, pods, admitted, renderer, now)
    return _acted_on(snapshot, owner, pods, admitted, renderer, now)


def _acted_on(
    snapshot: Snapshot, owner: Owner, pods: tuple[Pod, ...], spec: Spec, renderer: Renderer, now: datetime
) -> Plan:
    there = snapshot.deployment if snapshot.deployment is not None and owner.owns(snapshot.deployment) else None
    live_status = snapshot.resource.get("status") or {}
    recorded = revision.recorded_revisions(owner, snapshot.revisions)
    running = revision.live_revision(there)
    choice = revision.choose(spec, owner, renderer, running, recorded, pods, snapshot.launchers)
    desired = autoscaling.wanted(spec, there, live_status, snapshot.scaling)
    observed = partial(
        rollout.observe,
        pods,
        there,
        desired,
        startup_budget=spec.startup.budget_seconds,
        asks=_asks(spec),
        record=live_status.get("lastFailure"),
        doing=facts.doing(pods, snapshot.engines),
    )
    state = observed(choice.target.revision)
    returned = setback.decide(spec, there, choice.target, state, recorded, snapshot.launchers)
    if returned is not None:
        choice = replace(choice, target=returned.good)
        state = observed(returned.good.revision)
    quantization = quantize.observe(spec, owner, renderer, snapshot, live_status.get("lastFailure"))
    changes = running is not None and running.revision != choice.target.revision
    hold = quantization.hold if returned is None and (running is None or changes) else None
    if hold is not None and running is not None:
        # What runs goes on, and is scaled, until there is something to replace it by.
        kept = next((r for r in recorded if r.revision == running.revision), running)
        choice, hold, changes = replace(choice, target=kept), replace(hold, keeps=kept), False
        state = replace(observed(kept.revision), blocker=None)
    state = replace(state, failures=(*state.failures, *quantization.failures))
    target = choice.target
    # Of one revision the target's template is recorded, not the live one: with the API server's defaults in it, the
    # Deployment would be written once more, for nothing.
    former = running if running is not None and running.revision != target.revision else None
    records = revision.records(owner, (former, target), recorded, pods)
    image = image_of(spec, renderer)
    seen = facts.seen(
        state,
        snapshot.engines,
        live_status,
        on_cpu=spec.engine.device is Device.CPU,
        products=placement.products_of(spec, [p.node for p in pods if p.node], snapshot.nodes),
    )
    version = facts.engine_version(seen, state, spec.engine.version, image)
    places = placement.place(spec, version, snapshot.nodes)
    state = placement_words.explained(state, places)
    endpoint = endpoints.observe(spec, owner, snapshot)
    crowded = bool(state.outdated) and state.blocker is not None and state.blocker.reason is Reason.UNSCHEDULABLE
    manner = strategy.manner(spec, there, changes, places, snapshot.nodes, snapshot.free, crowded)
    started = (live_status.get("coldStart") or {}).get("ready")
    state = replace(state, cost=strategy.cost(manner.surge, desired, spec.gateway.enabled, started))
    live_conditions = statuses.live_conditions(snapshot.resource)
    marks = autoscaling.marks(spec, there, live_status, desired, snapshot.scaling)
    scaled = autoscaling_status.in_status(
        spec, there, live_status, desired, snapshot.scaling, autoscaling.Move.of(marks), statuses.timestamp(now)
    )
    situation = Situation(
        spec=spec,
        image=image,
        version=version,
        url=names.service_url(owner.name, owner.namespace, renderer.config.cluster_domain),
        choice=choice,
        rollout=state,
        seen=seen,
        recorded=any(r.revision == target.revision for r in recorded),
        refused=refused_children.first(snapshot.refused),
        deadline_exceeded=rollout.progress_deadline_exceeded(there),
        live=live_conditions,
        remarks=tuple(claims.remarks(spec, owner, snapshot.claims)),
        placement=places,
        endpoint=endpoint,
        setback=returned,
        hold=hold,
        autoscaling=autoscaling_status.condition(spec, there, scaled, snapshot.scaling, live_conditions),
        enough=autoscaling.enough(spec),
    )
    if places.too_large and not situation.has_started:
        refusal = gate.Refusal(Reason.SEQUENCES_EXCEED_MEMORY, placement_words.too_large(places))
        return _held(snapshot, owner, pods, refusal, renderer, now, places)
    new = {
        **_base(snapshot, owner, renderer, state),
        **_observed(situation, recorded, live_status, facts.reports(pods, snapshot.engines)),
        **({"autoscaling": scaled} if scaled is not None else {}),
        "conditions": statuses.with_times(
            all_conditions(situation), situation.live, _generation(snapshot.resource), now
        ),
    }
    annotations = target.annotations | (returned.annotations if returned is not None else {}) | marks
    moving = (*pods, *endpoint.pods, *quantization.pods)
    status, requeue = statuses.settled(_ordered(new), live_status, moving, now, state.doing)
    waits = hold is not None and hold.keeps is None
    apply = [] if waits else [deployment(spec, owner, desired, target.template, annotations, surges=manner.surge)]
    # The launcher first, and claims too: pods that look for them in vain are tried again only after a while.
    apply[:0] = [*claims.claims(spec, owner, snapshot.claims), *quantization.apply]
    if target.launcher == renderer.launcher.name and renderer.launcher.name not in snapshot.launchers:
        apply.insert(0, launcher_config_map(owner.namespace, renderer.launcher))
    apply += [*endpoints.objects(spec, owner, renderer.config, seen, snapshot, endpoint), *records]
    in_use = {target.revision, *(p.revision or "" for p in pods), running.revision if running else ""}
    return Plan(
        apply=tuple(apply),
        delete=(
            *revision.superfluous(owner, recorded, in_use),
            *endpoints.superfluous(apply, snapshot),
            *quantization.superfluous,
        ),
        status=status,
        events=events(
            live_status,
            status,
            f", {state.cost}" + (f" ({manner.why})" if manner.why else ""),
            quantization.finished,
        ),
        requeue_after=requeue,
        observe=facts.unobserved(pods, snapshot.engines),
        look=manner.look,
        costs=deletion_cost.candidates(desired, there, pods),
        # The number of engines that cannot start is nothing to find.
        autoscale=None
        if waits
        else autoscaling.watch(
            spec,
            there,
            live_status,
            desired,
            state,
            endpoint.pods,
            places,
            snapshot.nodes,
            per_engine=endpoints.per_engine(spec, owner, seen, snapshot)[1],
            has_served=bool(recorded or state.ready or started is not None),
            version=version,
            now=now,
        ),
    )


def _held(
    snapshot: Snapshot,
    owner: Owner,
    pods: tuple[Pod, ...],
    refusal: gate.Refusal,
    renderer: Renderer,
    now: datetime,
    places: placement.Placement = placement.NOWHERE_LOOKED,
) -> Plan:
    """Say why nothing is done; what is there stays as it is."""
    live_status = snapshot.resource.get("status") or {}
    live = statuses.live_conditions(snapshot.resource)
    there = snapshot.deployment if snapshot.deployment is not None and owner.owns(snapshot.deployment) else None
    running = revision.live_revision(there)
    desired = int(((there or {}).get("spec") or {}).get("replicas") or 0)
    state = rollout.observe(
        pods,
        there,
        desired,
        running.revision if running else None,
        startup_budget=None,
        asks="what the spec says",
        record=live_status.get("lastFailure"),
        doing=facts.doing(pods, snapshot.engines),
    )
    new = {
        **_base(snapshot, owner, renderer, state),
        **{
            key: live_status[key]
            for key in ("model", "engine", "capacity", "coldStart", "revision", "autoscaling")
            if key in live_status
        },
        **places.in_status(measured_before(live_status)),
        "conditions": statuses.with_times(
            conditions_of_refusal(refusal, state, live, places), live, _generation(snapshot.resource), now
        ),
    }
    status, requeue = statuses.settled(_ordered(new), live_status, pods, now, state.doing)
    return Plan(
        apply=(),
        delete=(),
        status=status,
        events=events(live_status, status),
        requeue_after=requeue,
        observe=facts.unobserved(pods, snapshot.engines),
    )


def _base(snapshot: Snapshot, owner: Owner, renderer: Renderer, state: rollout.Rollout) -> dict[str, Any]:
    """What is said whatever the spec is."""
    live_status = snapshot.resource.get("status") or {}
    found: dict[str, Any] = {
        "observedGeneration": _generation(snapshot.resource),
        "desiredReplicas": state.desired,
        "replicas": len(state.active),
        "readyReplicas": len(state.ready),
        "updatedReplicas": len(state.updated),
        "selector": names.selector_string(owner.name),
        "url": names.service_url(owner.name, owner.namespace, renderer.config.cluster_domain),
    }
    last = failure.remembered(failure.latest(state.failures), live_status.get("lastFailure"))
    if last is not None:
        found["lastFailure"] = last
    return found


def _observed(
    s: Situation,
    recorded: list[revision.Revision],
    live_status: Mapping[str, Any],
    reports: Mapping[str, Report],
) -> dict[str, Any]:
    """What the engines and the revisions say."""
    target = s.choice.target
    before = live_status.get("revision") or {}
    serving = [p.revision for p in s.rollout.updated_ready or s.rollout.ready if p.revision]
    newest = recorded[-1].revision if recorded else None
    revisions = {
        "current": serving[-1] if serving else before.get("current") or newest,
        "updated": target.revision,
        "renderer": target.renderer or None,
        "available": None if s.choice.up_to_date or s.setback is not None else s.choice.fresh.renderer,
        "failed": s.setback.failed if s.setback is not None else None,
    }
    budget = timedelta(seconds=s.spec.startup.budget_seconds)
    found = {
        "model": s.seen.model,
        "engine": s.seen.engine,
        **s.placement.in_status(s.seen.measured),
        "coldStart": statuses.cold_start(s.rollout.updated, budget, live_status.get("coldStart"), reports),
        "revision": {k: v for k, v in revisions.items() if v is not None},
    }
    return {k: v for k, v in found.items() if v is not None}


def _ordered(status: dict[str, Any]) -> dict[str, Any]:
    """Counts first, the long list last, as people read it."""
    conditions = status.pop("conditions")
    return {**status, "conditions": conditions}


def _generation(resource: Mapping[str, Any]) -> int:
    return int(resource["metadata"].get("generation") or 0)


def _asks(spec: Spec) -> str:
    """What a pod asks of a node, in a few words."""
    said = []
    if spec.effective_gpu_count:
        said.append(f"{spec.effective_gpu_count} {spec.gpu.effective_resource_name}")
    if spec.gpu.claims:
        said.append("the devices of " + ", ".join(claim.name for claim in spec.gpu.claims))
    if said and spec.gpu.products:
        said.append("a product of " + ", ".join(spec.gpu.products))
    if said and spec.gpu.memory_at_least is not None:
        said.append(f"GPU memory of at least {spec.gpu.memory_at_least}")
    said += [f"{spec.resources.requests.cpu} CPU", f"{spec.resources.requests.memory} of memory"]
    return ", ".join(said)
