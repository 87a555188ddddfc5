"""Compute capabilities as numbers: 10.0 is more than 9.0, which as text it is not."""

import functools
import operator
import re

_COMPARE = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "": operator.eq}
_WORDS = {">=": "{} and higher", ">": "above {}", "<=": "up to {}", "<": "below {}", "": "{}"}
_BOUND = re.compile(r"(>=|>|<=|<|)(\d{1,3}\.\d{1,2})")


@functools.lru_cache(maxsize=256)
def number(capability: str) -> tuple[int, int]:
    """Major and minor of a capability such as `9.0`. Raises `ValueError` for anything else."""
    if not re.fullmatch(r"\d{1,3}\.\d{1,2}", capability):
        raise ValueError(f"{capability!r} is not a compute capability such as 9.0")
    major, minor = capability.split(".")
    return int(major), int(minor)


def within(capability: str, bounds: str) -> bool:
    """Whether a capability is `9.0`, or within bounds such as `>=7.5,<9.0`. Raises `ValueError` for what is neither."""
    have = number(capability)
    return all(_COMPARE[sign](have, number(bound)) for sign, bound in _parts(bounds))


def words(bounds: str) -> str:
    """The bounds for people: `7.5 and higher and below 9.0`."""
    return " and ".join(_WORDS[sign].format(bound) for sign, bound in _parts(bounds))


@functools.lru_cache(maxsize=256)
def _parts(bounds: str) -> tuple[tuple[str, str], ...]:
    parts = [_BOUND.fullmatch(part.strip()) for part in bounds.split(",")]
    if not all(parts):
        raise ValueError(f"{bounds!r} is not a compute capability such as 9.0, nor bounds such as >=7.5,<9.0")
    return tuple((m[1], m[2]) for m in parts if m)
