"""Objects that the API server did not take: why, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from falcon_operator.api.reasons import Reason

_TAKEN_WORDS = ("conflict", "already exists", "belongs to", "not controlled by")
# How the API server names who else manages fields of an object.
_MANAGERS = re.compile(r'conflicts? with ("[^"]+")')
# Without one of these nothing serves, or nobody reaches what serves.
_NEEDED = ("ConfigMap", "Deployment", "Service")


@dataclass(frozen=True)
class ChildRefused:
    """The most important refusal."""

    reason: Reason
    message: str
    needed: bool


def first(refused: Mapping[str, str]) -> ChildRefused | None:
    """The refusal to be reported: of what is needed first, then by name."""
    if not refused:
        return None
    key = min(refused, key=lambda k: (_rank(k), k))
    kind, _, name = key.partition("/")
    words = " ".join(refused[key].split()).rstrip(".")[:1000]
    needed = kind in _NEEDED
    if any(word in words.lower() for word in _TAKEN_WORDS):
        managers = ", ".join(sorted(set(_MANAGERS.findall(words))))
        whose = f", managed by {managers}," if managers else ""
        said = f"{kind} {name} is there already{whose} and does not belong to this resource; it is left as it is."
        return ChildRefused(Reason.NAME_TAKEN, f"{said} Delete it, or give this resource another name.", needed)
    if "exceeded quota" in words:
        hint = "Raise the namespace's ResourceQuota."
    elif "forbidden" in words.lower():
        hint = "Give the operator this right, or change the policy that forbids it."
    else:
        hint = "Correct the field of the spec that it comes from."
    return ChildRefused(Reason.REFUSED, f"The API server refused {kind} {name}: {words}. {hint}", needed)


def _rank(key: str) -> int:
    kind = key.partition("/")[0]
    return _NEEDED.index(kind) if kind in _NEEDED else len(_NEEDED)
