"""The gateway around the engines: where clients are led, who is let in, and what is said while that is not so."""

from dataclasses import replace

import pytest
from tests.unit.world import Json, World, conditions

from falcon_operator.api import names
from falcon_operator.decide.report import Report
from falcon_operator.desired.network_policy import LABEL_NAMESPACE

OFF: Json = {"gateway": {"enabled": False}}
ROUTE: Json = {"parentRefs": [{"name": "public"}]}
POOL: Json = {"endpointPickerRef": {"name": "picker"}}


def leads_to(world: World) -> str:
    found: str = world.objects["Service", "demo"]["spec"]["selector"][names.LABEL_COMPONENT]
    return found


def config(world: World, key: str = "haproxy.cfg") -> str:
    found: str = world.objects["ConfigMap", "demo-gateway"]["data"][key]
    return found


def open_to_all(world: World) -> bool:
    """Whether the policy lets everybody to the engine's port, and never to the launcher's."""
    rules = world.objects["NetworkPolicy", "demo"]["spec"]["ingress"]
    free = [rule for rule in rules if "from" not in rule]
    assert all([port["port"] for port in rule["ports"]] == [names.ENGINE_PORT] for rule in free)
    return bool(free)


def gateway_state(world: World, waiting: Json | None = None, last: Json | None = None) -> None:
    """The first gateway's container waits."""
    pod = world.gateway_pods[0] if world.gateway_pods else world.add_gateway_pod()
    pod["spec"]["nodeName"] = "node-1"
    pod["status"]["conditions"] = conditions(PodScheduled=("True", "", ""))
    image = pod["spec"]["containers"][0]["image"]
    state = {"waiting": waiting} if waiting else {}
    pod["status"]["containerStatuses"] = [{"name": "gateway", "image": image, "state": state, "lastState": last or {}}]


def test_a_new_resource_leads_clients_to_the_gateway_from_the_start() -> None:
    world = World()
    world.step()
    assert leads_to(world) == "gateway"
    assert not open_to_all(world)


def test_nothing_is_available_before_a_gateway_is() -> None:
    world = World()
    world.step()
    world.roll()
    world.gateway_pods.clear()
    world.answer()
    world.step()
    world.step()
    for kind in ("Ready", "Available", "GatewayReady"):
        assert world.state(kind) == ("False", "GatewayNotReady"), kind
    assert world.state("Reconciling")[0] == "True"
    assert "0 of 2 gateway pods ready" in world.condition("Ready")["message"]
    world.roll_gateway()
    world.settle()
    assert world.state("Ready") == ("True", "Ready")


def test_one_of_two_gateways_serves_and_the_other_is_on_its_way() -> None:
    world = World().serve()
    world.gateway_pods.pop()
    world.settle()
    assert world.state("Ready") == ("True", "Ready")
    assert world.state("GatewayReady") == ("True", "GatewayReady")
    assert "1 of 2 gateway pods ready" in world.condition("GatewayReady")["message"]
    assert world.state("Reconciling") == ("True", "GatewayNotReady")


def test_clients_of_a_resource_that_had_no_gateway_stay_with_the_engines_until_one_is_ready() -> None:
    world = World(spec=OFF).serve()
    assert (leads_to(world), open_to_all(world)) == ("engine", True)
    assert "GatewayReady" not in {c["type"] for c in world.status["conditions"]}
    world.change({})
    world.settle()
    assert (leads_to(world), open_to_all(world)) == ("engine", True)
    assert world.state("Available")[0] == "True"
    assert world.state("Ready") == ("False", "GatewayNotReady")
    assert "clients reach the engines directly" in world.condition("GatewayReady")["message"]
    world.roll_gateway()
    world.step()
    assert (leads_to(world), open_to_all(world)) == ("gateway", True), "who is on the old way is not shut out before"
    world.settle()
    assert not open_to_all(world)
    assert world.state("Ready") == ("True", "Ready")


def test_a_gateway_that_was_ready_keeps_its_clients_when_it_is_not() -> None:
    world = World().serve()
    for pod in world.gateway_pods:
        pod["status"]["conditions"] = []
    world.step()
    assert leads_to(world) == "gateway"
    assert world.state("Available") == ("False", "GatewayNotReady")


def test_a_gateway_that_is_turned_off_is_deleted_by_uid_after_the_service_has_left_it() -> None:
    world = World(spec={"gateway": {"httpRoute": ROUTE, "inferencePool": POOL}}).serve()
    theirs = {key: body["metadata"]["uid"] for key, body in world.objects.items()
              if key[1] == "demo-gateway" or key[0] in ("HTTPRoute", "InferencePool")}  # fmt: skip
    assert len(theirs) == 6
    world.change(OFF)
    plan = world.step()
    assert leads_to(world) == "engine"
    order = [(body["kind"], body["metadata"]["name"]) for body in plan.apply]
    assert order.index(("NetworkPolicy", "demo")) < order.index(("Service", "demo"))
    assert open_to_all(world)
    assert {(r.kind, r.name): r.uid for r in plan.delete} == theirs
    world.roll_gateway()
    world.settle()
    assert world.state("Ready") == ("True", "Ready")


def test_no_policy_with_network_policy_off() -> None:
    world = World().serve()
    world.change({"networkPolicy": "Off"})
    world.settle()
    assert not world.of_kind("NetworkPolicy")
    assert set(world.of_kind("PodDisruptionBudget")) == {"demo", "demo-gateway"}


def test_who_reaches_engines_and_gateway() -> None:
    world = World()
    world.renderer = replace(
        world.renderer,
        config=replace(world.renderer.config, operator_namespace="system", monitoring_namespaces=("prom",)),
    )
    world.step()
    operator, others = world.objects["NetworkPolicy", "demo"]["spec"]["ingress"]
    assert [p["port"] for p in operator["ports"]] == [8000, 8001]
    [peer] = operator["from"]
    assert peer["namespaceSelector"] == {"matchLabels": {LABEL_NAMESPACE: "system"}}
    assert others["from"] == [
        {"podSelector": {"matchLabels": names.gateway_selector_labels("demo")}},
        {"namespaceSelector": {"matchLabels": {LABEL_NAMESPACE: "prom"}}},
    ]
    gateway = world.objects["NetworkPolicy", "demo-gateway"]["spec"]
    assert [(p["port"], "from" in rule) for rule in gateway["ingress"] for p in rule["ports"]] == [
        (8080, False),
        (8404, True),
    ]
    assert [p["port"] for rule in gateway["egress"] for p in rule["ports"]] == [53, 53, 8000]


def test_a_pool_needs_the_engines_port() -> None:
    world = World(spec={"gateway": {"inferencePool": POOL}}).serve()
    assert open_to_all(world)


@pytest.mark.parametrize(("gives", "each"), [(None, 128), (100, 50)])
def test_an_engine_gets_as_many_requests_as_it_takes(gives: int | None, each: int) -> None:
    """256 are asked for and two gateways share them; an engine that a GPU made smaller says so."""
    world = World().serve()
    assert "maxconn 128\n" in config(world)
    for uid, facts in world.engines.items():
        world.engines[uid] = replace(facts, report=Report(max_num_seqs=gives))
    world.settle()
    assert f"maxconn {each}\n" in config(world)
    world.engines.clear()
    world.step()
    assert f"maxconn {each}\n" in config(world), "an operator that begins anew knows it from before"
    world.change({"engine": {"maxNumSeqs": 64}})
    world.step()
    assert "maxconn 32\n" in config(world), "what is asked for now"


def test_keys_reach_pods_that_know_of_them_and_no_others() -> None:
    world = World().serve()
    before = config(world)
    world.change({"gateway": {"apiKeys": {"secretName": "keys"}}})
    world.settle()
    assert config(world) == before, "a pod without the Secret goes on until it is replaced"
    assert "lua.key" not in before
    assert "lua.key" in config(world, "haproxy-with-keys.cfg")
    pod = world.objects["Deployment", "demo-gateway"]["spec"]["template"]["spec"]
    items = next(v["configMap"]["items"] for v in pod["volumes"] if v["name"] == "config")
    assert {"key": "haproxy-with-keys.cfg", "path": "haproxy.cfg"} in items


def test_a_suspended_resource_runs_no_gateway() -> None:
    world = World().serve()
    world.change({"suspend": True})
    world.step()
    world.roll()
    world.settle()
    assert world.objects["Deployment", "demo-gateway"]["spec"]["replicas"] == 0
    assert world.state("GatewayReady") == ("False", "Suspended")
    assert world.state("Reconciling") == ("False", "Reconciled")
    assert leads_to(world) == "gateway"


def test_an_api_that_is_missing_is_named_with_the_way_out() -> None:
    world = World(spec={"gateway": {"httpRoute": ROUTE}}, missing=frozenset({"HTTPRoute", "InferencePool"})).serve()
    assert not world.of_kind("HTTPRoute")
    assert world.state("Available")[0] == "True"
    for kind in ("Ready", "GatewayReady", "Reconciling"):
        assert world.state(kind) == ("False", "APIMissing"), kind
    said = world.condition("GatewayReady")["message"]
    for words in ("spec.gateway.httpRoute", "gateway.networking.k8s.io/v1", "Install the Gateway API, or remove"):
        assert words in said
    assert "inferencePool" not in said
    world.missing = frozenset()
    world.settle()
    assert world.of_kind("HTTPRoute")
    assert world.state("Ready") == ("True", "Ready")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "No Gateway has taken HTTPRoute demo yet: look at public"),
        ([{"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners", "message": "no."}],
         "HTTPRoute demo is not taken: NotAllowedByListeners, no."),
        ([{"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}], "2 of 2 gateway pods ready."),
    ],
)  # fmt: skip
def test_what_gateways_say_of_a_route_is_passed_on(found: list[Json], words: str) -> None:
    world = World(spec={"gateway": {"httpRoute": ROUTE}}).serve()
    world.objects["HTTPRoute", "demo"]["status"] = {"parents": [{"conditions": found}]}
    world.settle()
    assert world.condition("GatewayReady")["message"].endswith(
        words if words.startswith("2") else words + (", which spec.gateway.httpRoute names." if not found else "")
    ), world.condition("GatewayReady")
    assert world.state("Ready") == ("True", "Ready")


@pytest.mark.parametrize(
    ("waiting", "last", "reason", "words"),
    [
        ({"reason": "ImagePullBackOff", "message": "not found"}, None, "ImagePullFailed", "gateway.image"),
        ({"reason": "CreateContainerConfigError", "message": "no user"}, None, "ContainerCannotStart", "no user"),
        ({"reason": "ContainerCreating"}, None, "GatewayNotReady", "Secret keys"),
        ({"reason": "CrashLoopBackOff"}, {"terminated": {"exitCode": 1, "message": "bad line"}}, "GatewayNotReady",
         "ended with 1: bad line"),
    ],
)  # fmt: skip
def test_what_keeps_a_gateway_from_getting_ready_is_said(
    waiting: Json, last: Json | None, reason: str, words: str
) -> None:
    world = World(spec={"gateway": {"apiKeys": {"secretName": "keys"}}})
    world.step()
    gateway_state(world, waiting, last)
    world.settle()
    assert world.state("GatewayReady") == ("False", reason)
    assert words in world.condition("GatewayReady")["message"]


def test_a_gateway_that_finds_no_node_or_may_not_be_created_says_so() -> None:
    world = World()
    world.step()
    pod = world.add_gateway_pod()
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1: Insufficient cpu"}
    ]
    world.settle()
    assert world.state("GatewayReady") == ("False", "Unschedulable")
    world.objects["Deployment", "demo-gateway"]["status"] = {
        "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}]
    }
    world.settle()
    assert world.state("GatewayReady") == ("False", "Refused")
    assert "exceeded quota" in world.condition("GatewayReady")["message"]


def test_a_spec_that_is_not_acted_on_leaves_the_gateway_and_what_is_known_of_it() -> None:
    world = World().serve()
    objects = set(world.objects)
    world.change({"monitoring": {"podMonitor": "Off"}})
    world.settle()
    assert set(world.objects) == objects
    assert world.state("GatewayReady") == ("True", "GatewayReady")


def test_while_no_engine_is_ready_available_says_that_requests_wait() -> None:
    world = World(spec={"gateway": {"replicas": 1, "holdTimeout": "3m"}}).serve()
    world.change({**world.spec, "engine": {"maxModelLen": 4096}})
    world.step()
    world.pods.clear()
    world.add_pod()
    world.step()
    message = world.condition("Available")["message"]
    assert message.endswith("New requests wait in the gateway, up to 3m.")
    world.gateway_pods.clear()
    world.step()
    assert "wait in the gateway" not in world.condition("Available")["message"]
