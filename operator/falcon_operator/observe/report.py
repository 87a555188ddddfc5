"""Reads the launcher's report. Whatever it holds, an odd value counts as not known, and nothing raises."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from falcon_engine.intent import COMPUTE_FORMATS
from falcon_operator.decide.report import PHASES, CacheFigures, Canary, Clamped, Computed, Gpu, Report, Retry

BODY_BYTES = 64 * 1024
SCHEMA = 1
_NAME_CHARACTERS = 128
_SENTENCE_CHARACTERS = 500
_MOST_GPUS = 16
_MOST_RETRIES = 64
# No count of a real engine is near it, and a status can hold it.
_MOST = 2**53
_CAPABILITY = re.compile(r"[0-9]{1,3}\.[0-9]{1,2}")
_CANARY = ("off", "pending", "passed", "failed")


def parse(body: bytes) -> Report | None:
    """The report in an answer of the launcher; None where it is none, or of another schema."""
    if len(body) > BODY_BYTES:
        return None
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA or raw.get("schema") is True:
        return None
    engine = _mapping(raw.get("engine"))
    phase = raw.get("phase")
    return Report(
        version=_name(engine.get("version")),
        kernel=_name(engine.get("nvfp4Kernel")),
        attention_backend=_name(engine.get("attentionBackend")),
        quantization=_name(engine.get("quantization")),
        max_num_seqs=_count(engine.get("maxNumSeqs")),
        gpus=tuple(gpu for gpu in map(_gpu, _list(raw.get("gpus"))[:_MOST_GPUS]) if gpu is not None),
        clamped=_clamped(_mapping(raw.get("clamped"))),
        computed=_computed(_mapping(raw.get("computeFormat"))),
        cache=_cache(_mapping(raw.get("capacity"))),
        phase=phase if phase in PHASES else None,
        phases=_phases(_mapping(raw.get("phases"))),
        canary=_canary(_mapping(raw.get("canary"))),
        retries=tuple(r for r in map(_retry, _list(raw.get("retries"))[-_MOST_RETRIES:]) if r is not None),
    )


def _gpu(raw: Any) -> Gpu | None:
    raw = _mapping(raw)
    name = _name(raw.get("name"))
    if name is None:
        return None
    capability = _name(raw.get("computeCapability"))
    if capability is not None and not _CAPABILITY.fullmatch(capability):
        capability = None
    return Gpu(name, _count(raw.get("memoryMiB")), capability, _name(raw.get("driver")))


def _clamped(raw: Mapping[str, Any]) -> Clamped | None:
    asked, given, why = _count(raw.get("asked")), _count(raw.get("given")), _sentence(raw.get("why"))
    return Clamped(asked, given, why or "") if asked is not None and given is not None else None


def _computed(raw: Mapping[str, Any]) -> Computed | None:
    form, why = _name(raw.get("format")), _sentence(raw.get("why"))
    return Computed(form, why or "", _number(raw.get("seconds"))) if form in COMPUTE_FORMATS else None


def _cache(raw: Mapping[str, Any]) -> CacheFigures | None:
    found = CacheFigures(
        blocks=_count(raw.get("blocks")),
        block_tokens=_count(raw.get("blockTokens")),
        tokens=_count(raw.get("tokens")),
        max_concurrency=_number(raw.get("maxConcurrency")),
    )
    return found if found != CacheFigures() else None


def _phases(raw: Mapping[str, Any]) -> dict[str, float]:
    found = {phase: _number(raw.get(phase)) for phase in PHASES}
    return {phase: seconds for phase, seconds in found.items() if seconds is not None}


def _canary(raw: Mapping[str, Any]) -> Canary | None:
    state = raw.get("state")
    return Canary(state, _sentence(raw.get("error"))) if isinstance(state, str) and state in _CANARY else None


def _retry(raw: Any) -> Retry | None:
    raw = _mapping(raw)
    reason, at = _name(raw.get("reason")), _number(raw.get("at"))
    return Retry(reason, _sentence(raw.get("message")) or "", at) if reason and at is not None else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _name(value: Any) -> str | None:
    if not isinstance(value, str) or not value.isprintable():
        return None
    value = value.strip()
    return value if 0 < len(value) <= _NAME_CHARACTERS else None


def _sentence(value: Any) -> str | None:
    """One line that fits a condition."""
    if not isinstance(value, str):
        return None
    words = "".join(c if c.isprintable() else " " for c in value[: 4 * _SENTENCE_CHARACTERS]).split()
    return " ".join(words)[:_SENTENCE_CHARACTERS] or None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST else None


def _number(value: Any) -> float | None:
    if type(value) not in (int, float) or not 0 <= value <= _MOST or not math.isfinite(value):
        return None
    return float(value)
