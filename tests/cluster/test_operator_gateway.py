"""The endpoint that the operator makes around the engines, on a real API server; kwok plays the pods."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster import kubeapi
from tests.cluster.conftest import CRDS, Start
from tests.cluster.world import QUIET_SECONDS, AuditLog, Json, World, wait_for, wait_quiet

from falcon_operator.api import names
from falcon_operator.kube.resources import EXTENSIONS, HTTP_ROUTE, INFERENCE_POOL, Resource

pytestmark = pytest.mark.cluster

GATEWAY_OBJECTS = [
    ("ConfigMap", "web-gateway"),
    ("Deployment", "web-gateway"),
    ("NetworkPolicy", "web-gateway"),
    ("PodDisruptionBudget", "web-gateway"),
]
KEYS: Json = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"team": "k1"}}
ROUTE = {"parentRefs": [{"name": "public"}], "hostnames": ["llm.example.com"]}
POOL = {"endpointPickerRef": {"name": "picker"}}


def got(world: World, kind: str, name: str) -> Json:
    found = world.get(kind, name)
    assert found is not None, f"there is no {kind} {name}"
    return found


def leads_to(world: World) -> str:
    component: str = got(world, "Service", "web")["spec"]["selector"][names.LABEL_COMPONENT]
    return component


def gateways(world: World) -> list[Json]:
    return [p for p in world.all("Pod")
            if p["metadata"]["labels"].get(names.LABEL_COMPONENT) == names.COMPONENT_GATEWAY]  # fmt: skip


def condition(world: World, status: str, kind: str = "GatewayReady") -> Json:
    def there() -> Json | None:
        found = world.condition("web", kind)
        return found if found.get("status") == status else None

    return wait_for(there, f"{kind} {status}", 60, lambda: world.condition("web", kind))


def test_the_endpoint_is_written_once_and_read_back_as_it_was_meant(
    world: World, start: Start, audit: AuditLog
) -> None:
    operator = start()
    world.resource("web")
    ready = world.wait_ready("web")
    world.settled("web")
    wait_quiet(audit.writes, QUIET_SECONDS)
    writes = audit.writes()
    for resource, name in (
        ("configmaps", "web-gateway"), ("deployments", "web-gateway"), ("networkpolicies", "web-gateway"),
        ("poddisruptionbudgets", "web-gateway"), ("networkpolicies", "web"), ("poddisruptionbudgets", "web"),
        ("services", "web"), ("services", "web-engines"), ("deployments", "web"),
    ):  # fmt: skip
        assert writes.count(f"patch {resource}/{name} 201") == 1, writes
        assert f"patch {resource}/{name} 200" not in writes, writes
    deployments = [w for w in writes if "deployments/web" in w and "status" not in w]
    assert deployments[0] == "patch deployments/web 201", "the engines come first"
    assert world.condition("web", "GatewayReady")["status"] == "True"
    assert ready["status"]["url"].startswith(f"http://web.{world.namespace}.")
    assert leads_to(world) == "gateway"
    assert len(gateways(world)) == 2
    operator.stop()
    start()
    wait_quiet(audit.writes, QUIET_SECONDS)
    assert audit.writes() == writes, "a restarted operator finds everything as it should be"


def test_a_namespace_under_the_restricted_standard_takes_the_gateway(world: World, start: Start) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    world.client.patch(
        f"/api/v1/namespaces/{world.namespace}", content=json.dumps(label), headers={"Content-Type": kubeapi.MERGE}
    ).raise_for_status()
    start()
    world.resource("web", {"gateway": {"apiKeys": {"secretName": "keys"}}})
    wait_for(lambda: len(gateways(world)) == 2, "two gateways", 60, lambda: got(world, "Deployment", "web-gateway"))
    pod = got(world, "Deployment", "web-gateway")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["terminationGracePeriodSeconds"] > 600 + 300, "what is held, then what streams"
    secret = next(v["secret"] for v in pod["volumes"] if v["name"] == "keys")
    assert secret["secretName"] == "keys"


def test_a_change_of_numbers_reaches_the_config_and_no_pod(world: World, start: Start) -> None:
    start()
    world.resource("web")
    world.settled("web")
    pods = {p["metadata"]["uid"] for p in gateways(world)}
    before = got(world, "ConfigMap", "web-gateway")["data"]
    generation = got(world, "Deployment", "web-gateway")["metadata"]["generation"]
    world.resource("web", {"gateway": {"maxHeldRequests": 10}})
    wait_for(lambda: got(world, "ConfigMap", "web-gateway")["data"] != before, "another configuration")
    world.wait_ready("web")
    assert got(world, "Deployment", "web-gateway")["metadata"]["generation"] == generation
    assert {p["metadata"]["uid"] for p in gateways(world)} == pods


def test_what_is_turned_off_goes_and_comes_back(world: World, start: Start) -> None:
    start()
    world.resource("web")
    world.settled("web")
    world.resource("web", {"networkPolicy": "Off"})
    wait_for(lambda: not world.all("NetworkPolicy"), "end of the policies")
    world.resource("web", {"networkPolicy": "Off", "gateway": {"enabled": False}})
    wait_for(lambda: not set(GATEWAY_OBJECTS) & set(world.children()), "end of the gateway", 60, world.children)
    assert leads_to(world) == "engine"
    world.wait_ready("web")
    assert world.condition("web", "GatewayReady") == {}
    world.resource("web")
    wait_for(lambda: set(GATEWAY_OBJECTS) <= set(world.children()), "gateway", 60, world.children)
    wait_for(lambda: leads_to(world) == "gateway", "Service that leads to the gateway")
    world.wait_ready("web")


def test_the_service_leads_to_engines_until_a_gateway_is_ready(world: World, start: Start) -> None:
    """A resource that has none yet, as after an upgrade, gets one that cannot start: no pod is let in."""
    start()
    world.resource("web", {"gateway": {"enabled": False}})
    world.settled("web")
    # Enough for the engine that runs.
    hard = {"hard": {"pods": str(len(world.all("Pod")))}}
    world.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": hard})
    wait_for(lambda: (world.get("ResourceQuota", "none") or {}).get("status", {}).get("hard"), "quota in force")
    world.resource("web")
    said = condition(world, "False")
    wait_for(lambda: "exceeded quota" in world.condition("web", "GatewayReady").get("message", ""), "the quota's words")
    assert "0 of 2" in said["message"]
    assert leads_to(world) == "engine"
    assert world.condition("web", "Available")["status"] == "True", "clients go where they went before"
    assert world.condition("web", "Ready")["status"] == "False"
    policy = got(world, "NetworkPolicy", "web")["spec"]["ingress"]
    assert any("from" not in rule for rule in policy), "clients still reach engines"
    world.delete("ResourceQuota", "none")
    wait_for(lambda: leads_to(world) == "gateway", "Service that leads to the gateway", 120)
    world.wait_ready("web", 90)
    wait_for(lambda: all("from" in rule for rule in got(world, "NetworkPolicy", "web")["spec"]["ingress"]),
             "engines that only the gateway reaches")  # fmt: skip


def test_without_a_ready_gateway_nothing_is_available(world: World, start: Start) -> None:
    start()
    world.resource("web")
    world.settled("web")
    hard = {"hard": {"pods": "1"}}
    world.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": hard})
    wait_for(lambda: (world.get("ResourceQuota", "none") or {}).get("status", {}).get("hard"), "quota in force")
    for pod in gateways(world):
        world.delete("Pod", pod["metadata"]["name"], gracePeriodSeconds=0)
    said = condition(world, "False", "Available")
    assert said["reason"] in ("GatewayNotReady", "Refused"), said
    assert leads_to(world) == "gateway", "the engines stay behind it"
    world.delete("ResourceQuota", "none")
    world.wait_ready("web", 120)


CHANGES: list[tuple[str, str, Json]] = [
    ("Deployment", "web-gateway", {"spec": {"replicas": 0}}),
    ("ConfigMap", "web-gateway", {"data": {"haproxy.cfg": "nothing"}}),
    ("PodDisruptionBudget", "web", {"spec": {"maxUnavailable": 0}}),
    ("NetworkPolicy", "web", {"spec": {"ingress": [{}]}}),
    ("NetworkPolicy", "web-gateway", {"metadata": {"labels": {names.LABEL_MANAGED_BY: None}}}),
]


@pytest.mark.parametrize(("kind", "name", "patch"), CHANGES, ids=lambda value: str(value)[:60])
def test_what_somebody_else_changes_is_changed_back(
    world: World, start: Start, kind: str, name: str, patch: Json
) -> None:
    start()
    world.resource("web")
    world.settled("web")
    before = got(world, kind, name)
    world.merge(kind, name, patch)

    def healed() -> bool:
        now = got(world, kind, name)
        return all(now.get(part) == before.get(part) for part in ("spec", "data")) and (
            now["metadata"]["labels"] == before["metadata"]["labels"]
        )

    wait_for(healed, f"healed {kind} {name}")


@pytest.mark.parametrize(("kind", "name"), [*GATEWAY_OBJECTS, ("NetworkPolicy", "web"), ("PodDisruptionBudget", "web")])
def test_a_deleted_child_comes_back(world: World, start: Start, kind: str, name: str) -> None:
    start()
    world.resource("web")
    world.settled("web")
    before = got(world, kind, name)["metadata"]["uid"]
    world.delete(kind, name)
    wait_for(lambda: (world.get(kind, name) or {}).get("metadata", {}).get("uid") not in (None, before), f"new {name}")
    world.wait_ready("web")


def test_an_api_that_is_missing_is_named_and_the_endpoint_serves(world: World, start: Start) -> None:
    if any(world.client.get(kind.path(world.namespace)).is_success for kind in EXTENSIONS):
        pytest.fail("another test has left its definitions here")
    start()
    world.resource("web", {"gateway": {"httpRoute": ROUTE, "inferencePool": POOL}})
    said = wait_for(lambda: c if (c := world.condition("web", "GatewayReady")).get("reason") == "APIMissing" else None,
                    "APIMissing", 60, lambda: world.condition("web", "GatewayReady"))  # fmt: skip
    for words in ("spec.gateway.httpRoute", HTTP_ROUTE.api_version, "spec.gateway.inferencePool"):
        assert words in said["message"]
    condition(world, "True", "Available")
    assert world.condition("web", "Ready")["reason"] == "APIMissing"
    world.resource("web")
    world.wait_ready("web")


def definition(resource: Resource) -> Json:
    """A kind as its project defines it, as far as its name goes; what is in it is not looked at here."""
    plural = resource.plural
    group = resource.group
    schema: Any = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    named = {"plural": plural, "singular": plural[:-1], "kind": resource.kind, "listKind": f"{resource.kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # Groups of the Kubernetes project are protected.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {"group": group, "scope": "Namespaced", "names": named, "versions": [version]},
    }


@pytest.fixture
def extensions(world: World) -> Iterator[None]:
    """The kinds of the Gateway API, for one test."""
    bodies = [definition(resource) for resource in (HTTP_ROUTE, INFERENCE_POOL)]
    for body in bodies:
        name = body["metadata"]["name"]
        answer = kubeapi.apply(world.client, f"{CRDS}/{name}", body)
        assert answer.is_success, answer.text
        kubeapi.wait_for_established(world.client, name)
    yield
    for body in bodies:
        world.client.delete(f"{CRDS}/{body['metadata']['name']}").raise_for_status()
    wait_for(lambda: not any(world.client.get(kind.path(world.namespace)).is_success for kind in EXTENSIONS),
             "end of the definitions")  # fmt: skip


@pytest.mark.alone
def test_a_route_and_a_pool_are_made_watched_and_deleted(world: World, start: Start, extensions: None) -> None:
    start()
    world.resource("web", {"gateway": {"httpRoute": ROUTE, "inferencePool": POOL}})
    world.wait_ready("web")
    route, pool = got(world, "HTTPRoute", "web"), got(world, "InferencePool", "web")
    assert route["spec"]["parentRefs"] == [{"name": "public"}]
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": "web", "port": 80}]
    assert pool["spec"]["targetPorts"] == [{"number": 8000}]
    said = world.condition("web", "GatewayReady")["message"]
    assert "No Gateway has taken HTTPRoute web yet" in said
    assert "public" in said
    world.delete("HTTPRoute", "web")
    wait_for(lambda: world.get("HTTPRoute", "web"), "new HTTPRoute")
    world.resource("web")
    wait_for(lambda: not world.get("HTTPRoute", "web") and not world.get("InferencePool", "web"), "end of both")
    world.wait_ready("web")
