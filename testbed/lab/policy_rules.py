"""NetworkPolicies (networking.k8s.io/v1) as one nftables table for the pods of a node. Pure: objects in, text out.

Pods are routed veths, so every packet between pods passes the forward hook, after kube-proxy has put a pod's address in
place of a Service's. What the node itself sends passes another hook and is not filtered: the kubelet's probes arrive.
What a pod sends to the node is filtered, stricter than the API asks: the API server stands for one elsewhere, which a
policy has to allow. IPv4 only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TABLE = "falcon_policies"
_ANYBODY = ""  # a match that matches everything
_REPLIES = "ct state established,related accept"


@dataclass(frozen=True)
class World:
    """Objects as the API gives them: pods, policies, and the labels of each namespace."""

    pods: Sequence[Mapping[str, Any]]
    policies: Sequence[Mapping[str, Any]]
    namespaces: Mapping[str, Mapping[str, str]]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Say whether a label selector selects these labels; an empty one selects everything."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for wanted in selector.get("matchExpressions") or []:
        key, values, operator = wanted["key"], wanted.get("values") or [], wanted["operator"]
        holds = {
            "In": key in labels and labels[key] in values,
            "NotIn": key not in labels or labels[key] not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[operator]
        if not holds:
            return False
    return True


def _labels(thing: Mapping[str, Any]) -> Mapping[str, str]:
    return thing["metadata"].get("labels") or {}


def _namespace(thing: Mapping[str, Any]) -> str:
    return str(thing["metadata"]["namespace"])


def address(pod: Mapping[str, Any]) -> str:
    """Return the pod's own IPv4 address, or nothing where it has none (yet, any more, or the node's)."""
    status = pod.get("status", {})
    ip = str(status.get("podIP") or "")
    if pod["spec"].get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed") or ":" in ip:
        return ""
    return ip


def _set(items: Iterable[str]) -> str:
    return "{ " + ", ".join(sorted(set(items))) + " }"


def _peers(world: World, namespace: str, peers: Sequence[Mapping[str, Any]], field: str) -> list[str]:
    """Return matches for a rule's `from` or `to`; `field` is the address that they look at."""
    if not peers:
        return [_ANYBODY]
    matches, addresses = [], []
    for peer in peers:
        block = peer.get("ipBlock")
        if block:
            if ":" not in block["cidr"]:
                excluded = block.get("except") or []
                but = f" ip {field} != {_set(excluded)}" if excluded else ""
                matches.append(f"ip {field} {block['cidr']}{but}")
            continue
        for pod in world.pods:
            own, among = _namespace(pod) == namespace, peer.get("namespaceSelector")
            if not (own if among is None else selects(among, world.namespaces.get(_namespace(pod), {}))):
                continue
            if address(pod) and selects(peer.get("podSelector") or {}, _labels(pod)):
                addresses.append(address(pod))
    return [*matches, *([f"ip {field} {_set(addresses)}"] if addresses else [])]


def _named(pod: Mapping[str, Any], name: str, protocol: str) -> list[int]:
    """Return the pod's ports of this name."""
    sidecars = [c for c in pod["spec"].get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    return [
        port["containerPort"]
        for container in (*pod["spec"]["containers"], *sidecars)
        for port in container.get("ports") or []
        if port.get("name") == name and port.get("protocol", "TCP").lower() == protocol
    ]


def _ports(ports: Sequence[Mapping[str, Any]], receivers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return matches for a rule's ports; a port's name is that of the pods that receive."""
    if not ports:
        return [_ANYBODY]
    matches = []
    for wanted in ports:
        protocol, port = str(wanted.get("protocol") or "TCP").lower(), wanted.get("port")
        if port is None:
            matches.append(f"meta l4proto {protocol}")
        elif isinstance(port, int):
            last = f"-{wanted['endPort']}" if wanted.get("endPort") else ""
            matches.append(f"{protocol} dport {port}{last}")
        else:
            matches += [
                f"ip daddr {address(pod)} {protocol} dport {number}"
                for pod in receivers
                if address(pod)
                for number in _named(pod, port, protocol)
            ]
    return matches


def _allowed(world: World, pod: Mapping[str, Any], kind: str) -> list[str] | None:
    """Return the matches of what may pass, or None where no policy of this kind is about the pod."""
    about = [
        policy
        for policy in world.policies
        if _namespace(policy) == _namespace(pod)
        and kind in policy["spec"].get("policyTypes", [])
        and selects(policy["spec"].get("podSelector") or {}, _labels(pod))
    ]
    if not about:
        return None
    rules, side, field = ("ingress", "from", "saddr") if kind == "Ingress" else ("egress", "to", "daddr")
    receivers = [pod] if kind == "Ingress" else world.pods
    return [
        f"{peer} {port}".strip()
        for policy in about
        for rule in policy["spec"].get(rules) or []
        for peer in _peers(world, _namespace(policy), rule.get(side) or [], field)
        for port in _ports(rule.get("ports") or [], receivers)
    ]


def _chain(name: str, allowed: Sequence[str]) -> str:
    lines = [*(f"{match} return".strip() for match in allowed), "meta l4proto tcp reject with tcp reset", "reject"]
    return f" chain {name} {{\n" + "".join(f"  {line}\n" for line in lines) + " }\n"


def ruleset(world: World, node: str) -> str:
    """Return nft's input that replaces the table: a chain for each pod of the node that a policy is about.

    Refused connections are reset, so that a test learns of it at once. Established ones stay open.
    """
    chains: list[str] = []
    jumps: dict[str, list[str]] = {"Ingress": [], "Egress": []}
    for pod in sorted(world.pods, key=address):
        if not address(pod) or pod["spec"].get("nodeName") != node:
            continue
        for kind, jump in jumps.items():
            allowed = _allowed(world, pod, kind)
            if allowed is not None:
                name = f"{kind.lower()}_{address(pod).replace('.', '_')}"
                chains.append(_chain(name, allowed))
                jump.append(f"{address(pod)} : jump {name}")

    def hook(name: str, *lines: str) -> str:
        begin = f"  type filter hook {name} priority filter; policy accept;\n  {_REPLIES}\n"
        return f" chain {name} {{\n{begin}{''.join(lines)} }}\n"

    sent = f"  ip saddr vmap {_set(jumps['Egress'])}\n" if jumps["Egress"] else ""
    received = f"  ip daddr vmap {_set(jumps['Ingress'])}\n" if jumps["Ingress"] else ""
    hooks = hook("forward", sent, received) + hook("input", sent)
    return f"{no_rules()}table ip {TABLE} {{\n{''.join(chains)}{hooks}}}\n"


def no_rules() -> str:
    """Return nft's input that removes the table, whether or not it is there."""
    return f"table ip {TABLE}\ndelete table ip {TABLE}\n"
