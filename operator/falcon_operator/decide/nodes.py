"""The cluster's nodes as the gate sees them, grouped by what it looks at: a thousand nodes are few kinds of node."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

from falcon_operator.desired.gpu_labels import DOMAIN, concerns_gate

Result = TypeVar("Result")
# Key, value and effect.
Taint = tuple[str, str, str]


@dataclass(frozen=True)
class NodeFacts:
    """One node: every label (users' selectors may name any), what it has of `nvidia.com/*`, and what keeps pods off."""

    name: str
    labels: Mapping[str, str]
    allocatable: Mapping[str, str]
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> NodeFacts:
        """The facts of a Node as the API server gives it; what is not as it must be is taken as absent."""
        metadata, spec, status = (_mapping(node.get(part)) for part in ("metadata", "spec", "status"))
        taints = spec.get("taints")
        return cls(
            name=str(metadata.get("name") or ""),
            labels={str(k): str(v) for k, v in _mapping(metadata.get("labels")).items()},
            allocatable={
                str(k): str(v) for k, v in _mapping(status.get("allocatable")).items() if str(k).startswith(DOMAIN)
            },
            unschedulable=spec.get("unschedulable") is True,
            taints=tuple(
                (str(t.get("key") or ""), str(t.get("value") or ""), str(t.get("effect") or ""))
                for t in (taints if isinstance(taints, list) else ())
                if isinstance(t, Mapping)
            ),
        )

    @functools.cached_property
    def has_gpus(self) -> bool:
        """Whether anything of the node speaks of NVIDIA's GPUs."""
        return any(k.startswith(DOMAIN) for k in self.labels) or any(k.startswith(DOMAIN) for k in self.allocatable)


class Names:
    """Names of nodes in their order, from several sorted lists, which are merged only as far as somebody looks."""

    __slots__ = ("_count", "_first", "_lists", "_merged")

    def __init__(self, *lists: tuple[str, ...]) -> None:
        self._lists = lists
        self._count = sum(map(len, lists))
        # As many as somebody has looked at.
        self._first: tuple[str, ...] = ()
        self._merged = 0

    def first(self, most: int) -> tuple[str, ...]:
        """The first of them."""
        if most > self._merged:
            lists = self._lists
            first = lists[0] if len(lists) == 1 else sorted(chain.from_iterable(names[:most] for names in lists))
            self._first, self._merged = tuple(first[:most]), most
        return self._first[:most]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return iter(self.first(self._count))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Names({tuple(self)})"


_Key = tuple[object, ...]
# As many different needs are looked at again and again; beyond it the memory is worth more.
_MOST_WORKED_OUT = 256


@dataclass(eq=False)
class Group:
    """Nodes that the gate cannot tell apart, by name; any of them stands for all."""

    nodes: dict[str, NodeFacts] = field(default_factory=dict)
    # What any of the nodes says of itself; what has been worked out of any, and of which nodes there are.
    _facts: dict[Hashable, Any] = field(default_factory=dict)
    _of_any: dict[Hashable, Any] = field(default_factory=dict)
    _of_all: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def example(self) -> NodeFacts:
        """One of the nodes."""
        return next(iter(self.nodes.values()))

    def fact(self, what: Hashable, read: Callable[[NodeFacts], Result]) -> Result:
        """As `once`, for what is the same whatever is needed: needs, which are many, do not drive it out."""
        found: Result | None = self._facts.get(what)
        return found if found is not None else _kept(self._facts, what, read(self.example))

    def once(self, what: Hashable, work_out: Callable[[NodeFacts], Result]) -> Result:
        """What `work_out` makes of any of the nodes; it looks at nothing in which they differ."""
        found: Result | None = self._of_any.get(what)
        return found if found is not None else _kept(self._of_any, what, work_out(self.example))

    def once_of_all(self, what: Hashable, work_out: Callable[[], Result]) -> Result:
        """What `work_out` makes of all the nodes: worked out again only once they are others."""
        found: Result | None = self._of_all.get(what)
        return found if found is not None else _kept(self._of_all, what, work_out())

    def put(self, node: NodeFacts) -> None:
        """Add or replace a node."""
        self.nodes[node.name] = node
        self._of_all.clear()

    def remove(self, name: str) -> None:
        """Forget a node."""
        del self.nodes[name]
        self._of_all.clear()

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes' names, sorted."""
        return self.once_of_all("names", lambda: tuple(sorted(self.nodes)))

    def alike_in(self, labels: tuple[str, ...]) -> dict[Hashable, tuple[NodeFacts, tuple[str, ...]]]:
        """The nodes by the values of further labels: one of each kind, and the sorted names of all of it."""
        return self.once_of_all(labels, lambda: _alike(self, labels))


def _alike(group: Group, labels: tuple[str, ...]) -> dict[Hashable, tuple[NodeFacts, tuple[str, ...]]]:
    kinds: dict[Hashable, list[str]] = {}
    for name in group.names:
        kinds.setdefault(tuple(map(group.nodes[name].labels.get, labels)), []).append(name)
    return {kind: (group.nodes[names[0]], tuple(names)) for kind, names in kinds.items()}


class NodeIndex:
    """All nodes, kept in groups."""

    def __init__(self, nodes: Iterable[NodeFacts] = ()) -> None:
        self._worked_out: dict[Hashable, Any] = {}
        self._groups: dict[_Key, Group] = {}
        self._keys: dict[str, _Key] = {}
        for node in nodes:
            self.put(node)

    def put(self, node: NodeFacts) -> bool:
        """Add or replace a node; says whether anything is different."""
        key = _key(node)
        if self._keys.get(node.name) == key:
            group = self._groups[key]
            if group.nodes[node.name].labels == node.labels:
                return False
            group.put(node)
        else:
            self._drop(node.name)
            self._keys[node.name] = key
            self._groups.setdefault(key, Group()).put(node)
        self._worked_out.clear()
        return True

    def remove(self, name: str) -> bool:
        """Forget a node; says whether it was there."""
        self._worked_out.clear()
        return self._drop(name)

    def get(self, name: str) -> NodeFacts | None:
        """One node."""
        key = self._keys.get(name)
        return None if key is None else self._groups[key].nodes[name]

    def once(self, what: Hashable, work_out: Callable[[], Result]) -> Result:
        """What `work_out` makes of all nodes: worked out again only once they are others."""
        found: Result | None = self._worked_out.get(what)
        return found if found is not None else _kept(self._worked_out, what, work_out())

    def groups(self) -> Iterator[Group]:
        """The groups, in no particular order."""
        return iter(self._groups.values())

    def __len__(self) -> int:
        return len(self._keys)

    def _drop(self, name: str) -> bool:
        key = self._keys.pop(name, None)
        if key is None:
            return False
        group = self._groups[key]
        group.remove(name)
        if not group.nodes:
            del self._groups[key]
        return True


def _key(node: NodeFacts) -> _Key:
    return (
        frozenset(item for item in node.labels.items() if concerns_gate(item[0])),
        frozenset(node.allocatable.items()),
        node.unschedulable,
        node.taints,
        node.has_gpus,
    )


def _kept(worked_out: dict[Hashable, Any], what: Hashable, result: Result) -> Result:
    if len(worked_out) >= _MOST_WORKED_OUT:
        del worked_out[next(iter(worked_out))]  # the oldest; to clear all at once would be felt
    worked_out[what] = result
    return result


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
