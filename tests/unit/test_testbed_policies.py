"""NetworkPolicies as nftables rules: whom a selector selects, and what may pass to and from a pod."""

from typing import Any

import pytest
from testbed.lab.policy_rules import World, address, ruleset, selects

NODE = "falcon-node"


def pod(name: str, ip: str, namespace: str = "a", **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "containerPort": 8080}]
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"nodeName": NODE, "containers": [{"name": "c", "ports": ports}]} | spec,
        "status": {"phase": "Running", "podIP": ip},
    }


def chains(policy: dict[str, Any], *pods: dict[str, Any]) -> dict[str, list[str]]:
    """Return the lines of each chain that a policy of namespace `a` makes."""
    policies = [{"metadata": {"name": "p", "namespace": "a"}, "spec": policy}]
    namespaces = {"a": {"team": "a"}, "b": {"team": "b"}}
    found: dict[str, list[str]] = {}
    for part in ruleset(World(pods, policies, namespaces), NODE).split(" chain ")[1:]:
        name, _, lines = part.partition(" {\n")
        found[name] = [line.strip() for line in lines.splitlines() if line.startswith("  ")]
    return found


REFUSAL = ["meta l4proto tcp reject with tcp reset", "reject"]
SERVER, CLIENT, FAR = pod("server", "10.0.0.1"), pod("client", "10.0.0.2"), pod("far", "10.0.0.3", "b")


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": {"app": "x"}}, True),
        ({"matchLabels": {"app": "y"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "y"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["x"]}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"app": "x"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
    ],
)
def test_a_selector_selects_by_labels(selector: dict[str, Any], selected: bool) -> None:
    assert selects(selector, {"app": "x"}) is selected


def test_pods_of_no_policy_are_free_and_those_of_one_get_nothing_by_default() -> None:
    policy = {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]}
    found = chains(policy, SERVER, CLIENT)
    assert found.keys() == {"ingress_10_0_0_1", "forward", "input"}
    assert found["ingress_10_0_0_1"] == REFUSAL
    assert found["forward"][-1] == "ip daddr vmap { 10.0.0.1 : jump ingress_10_0_0_1 }"


def test_ingress_by_pod_and_by_namespace_and_by_name_of_the_port() -> None:
    peers = [
        {"podSelector": {"matchLabels": {"app": "client"}}},
        {"namespaceSelector": {"matchLabels": {"team": "b"}}},
    ]
    policy = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": peers, "ports": [{"port": "http"}]}]}
    stranger = pod("client", "10.0.0.9", "c")
    assert chains(policy, SERVER, CLIENT, FAR, stranger)["ingress_10_0_0_1"] == [
        "ip saddr { 10.0.0.2, 10.0.0.3 } ip daddr 10.0.0.1 tcp dport 8080 return",
        *REFUSAL,
    ]


def test_a_rule_whose_peers_are_nobody_allows_nobody_and_one_without_peers_everybody() -> None:
    nobody = {"podSelector": {"matchLabels": {"app": "nobody"}}}
    policy: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [nobody]}]}
    assert chains(policy, SERVER)["ingress_10_0_0_1"] == REFUSAL
    policy["ingress"] = [{}]
    assert chains(policy, SERVER)["ingress_10_0_0_1"] == ["return", *REFUSAL]


def test_egress_by_block_and_range_also_to_the_node() -> None:
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16", "10.8.0.0/16"]}}
    ports = [{"protocol": "UDP", "port": 53}, {"port": 8000, "endPort": 8080}, {"protocol": "SCTP"}]
    policy = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [block], "ports": ports}]}
    found = chains(policy, SERVER)
    but = "ip daddr 10.0.0.0/8 ip daddr != { 10.8.0.0/16, 10.9.0.0/16 }"
    assert found["egress_10_0_0_1"] == [
        f"{but} udp dport 53 return",
        f"{but} tcp dport 8000-8080 return",
        f"{but} meta l4proto sctp return",
        *REFUSAL,
    ]
    for hook in ("forward", "input"):
        assert found[hook][1:] == [
            "ct state established,related accept",
            "ip saddr vmap { 10.0.0.1 : jump egress_10_0_0_1 }",
        ]


def test_pods_elsewhere_have_no_rules_of_their_own_but_are_peers() -> None:
    elsewhere = pod("client", "10.0.1.1", nodeName="another")
    policy = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]}
    found = chains(policy, SERVER, elsewhere)
    assert "ingress_10_0_1_1" not in found
    assert found["ingress_10_0_0_1"][0] == "ip saddr { 10.0.0.1, 10.0.1.1 } return"


def test_pods_without_an_address_of_their_own_have_none() -> None:
    ended = pod("p", "10.0.0.1") | {"status": {"phase": "Succeeded", "podIP": "10.0.0.1"}}
    assert address(ended) == address(pod("p", "10.0.0.1", hostNetwork=True)) == address(pod("p", "")) == ""
    assert address(SERVER) == "10.0.0.1"
