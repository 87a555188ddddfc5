"""The cluster's nodes as the gate sees them, grouped by what it looks at: a thousand nodes are few kinds of node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from falcon_operator.desired.gpu_labels import DOMAIN, concerns_gate

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

    @property
    def has_gpus(self) -> bool:
        """Whether anything of the node speaks of NVIDIA's GPUs."""
        return any(k.startswith(DOMAIN) for k in self.labels) or any(k.startswith(DOMAIN) for k in self.allocatable)


@dataclass
class Group:
    """Nodes that the gate cannot tell apart, by name; any of them stands for all."""

    nodes: dict[str, NodeFacts] = field(default_factory=dict)

    @property
    def example(self) -> NodeFacts:
        """One of the nodes."""
        return next(iter(self.nodes.values()))


_Key = tuple[object, ...]


class NodeIndex:
    """All nodes, kept in groups. `version` changes whenever a judgement may."""

    def __init__(self, nodes: Iterable[NodeFacts] = ()) -> None:
        self.version = 0
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
            group.nodes[node.name] = node
        else:
            self._drop(node.name)
            self._keys[node.name] = key
            self._groups.setdefault(key, Group()).nodes[node.name] = node
        self.version += 1
        return True

    def remove(self, name: str) -> bool:
        """Forget a node; says whether it was there."""
        there = self._drop(name)
        self.version += there
        return there

    def get(self, name: str) -> NodeFacts | None:
        """One node."""
        key = self._keys.get(name)
        return None if key is None else self._groups[key].nodes[name]

    def groups(self) -> Iterator[Group]:
        """The groups, in no particular order."""
        return iter(self._groups.values())

    def __len__(self) -> int:
        return len(self._keys)

    def _drop(self, name: str) -> bool:
        key = self._keys.pop(name, None)
        if key is None:
            return False
        nodes = self._groups[key].nodes
        del nodes[name]
        if not nodes:
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


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
