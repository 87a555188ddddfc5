"""What went wrong in a pod, in the words that its statuses hold: a reason, a sentence, a way out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from falcon_engine.signatures import TRANSIENT_SECONDS
from falcon_operator.api import names
from falcon_operator.api.reasons import Reason
from falcon_operator.decide import termination
from falcon_operator.decide.pods import Pod, parse_time
from falcon_operator.decide.termination import Cause

_IMAGE_REASONS = frozenset(
    (
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    )
)
# No use in waiting: a person must change the image, the registry or the pull secret.
_IMAGE_FINAL_REASONS = frozenset(("InvalidImageName", "ErrImageNeverPull"))
_CREDENTIAL_WORDS = ("denied", "unauthorized", "forbidden", "no basic auth")
_IMAGE_FINAL_WORDS = (*_CREDENTIAL_WORDS, "not found", "invalid reference")
_CONTAINER_REASONS = frozenset(
    ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CreatePodSandboxError")
)
_EVICTIONS = frozenset(("Evicted", "Preempting", "Preempted", "NodeShutdown", "Terminated", "NodeLost"))

_BACK_OFF_PREFIX = "Back-off pulling image"
# The launcher gives up a little before its time is over, and the kubelet rounds to seconds.
_TRANSIENT_SLACK = 15.0


@dataclass(frozen=True)
class Failure:
    """One failure of one pod; `pod` and `time` and the reason identify it."""

    time: str
    pod: str
    cause: Cause
    blocking: bool  # it explains why the pod does not serve now
    since: str | None = None  # of one that passes by itself: when the pod began to fail so
    unready: str = ""  # since when the pod has not served

    @property
    def final(self) -> bool:
        """Whether a person must act: at once, or since what should have passed has not."""
        begin, end = parse_time(self.since), parse_time(self.time)
        if not self.cause.transient or begin is None or end is None:
            return self.cause.final
        return (end - begin).total_seconds() >= TRANSIENT_SECONDS - _TRANSIENT_SLACK

    @property
    def sentence(self) -> str:
        """Cause and way out."""
        return " ".join(part for part in (self.cause.message, retried(self.since), self.cause.hint) if part)

    def to_status(self) -> dict[str, Any]:
        """As `status.lastFailure` holds it."""
        found: dict[str, Any] = {
            "time": self.time,
            "pod": self.pod,
            "reason": self.cause.reason.value,
            "message": self.cause.message,
            "hint": self.cause.hint,
        }
        if self.cause.exit_code is not None:
            found["exitCode"] = self.cause.exit_code
        if self.since is not None:
            found["since"] = self.since
        return found


def retried(since: str | None) -> str:
    """That the kubelet and the launcher try again, and since when; nothing where they do not."""
    return f"It is retried, since {since}." if since else ""


def of_pod(pod: Pod, startup_budget: int | None) -> Failure | None:
    """The failure that the pod shows, if it shows one; what happens to a leaving pod was asked for."""
    if pod.terminating:
        return None
    if pod.status.get("phase") == "Failed" and pod.state("terminated") is None:
        return Failure(time=_when(pod), pod=pod.name, cause=_ended_from_outside(pod), blocking=False)
    waiting = pod.state("waiting") or {}
    reason = waiting.get("reason")
    if reason in _IMAGE_REASONS:
        cause = _image(pod, str(reason), str(waiting.get("message") or ""))
        return Failure(time=pod.scheduled_at, pod=pod.name, cause=cause, blocking=True)
    if reason in _CONTAINER_REASONS:
        cause = _container(pod, str(reason), str(waiting.get("message") or ""))
        return Failure(time=pod.scheduled_at, pod=pod.name, cause=cause, blocking=True)
    ended = pod.state("terminated") or pod.state("terminated", last=True)
    if ended is None:
        return None
    cause = termination.cause(pod, ended, startup_budget)
    blocking = pod.active and not pod.ready and not pod.started
    time = ended.get("finishedAt") or _when(pod)
    since = (ended.get("startedAt") or time) if cause.transient else None
    return Failure(time=time, pod=pod.name, cause=cause, blocking=blocking, since=since, unready=_unready(pod))


def failures(pods: Sequence[Pod], startup_budget: int | None) -> list[Failure]:
    """All failures that pods show."""
    return [f for f in (of_pod(pod, startup_budget) for pod in pods) if f is not None]


def blocking(found: Sequence[Failure]) -> Failure | None:
    """The failure that keeps pods from serving: one that no waiting cures first, then the latest."""
    return max((f for f in found if f.blocking), key=lambda f: (f.final, f.time, f.pod), default=None)


def latest(found: Sequence[Failure]) -> Failure | None:
    """The failure to be remembered: the one that blocks now, else the most recent one."""
    return blocking(found) or max(found, key=lambda f: (f.time, f.pod), default=None)


def restated(found: Sequence[Failure], record: Mapping[str, Any] | None) -> list[Failure]:
    """The failures, the one on record in the words of the record, and one that goes on with the time of its begin.

    A kubelet that tries again words the same failure a little differently every time, or leaves the detail out; that
    must not turn into writes.
    """
    if not record:
        return list(found)
    return [_restated(f, record) if is_same(f, record) else f for f in (_continued(f, record) for f in found)]


def _continued(seen: Failure, record: Mapping[str, Any]) -> Failure:
    """The same failure of the same pod again, which has not served in between."""
    before = str(record.get("since") or "")
    same = (record.get("pod"), record.get("reason")) == (seen.pod, seen.cause.reason.value)
    if seen.since is None or not before or not same or seen.unready > str(record.get("time") or ""):
        return seen
    return replace(seen, since=min(seen.since, before))


def _restated(seen: Failure, record: Mapping[str, Any]) -> Failure:
    message = str(record.get("message") or "")
    if not message or message == seen.cause.brief:
        return seen
    final = seen.cause.final or (seen.cause.reason is Reason.IMAGE_PULL_FAILED and _is_final(message))
    return replace(seen, cause=replace(seen.cause, message=message, hint=str(record.get("hint") or ""), final=final))


def remembered(seen: Failure | None, record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """`status.lastFailure`: the failure seen, unless the one on record is a later one."""
    if seen is None:
        return dict(record) if record else None
    if record and not seen.blocking and seen.time < str(record.get("time") or ""):
        return dict(record)
    return seen.to_status()


def is_same(seen: Failure, record: Mapping[str, Any]) -> bool:
    """Whether the record is of this failure."""
    return (record.get("pod"), record.get("time"), record.get("reason")) == (
        seen.pod,
        seen.time,
        seen.cause.reason.value,
    )


def _unready(pod: Pod) -> str:
    return str(pod.condition("Ready").get("lastTransitionTime") or "")


def _when(pod: Pod) -> str:
    ready = pod.condition("Ready").get("lastTransitionTime")
    return ready or pod.status.get("startTime") or pod.created


def _ended_from_outside(pod: Pod) -> Cause:
    word = str(pod.status.get("reason") or "Failed")
    detail = str(pod.status.get("message") or "no message").rstrip(".")
    where = f" on node {pod.node}" if pod.node else ""
    if word in _EVICTIONS:
        return Cause(
            reason=Reason.EVICTED,
            message=f"Pod {pod.name}{where} was evicted ({word}): {detail}.",
            hint="Another pod takes its place; if it happens again, raise spec.resources or the pod's priority "
            "(spec.scheduling.priorityClassName).",
        )
    return Cause(
        reason=Reason.CONTAINER_CANNOT_START,
        message=f"Pod {pod.name}{where} was refused by the node ({word}): {detail}.",
        hint="Another pod takes its place; look at the node's devices and its kubelet's log if it happens again.",
    )


def _image(pod: Pod, reason: str, text: str) -> Cause:
    detail = _registry_words(text)
    image, field = _image_meant(pod, text)
    words = detail.lower()
    final = reason in _IMAGE_FINAL_REASONS or _is_final(words)
    brief = f"The image {image} cannot be pulled for pod {pod.name}"
    if reason == "InvalidImageName":
        brief = f"The image {image} is not a valid reference"
        hint = f"Correct {field}, for example registry.example.com/team/image:tag."
    elif reason == "ErrImageNeverPull":
        brief = f"The image {image} is not on node {pod.node} and spec.image.pullPolicy is Never"
        hint = "Load the image into the node, or set spec.image.pullPolicy to IfNotPresent."
    elif any(word in words for word in _CREDENTIAL_WORDS):
        hint = f"Check {field}, and give the registry's credentials in spec.image.pullSecrets."
    elif "not found" in words:
        hint = f"Correct {field}: the registry has no such image or tag."
    else:
        hint = f"Check {field} and that the node reaches the registry; the kubelet keeps trying."
    message = f"{brief}: {detail}." if detail else f"{brief}."
    return Cause(Reason.IMAGE_PULL_FAILED, message, hint, final=final, brief=f"{brief}.")


def _image_meant(pod: Pod, text: str) -> tuple[str, str]:
    """The image that a message is about and the field that names it: weights can come as an image too."""
    if pod.container == names.QUANTIZER_CONTAINER:
        return pod.image or "of the quantizer", "spec.model.source.huggingFace.quantize.image"
    quoted = re.search(r'image "([^"]+)"', text)
    if quoted and pod.image and pod.image not in text:
        return quoted[1], "spec.model.source.oci.reference"
    return pod.image or "of the engine", "spec.image.reference"


def _is_final(words: str) -> bool:
    return any(word in words.lower() for word in _IMAGE_FINAL_WORDS)


def _registry_words(text: str) -> str:
    """What the registry said, without the kubelet's and containerd's wrapping."""
    if text.startswith(_BACK_OFF_PREFIX):
        _, found, text = text.partition(": ")
        if not found:
            return ""
    for wrapping in ("ErrImagePull: ", "ImagePullBackOff: ", "rpc error: "):
        text = text.removeprefix(wrapping)
    if text.startswith("code = "):
        text = text.partition(" desc = ")[2] or text
    return " ".join(text.split()).rstrip(". ")[:600]


def _container(pod: Pod, reason: str, text: str) -> Cause:
    detail = " ".join(text.split()).rstrip(".")[:600] or reason
    brief = f"The container of pod {pod.name} cannot be created"
    hint = "Correct what the message names; the kubelet keeps trying."
    if "secret" in detail.lower() or "configmap" in detail.lower() or "couldn't find key" in detail.lower():
        hint = "Create the Secret in this namespace, or correct the reference in the spec; it is tried again."
    elif "runasnonroot" in detail.lower() or "run as root" in detail.lower():
        hint = "Set spec.security.runAsUser to a user of the image other than 0."
    elif "executable file not found" in detail.lower():
        hint = "spec.image.reference must be a vLLM image with python3 in its PATH."
    return Cause(
        Reason.CONTAINER_CANNOT_START,
        f"{brief}: {detail}.",
        hint,
        final="executable file not found" in detail.lower(),
        brief=f"{brief}.",
    )
