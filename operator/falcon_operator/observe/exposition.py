"""Reads the one metric that says how large an engine's KV cache is, out of Prometheus' text format."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from falcon_operator.decide.report import CacheFigures

BODY_BYTES = 4 * 1024 * 1024
# Where no version's profile says another name.
CACHE_CONFIG = "vllm:cache_config_info"
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_LABELS_CHARACTERS = 16 * 1024
# No count of a real engine is near it, and a status can hold it.
_MOST = 2**53


def cache_figures(body: bytes, names: Sequence[str] = (CACHE_CONFIG,)) -> CacheFigures | None:
    """The KV cache as an engine's `/metrics` states it; None where it is not stated.

    `names` are the metric's names in the engine's version. Of several engines in one process the first counts: they
    are alike. `mamba_block_size` is not looked at: it is wrong where each block holds a state of its own.
    """
    if len(body) > BODY_BYTES:
        return None
    labels = _labels(body, names)
    if labels is None:
        return None
    found = CacheFigures(
        blocks=_count(labels.get("num_gpu_blocks")),
        block_tokens=_count(labels.get("effective_attention_block_size")) or _count(labels.get("block_size")),
        tokens=_count(labels.get("kv_cache_size_tokens")),
        max_concurrency=_number(labels.get("kv_cache_max_concurrency")),
    )
    return found if found != CacheFigures() else None


def _labels(body: bytes, names: Sequence[str]) -> Mapping[str, str] | None:
    """The labels of the first sample of exactly that name that can be read."""
    if not names:
        return None
    either = "|".join(map(re.escape, names))
    for sample in re.finditer(rf"^(?:{either})\{{([^\n]{{0,{_LABELS_CHARACTERS}}})\}} ".encode(), body, re.MULTILINE):
        found = pairs(sample[1].decode(errors="replace"))
        if found is not None:
            return found
    return None


def pairs(inside: str) -> Mapping[str, str] | None:
    """The labels of one sample; None where they cannot be read."""
    found: dict[str, str] = {}
    position = 0
    while position < len(inside):
        match = _LABEL.match(inside, position)
        if match is None:
            return None
        found[match[1]] = match[2]
        position = match.end()
    return found


def _count(text: str | None) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 16:
        return None
    value = int(text)
    return value if 0 < value <= _MOST else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= _MOST else None
