"""Which nodes may hold an engine: what the user says, and what the GPU must be, both of them.

A node without a label is not known to be wrong and stays allowed, except where the user asks for what the label says.
The scheduler's terms are alternatives and its `Gt` refuses a node without the label, so each label that counts adds
the alternative that it is absent; `NotIn` lets such nodes through by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from falcon_engine.profiles import Profile
from falcon_operator.api.gpu import FP4
from falcon_operator.api.spec import Spec
from falcon_operator.desired import gpu_labels
from falcon_operator.desired.gpu_needs import MOST_SHARERS, NATIVE_FP4, Needs, needs

Requirement = dict[str, Any]

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
# As much as a preference can count.
_WEIGHT = 100


@dataclass(frozen=True)
class Requirements:
    """Alternatives, each a list of conditions on labels that must all hold (none: any node), and preferred terms."""

    alternatives: tuple[tuple[Requirement, ...], ...] = ()
    preferred: tuple[dict[str, Any], ...] = ()


def requirements(spec: Spec, profile: Profile | None) -> Requirements:
    """What a node's labels must say; the same spec and profile always give the same.

    `profile` is None where the engine's version is not known.
    """
    wanted = needs(spec, profile)
    if wanted is None:
        return Requirements()
    parts = (_products(wanted), _sharing(wanted), _capability(wanted), _driver(wanted), _memory(wanted))
    return Requirements(
        alternatives=tuple(tuple(itertools.chain(*chosen)) for chosen in itertools.product(*parts)),
        preferred=(
            ({"weight": _WEIGHT, "preference": {"matchExpressions": [_more_than_before_native_fp4()]}},)
            if wanted.native_fp4 is FP4.PREFER
            else ()
        ),
    )


def merged(user: Mapping[str, Any] | None, wanted: Requirements) -> dict[str, Any] | None:
    """The user's affinity with the requirements in it; None where neither asks for anything.

    Node selector terms are alternatives, so each of the user's is combined with each of ours. A required selector
    without a filled term is taken as not given: the API server refuses an empty list, and an empty term matches no
    node at all.
    """
    affinity = {key: value for key, value in (user or {}).items() if value}
    node = dict(affinity.pop("nodeAffinity", None) or {})
    terms = [term for term in (node.pop(_REQUIRED, None) or {}).get("nodeSelectorTerms") or [] if term]
    if any(wanted.alternatives):
        terms = [
            {**term, "matchExpressions": [*(term.get("matchExpressions") or []), *map(dict, alternative)]}
            for term in terms or [{}]
            for alternative in wanted.alternatives
        ]
    if terms:
        node[_REQUIRED] = {"nodeSelectorTerms": terms}
    if wanted.preferred:
        node[_PREFERRED] = [*(node.get(_PREFERRED) or []), *map(dict, wanted.preferred)]
    if node:
        affinity["nodeAffinity"] = node
    return affinity or None


# Each part is alternatives of one fact, of which one must hold.
_Part = Sequence[Sequence[Requirement]]


def _products(wanted: Needs) -> _Part:
    return [[_in(gpu_labels.PRODUCT, wanted.products)]] if wanted.products else [[]]


def _sharing(wanted: Needs) -> _Part:
    if wanted.most_sharers is None:
        return [[]]
    replicas = gpu_labels.of(wanted.labels_of, "replicas")
    if wanted.most_sharers > 1:
        few = {"key": replicas, "operator": "Lt", "values": [str(wanted.most_sharers + 1)]}
        return [[few], [_absent(replicas)]]
    # Feature discovery has named the strategy since 0.15; before that the number alone told.
    strategy = {"key": gpu_labels.of(wanted.labels_of, "sharing-strategy"), "operator": "NotIn"}
    return [[_not_in(replicas, range(2, MOST_SHARERS + 1)), {**strategy, "values": list(gpu_labels.SHARED)}]]


def _capability(wanted: Needs) -> _Part:
    major, minor = wanted.least_capability
    if (major, minor) <= (1, 0):
        return [[]]
    below = _not_in(gpu_labels.CAPABILITY_MAJOR, range(1, major))
    if not minor:
        return [[below]]
    return [
        [_not_in(gpu_labels.CAPABILITY_MAJOR, range(1, major + 1))],
        [below, _not_in(gpu_labels.CAPABILITY_MINOR, range(minor))],
    ]


def _driver(wanted: Needs) -> _Part:
    if wanted.driver < 1:
        return [[]]
    new, old = gpu_labels.DRIVER, gpu_labels.DRIVER_OLD
    return [
        [_at_least(new, wanted.driver)],
        [_absent(new), _at_least(old, wanted.driver)],
        [_absent(new), _absent(old)],
    ]


def _memory(wanted: Needs) -> _Part:
    label = gpu_labels.of(wanted.labels_of, "memory")
    least = max(wanted.memory_mib, wanted.memory_asked_mib or 0)
    enough = [_at_least(label, least)]
    if wanted.memory_asked_mib is not None or (wanted.profile_mib is not None and wanted.profile_mib < least):
        return [enough]
    return [enough, [_absent(label)]] if least > 0 else [[]]


def _more_than_before_native_fp4() -> Requirement:
    return _at_least(gpu_labels.CAPABILITY_MAJOR, NATIVE_FP4[0])


def _at_least(key: str, number: int) -> Requirement:
    # `Gt` is the only comparison there is, so "at least" is "greater than one less".
    return {"key": key, "operator": "Gt", "values": [str(max(number - 1, 0))]}


def _in(key: str, values: Sequence[str]) -> Requirement:
    return {"key": key, "operator": "In", "values": list(values)}


def _not_in(key: str, numbers: Sequence[int]) -> Requirement:
    return {"key": key, "operator": "NotIn", "values": [str(number) for number in numbers]}


def _absent(key: str) -> Requirement:
    return {"key": key, "operator": "DoesNotExist"}
