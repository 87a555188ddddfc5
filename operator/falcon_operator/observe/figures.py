"""Reads few named figures out of Prometheus' text format. What is not plainly a count is not known, and never zero."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from falcon_operator.observe.exposition import pairs
from falcon_operator.observe.http import Unreadable

# Engines of one process, models and reasons: no real metric that is read here has more series.
MOST_SERIES = 256
# No count of a real engine is near it, and a float holds every number up to it.
MOST = 2**53
LINE_BYTES = 16 * 1024
_TIME = re.compile(rb"-?[0-9]{1,20}")
_NO_LABELS: frozenset[tuple[str, str]] = frozenset()
# What most samples of a gateway are, read at once: there are a thousand a second.
_PLAIN = re.compile(rb" ([0-9]{1,15}(?:\.[0-9]{1,15})?)")
_NUMBER = re.compile(rb"[+-]?[0-9]{1,400}(?:\.[0-9]{0,400})?(?:[eE][+-]?[0-9]{1,4})?")


def totals(body: bytes, wanted: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Each wanted figure, summed over all its series.

    Under each key are the metric's names, the one to use first; names are exact. Raises `Unreadable`, whose words are
    the same for the same problem and name the metric.
    """
    if not body.endswith(b"\n"):
        raise Unreadable("ends within a line")
    text = b"\n" + body
    return {key: _total(text, names) for key, names in wanted.items()}


def _total(text: bytes, names: Sequence[str]) -> float:
    for name in names:
        found = _series(text, name)
        if found:
            total = sum(found.values())
            if total > MOST:
                raise _odd(name, "a number that no count can be")
            return total
    raise Unreadable(f"does not say {names[0]}" if names else "has no metric for this")


def _series(text: bytes, name: str) -> dict[frozenset[tuple[str, str]], float]:
    found: dict[frozenset[tuple[str, str]], float] = {}
    start = b"\n" + name.encode()
    position = text.find(start)
    while position >= 0:
        begin = position + len(start)
        end = text.find(b"\n", begin)
        # Else it is a longer name.
        if text[begin] in b"{ \t":
            labels, value = _sample(text[begin:end], name)
            if found.setdefault(labels, value) != value:
                raise _odd(name, "two numbers at once")
            if len(found) > MOST_SERIES:
                raise _odd(name, f"more than {MOST_SERIES} series")
        position = text.find(start, end)
    return found


def _sample(rest: bytes, name: str) -> tuple[frozenset[tuple[str, str]], float]:
    """What stands behind the name on one line."""
    plain = _PLAIN.fullmatch(rest)
    if plain is not None:
        return _NO_LABELS, float(plain[1])
    closing = rest.rfind(b"}")
    inside, words = rest[1:closing] if closing > 0 else b"", rest[closing + 1 :].split()
    timed = len(words) == 2 and _TIME.fullmatch(words[1])
    if len(rest) > LINE_BYTES or rest.startswith(b"{") != (closing > 0) or not (timed or len(words) == 1):
        raise _odd(name, "a line that cannot be read")
    labels = pairs(inside.decode(errors="replace"))
    if labels is None:
        raise _odd(name, "labels that cannot be read")
    return frozenset(labels.items()), _value(words[0], name)


def _value(text: bytes, name: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise _odd(name, "something that is no number")
    value = float(text)
    if value < 0:
        raise _odd(name, "a negative number")
    if value > MOST:
        raise _odd(name, "a number that no count can be")
    return value


def _odd(name: str, what: str) -> Unreadable:
    return Unreadable(f"says {what} for {name}")
