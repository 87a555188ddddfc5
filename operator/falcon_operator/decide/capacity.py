"""`status.capacity`: what one engine holds on each GPU product, as predicted and as measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# As many as the schema takes.
MOST_PRODUCTS = 16
# What stands for the product of a node where engines run on the CPU.
CPU_PRODUCT = "cpu"
_KEYS = {"blocks": "blocks", "block_tokens": "blockTokens", "tokens": "tokens", "sequences": "sequences"}


@dataclass(frozen=True)
class Figures:
    """What one engine holds; None where that is not known.

    `blocks` of KV cache, `block_tokens` in each, `tokens` in all of them, `sequences` of full length at a time.
    """

    blocks: int | None = None
    block_tokens: int | None = None
    tokens: int | None = None
    sequences: int | None = None

    @classmethod
    def of(cls, blocks: int | None, block_tokens: int | None, tokens: int | None, concurrency: float | None) -> Figures:
        """From vLLM's own figures; its "maximum concurrency" is a fraction, of which whole sequences count."""
        whole = math.floor(concurrency) if concurrency is not None and math.isfinite(concurrency) else None
        return cls(blocks, block_tokens, tokens, whole)

    @classmethod
    def from_status(cls, written: Any) -> Figures:
        """What was written down earlier."""
        found = written if isinstance(written, Mapping) else {}
        return cls(**{name: found.get(key) for name, key in _KEYS.items()})

    def manifest(self) -> dict[str, int]:
        """As `status.capacity[].predicted` or `measured`."""
        values = {key: getattr(self, name) for name, key in _KEYS.items()}
        return {key: value for key, value in values.items() if value is not None}


def capacity(predicted: Mapping[str, Figures], measured: Mapping[str, Figures]) -> list[dict[str, Any]]:
    """`status.capacity`, by product; a product that is only measured, or only predicted, is there as well."""
    # Where there are too many, those that have been measured are worth most.
    products = sorted({*predicted, *measured}, key=lambda product: (product not in measured, product))
    found = []
    for product in sorted(products[:MOST_PRODUCTS]):
        entry: dict[str, Any] = {"product": product}
        for key, figures in (("predicted", predicted), ("measured", measured)):
            if product in figures and (values := figures[product].manifest()):
                entry[key] = values
        found.append(entry)
    return found


def measured_before(live_status: Mapping[str, Any]) -> dict[str, Figures]:
    """The measured figures of an earlier status, by product."""
    entries = live_status.get("capacity") or []
    return {e["product"]: Figures.from_status(e["measured"]) for e in entries if e.get("measured")}


def prediction_errors(live_status: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """(predicted - measured) / measured, by product and figure, where both are known."""
    found = {}
    for entry in live_status.get("capacity") or []:
        predicted, measured = entry.get("predicted") or {}, entry.get("measured") or {}
        for key in _KEYS.values():
            if key in predicted and measured.get(key):
                found[entry["product"], key] = (predicted[key] - measured[key]) / measured[key]
    return found
