"""All policies by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from benchmarks.autoscale.falcon import Falcon
from benchmarks.autoscale.oracle import Planned, static
from benchmarks.autoscale.peers import PEERS
from benchmarks.autoscale.policy import Policy

# Of the cold start in seconds, the sequences that an engine takes, and the least and most replicas.
Factory = Callable[[float, int, int, int], Policy]

RULES: Mapping[str, Factory] = {"falcon": Falcon, **PEERS}
ORACLE = "oracle"
_STATIC = re.compile(r"static-([1-9][0-9]{0,3})")


def static_size(name: str) -> int | None:
    """N of `static-N`; None for other names."""
    found = _STATIC.fullmatch(name)
    return int(found[1]) if found else None


def rule(name: str, cold_start: float, per_engine: int, least: int, most: int) -> Policy:
    """A fresh policy of that name, which is known and not the oracle's."""
    size = static_size(name)
    if size is not None:
        return Planned(name, static(size))
    return RULES[name](cold_start, per_engine, least, most)


def names(chosen: str) -> list[str] | None:
    """The policies that `--policy` names, in their order; None for all. Raises ValueError with a sentence."""
    if chosen == "all":
        return None
    found = list(dict.fromkeys(name.strip() for name in chosen.split(",") if name.strip()))
    for name in found:
        if name != ORACLE and name not in RULES and static_size(name) is None:
            known = ", ".join((*RULES, "static-N", ORACLE))
            raise ValueError(f"--policy {name!r} is not known; there are all, {known}.")
    if not found:
        raise ValueError(f"--policy {chosen!r} names no policy; all is one that does.")
    return found
