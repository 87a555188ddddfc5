"""Why an engine's container ended: the launcher's diagnosis, or what exit code and kernel say without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from falcon_engine.signatures import CONFIGURATION_EXIT, TRANSIENT_REASONS, Diagnosis, DiagnosisError
from falcon_operator.api.reasons import Reason
from falcon_operator.decide.pods import Pod, parse_time

# Reasons that the same spec on the same node meets again, whatever exit code the launcher gave them.
_FINAL = frozenset(
    (
        Reason.ARCHITECTURE_UNKNOWN,
        Reason.CHECKPOINT_NOT_FOUND,
        Reason.CHECKPOINT_UNUSABLE,
        Reason.CONFIGURATION_REFUSED,
        Reason.CONTEXT_EXCEEDS_MEMORY,
        Reason.DRIVER_TOO_OLD,
        Reason.FLAG_UNKNOWN,
        Reason.FLAG_VALUE_REFUSED,
        Reason.GPU_NOT_SUPPORTED,
        Reason.HUB_FORBIDDEN,
        Reason.HUB_UNAUTHORIZED,
        Reason.IMAGE_UNUSABLE,
        Reason.QUANTIZATION_REFUSED,
        Reason.REMOTE_CODE_REFUSED,
        Reason.SEQUENCES_EXCEED_MEMORY,
        Reason.TOKENIZER_UNUSABLE,
        Reason.WEIGHTS_EXCEED_MEMORY,
        Reason.WEIGHTS_MISMATCH,
    )
)
# What a status and an event have room for.
_MESSAGE_CHARACTERS = 3000
_HINT_CHARACTERS = 1000
_VERSION_CHARACTERS = 64
_SIGNALS = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
# The kubelet checks every few seconds and rounds to whole ones.
_BUDGET_SLACK_SECONDS = 10


@dataclass(frozen=True)
class Cause:
    """A reason, a sentence, a way out; `final` where no waiting cures it, `transient` where it passes by itself."""

    reason: Reason
    message: str
    hint: str
    exit_code: int | None = None
    final: bool = False
    transient: bool = False
    brief: str = ""  # the message without the detail that comes and goes


def cause(pod: Pod, ended: Mapping[str, Any], startup_budget: int | None) -> Cause:
    """What a terminated state of the engine's container tells."""
    exit_code = ended.get("exitCode")
    code = exit_code if isinstance(exit_code, int) else -1
    text = str(ended.get("message") or "")
    if over_budget := _over_budget(pod, ended, text, startup_budget):
        return over_budget
    try:
        diagnosis = Diagnosis.from_json(text)
    except DiagnosisError:
        return _undiagnosed(pod, ended, code, text)
    reason = _reason(diagnosis.reason)
    if ended.get("reason") == "OOMKilled" and reason in (Reason.ENGINE_DIED, Reason.ENGINE_KILLED):
        return _undiagnosed(pod, ended, code, text)
    return Cause(
        reason=reason,
        message=_sentence(diagnosis.message, _MESSAGE_CHARACTERS)
        or f"The engine of pod {pod.name} ended with exit code {code}.",
        hint=_sentence(diagnosis.hint, _HINT_CHARACTERS),
        exit_code=code,
        final=code == CONFIGURATION_EXIT or reason in _FINAL,
        transient=reason.value in TRANSIENT_REASONS,
    )


def diagnosed_version(pod: Pod) -> str | None:
    """The engine's version as the launcher of an ended engine wrote it down."""
    ended = pod.state("terminated") or pod.state("terminated", last=True) or {}
    try:
        version = Diagnosis.from_json(str(ended.get("message") or "")).engine_version
    except DiagnosisError:
        return None
    return _plain(version)[:_VERSION_CHARACTERS] or None if version else None


def _reason(word: str) -> Reason:
    try:
        return Reason(word)
    except ValueError:
        return Reason.ENGINE_FAILED


def _over_budget(pod: Pod, ended: Mapping[str, Any], text: str, budget: int | None) -> Cause | None:
    """The kubelet stopped an engine that was still starting when the startup probe's budget ran out."""
    ran = _seconds(ended)
    interrupted = f'"{Reason.START_INTERRUPTED.value}"' in text
    if budget is None or ran is None or ended.get("reason") == "OOMKilled":
        return None
    if not interrupted or ran < budget - _BUDGET_SLACK_SECONDS:
        return None
    code = ended.get("exitCode")
    return Cause(
        reason=Reason.STARTUP_BUDGET_EXCEEDED,
        message=f"The engine of pod {pod.name} was stopped after {budget} s: it had not become healthy within "
        "spec.startup.budget.",
        hint="Raise spec.startup.budget, or give spec.cache a claim so that the next start finds its compiled kernels.",
        exit_code=code if isinstance(code, int) else None,
    )


def _seconds(ended: Mapping[str, Any]) -> float | None:
    begin, end = parse_time(ended.get("startedAt")), parse_time(ended.get("finishedAt"))
    return (end - begin).total_seconds() if begin and end else None


def _undiagnosed(pod: Pod, ended: Mapping[str, Any], code: int, text: str) -> Cause:
    if ended.get("reason") == "OOMKilled":
        limit = _memory_limit(pod)
        return Cause(
            reason=Reason.OUT_OF_MEMORY,
            message=f"The kernel killed the engine of pod {pod.name}: it needed more memory than "
            + (f"its limit of {limit}." if limit else "the node had."),
            hint="Raise spec.resources.limits.memory (host memory, not the GPU's).",
            exit_code=code,
        )
    if "executable file not found" in text or (ended.get("reason") == "StartError" and "no such file" in text):
        return Cause(
            reason=Reason.CONTAINER_CANNOT_START,
            message=f"The container of pod {pod.name} cannot start: {_last_line(text)}.",
            hint="spec.image.reference must be a vLLM image with python3 in its PATH.",
            exit_code=code,
            final=True,
        )
    if code > 128 and code - 128 in _SIGNALS:
        return Cause(
            reason=Reason.ENGINE_DIED,
            message=f"The engine of pod {pod.name} was ended by {_SIGNALS[code - 128]} (exit code {code})"
            + _said(text),
            hint="The kubelet starts it again; `kubectl logs --previous` shows its last lines.",
            exit_code=code,
        )
    if code == 0:
        return Cause(
            reason=Reason.ENGINE_DIED,
            message=f"The engine of pod {pod.name} was stopped by the kubelet, most likely because its liveness or "
            "startup probe failed.",
            hint="`kubectl describe pod` shows the probe; the kubelet starts the engine again.",
            exit_code=code,
        )
    return Cause(
        reason=Reason.ENGINE_FAILED,
        message=f"The engine of pod {pod.name} ended with exit code {code} and without a diagnosis" + _said(text),
        hint="`kubectl logs --previous` shows its last lines.",
        exit_code=code,
        final=code == CONFIGURATION_EXIT,
    )


def _memory_limit(pod: Pod) -> str | None:
    for container in (pod.raw.get("spec") or {}).get("containers") or []:
        limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
        if limit:
            return str(limit)
    return None


def _last_line(text: str) -> str:
    lines = [line for line in map(_plain, text.splitlines()) if line]
    return lines[-1].rstrip(".")[:400] if lines else ""


def last_sentence(text: str) -> str:
    """The last line that a container has said, as a sentence; empty where it said nothing."""
    lines = [line for line in map(_plain, text.splitlines()) if line]
    return _sentence(lines[-1], _HINT_CHARACTERS) if lines else ""


def _said(text: str) -> str:
    line = _last_line(text)
    return f'; its last line was "{line}".' if line else "."


def _sentence(text: str, most: int) -> str:
    text = _plain(text)
    if len(text) > most:
        text = text[: most - 1] + "…"
    return text if not text or text[-1] in ".!?…" else text + "."


def _plain(text: str) -> str:
    """One line that every client can take: a termination message may hold any bytes."""
    printable = "".join(c if c.isprintable() else " " for c in text.encode("utf-8", "replace").decode("utf-8"))
    return " ".join(printable.split())
