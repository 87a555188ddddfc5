"""The Job that quantizes the model: what it is to be, how far it is, and what holds back the pods that need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from falcon_operator.api import names
from falcon_operator.api.engine import Device
from falcon_operator.api.reasons import Reason
from falcon_operator.api.spec import Spec
from falcon_operator.decide import failure, scheduler, termination
from falcon_operator.decide.failure import Failure
from falcon_operator.decide.pods import Pod, pods_of
from falcon_operator.decide.revision import Revision
from falcon_operator.decide.termination import Cause
from falcon_operator.decide.types import ObjectRef, Renderer, Snapshot
from falcon_operator.desired import quantize_job
from falcon_operator.desired.metadata import Owner

_FIELD = "spec.model.source.huggingFace.quantize"


@dataclass(frozen=True)
class Hold:
    """Why pods of the wanted revision do not start yet; `keeps` is the revision that runs meanwhile."""

    reason: Reason
    message: str
    final: bool = False  # no waiting cures it
    keeps: Revision | None = None


@dataclass(frozen=True)
class Quantization:
    """The Job as it is to be, and as it is."""

    done: bool = True  # or nothing is to be quantized
    apply: tuple[dict[str, Any], ...] = ()
    superfluous: tuple[ObjectRef, ...] = ()
    pods: tuple[Pod, ...] = ()
    failures: tuple[Failure, ...] = ()
    hold: Hold | None = None
    finished: str = ""  # what to say once it is done


def observe(
    spec: Spec, owner: Owner, renderer: Renderer, snapshot: Snapshot, record: Mapping[str, Any] | None
) -> Quantization:
    """The Job and its pods; `record` is the last failure that was reported.

    A Job that has made the same is as good, whatever it was made with.
    """
    wanted = quantize_job.job(spec, owner, renderer)
    jobs = {name: body for name, body in sorted(snapshot.jobs.items()) if owner.owns(body)}
    if wanted is None:
        return Quantization(superfluous=tuple(_reference(body) for body in jobs.values()))
    name = wanted["metadata"]["name"]
    same = [n for n, body in jobs.items() if quantize_job.makes(body) == quantize_job.makes(wanted)]
    name = next((n for n in same if _condition(jobs[n], "Complete")), name)
    live = jobs.get(name)
    superfluous = tuple(_reference(body) for n, body in jobs.items() if n != name)
    asked = quantize_job.asked(spec)
    assert asked is not None
    repository = asked[0].repository
    if live is not None and _condition(live, "Complete"):
        return Quantization(superfluous=superfluous, finished=f"Job {name} has quantized {repository}.")
    uid = live["metadata"].get("uid") if live is not None else None
    pods = tuple(p for p in _pods(owner, snapshot) if uid is not None and _controller(p) == uid)
    failures = tuple(failure.restated([f for f in (_failure(p, name) for p in pods) if f is not None], record))
    if live is not None and (given_up := _condition(live, "Failed")):
        # The Job may say which pod's end it was; two can end in one second.
        named = [f for f in failures if f.pod and f.pod in str(given_up.get("message"))]
        ended = failure.latest(named or failures) or _without_pod(name, given_up)
        ended = replace(ended, cause=replace(ended.cause, final=True), blocking=True)
        message = f"Job {name} could not quantize {repository}: {ended.cause.message} {ended.cause.hint}"
        hold = Hold(Reason.QUANTIZE_FAILED, message, final=True)
        return Quantization(False, (), superfluous, pods, (ended,), hold)
    hold = _waiting(spec, name, repository, live, pods, failures)
    return Quantization(False, (wanted,), superfluous, pods, failures, hold)


def _waiting(
    spec: Spec,
    name: str,
    repository: str,
    live: Mapping[str, Any] | None,
    pods: tuple[Pod, ...],
    failures: tuple[Failure, ...],
) -> Hold:
    """What a Job that has not ended is at. The time of its start is said, not how long ago that is."""
    purpose = f"Job {name}, which quantizes {repository} before pods start,"
    pod = next((p for p in reversed(pods) if p.active), None)
    last = failure.latest(failures)
    if last is not None and last.cause.reason is not Reason.QUANTIZE_FAILED and last.blocking:
        return Hold(last.cause.reason, f"{purpose} does not start: {last.sentence}", last.final)
    if pod is not None and (words := scheduler.unschedulable(pod)) is not None:
        why = scheduler.explained(words, _asks(spec)).replace("spec.resources", f"{_FIELD}.resources")
        return Hold(Reason.QUANTIZING, f"{purpose} waits for a node. {why}")
    since = ((live or {}).get("status") or {}).get("startTime")
    if since is None:
        message = f"{purpose} is about to start."
    elif pod is None:
        # A quota or a policy says so in events of the Job alone.
        message = f"{purpose} has no pod, since {since}; where that stays, `kubectl describe job {name}` says why."
    elif pod.state("running") is None:
        message = f"{purpose} waits for a node, its image or its volume, since {since}."
    else:
        message = f"{purpose} runs since {since}."
    if last is not None:
        message += f" Its last attempt failed, and it tries again: {last.cause.message}"
    return Hold(Reason.QUANTIZING, message)


def _failure(pod: Pod, job: str) -> Failure | None:
    """What an attempt ended with, in the quantizer's own sentence."""
    ended = pod.state("terminated")
    if ended is None:
        return failure.of_pod(pod, None)
    code = ended.get("exitCode")
    if code == 0 or pod.terminating:
        return None
    way = f"Correct {_FIELD} or what the sentence names; to try the same once more, delete Job {job}."
    if ended.get("reason") == "OOMKilled":
        message = f"The quantizer in pod {pod.name} was ended for its memory."
        way = f"Raise {_FIELD}.resources, or use a node with more memory."
    else:
        said = termination.last_sentence(str(ended.get("message") or ""))
        message = said or f"The quantizer in pod {pod.name} ended with exit code {code} and said nothing."
    cause = Cause(Reason.QUANTIZE_FAILED, message, way, code if isinstance(code, int) else None)
    return Failure(str(ended.get("finishedAt") or pod.created), pod.name, cause, blocking=True)


def _without_pod(job: str, condition: Mapping[str, Any]) -> Failure:
    """A Job that was given up for another reason than the end of a pod, such as its time."""
    words = " ".join(str(condition.get("message") or condition.get("reason") or "it says nothing").split())
    message = f"It was given up: {words.rstrip('.')}."
    if condition.get("reason") == "DeadlineExceeded":
        message = f"It did not end within {quantize_job.DEADLINE_HOURS} hours."
    way = f"Correct {_FIELD}; to try the same once more, delete Job {job}."
    return Failure(
        str(condition.get("lastTransitionTime") or ""), job, Cause(Reason.QUANTIZE_FAILED, message, way), blocking=True
    )


def _pods(owner: Owner, snapshot: Snapshot) -> tuple[Pod, ...]:
    return pods_of(owner.uid, snapshot.quantizer_pods, names.QUANTIZER_CONTAINER)


def _controller(pod: Pod) -> str | None:
    references = pod.raw["metadata"].get("ownerReferences") or []
    return next((r.get("uid") for r in references if r.get("controller")), None)


def _condition(job: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A condition that holds; empty where it does not."""
    found = (job.get("status") or {}).get("conditions") or []
    return next((c for c in found if c.get("type") == kind and c.get("status") == "True"), {})


def _reference(job: Mapping[str, Any]) -> ObjectRef:
    metadata = job["metadata"]
    return ObjectRef(
        quantize_job.API_VERSION, quantize_job.KIND, metadata["namespace"], metadata["name"], metadata["uid"]
    )


def _asks(spec: Spec) -> str:
    """What the Job's pod asks of a node."""
    asked = quantize_job.asked(spec)
    assert asked is not None
    requests = asked[1].resources.requests
    said = []
    if asked[1].device is Device.CUDA:
        claims = ", ".join(claim.name for claim in spec.gpu.claims)
        said.append(f"the devices of {claims}" if claims else f"1 {spec.gpu.effective_resource_name}")
    return ", ".join((*said, f"{requests.cpu} CPU", f"{requests.memory} of memory"))
