"""Who reaches the operator, and whom it reaches: Service, ServiceMonitor and NetworkPolicy fit together."""

from tests.unit.charts import Helm, Json, one

from falcon_operator.api import names
from falcon_operator.desired import network_policy


def operator_port(objects: list[Json]) -> Json:
    port: Json = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"][0]
    return port


def test_the_service_leads_to_the_operators_port(helm: Helm) -> None:
    objects = helm.render({"service": {"port": 9090}})
    [port] = one(objects, "Service")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (9090, operator_port(objects)["name"])


def test_the_service_monitor_scrapes_the_service(helm: Helm) -> None:
    values = {"enabled": True, "renderMode": "Always", "interval": "15s", "labels": {"prometheus": "main"}}
    objects = helm.render({"serviceMonitor": values})
    monitor, service = one(objects, "ServiceMonitor"), one(objects, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["metadata"]["labels"]["prometheus"] == "main"
    port = service["spec"]["ports"][0]["name"]
    # A metric of a resource keeps the namespace that it names.
    assert monitor["spec"]["endpoints"] == [{"port": port, "path": "/metrics", "interval": "15s", "honorLabels": True}]


def test_the_operators_pod_is_the_one_that_engines_let_in(helm: Helm) -> None:
    labels = one(helm.render({"nameOverride": "other"}), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert network_policy.OPERATOR.items() <= labels.items()


def test_the_network_policy_lets_through_what_the_operator_does(helm: Helm) -> None:
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    objects = helm.render(
        {"networkPolicy": {"enabled": True, "ingressFrom": [prometheus], "apiServerPorts": [443, 8443]}}
    )
    policy = one(objects, "NetworkPolicy")["spec"]
    template = one(objects, "Deployment")["spec"]["template"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()

    [ingress] = policy["ingress"]
    assert ingress["ports"] == [{"port": operator_port(objects)["name"], "protocol": "TCP"}]
    assert ingress["from"][0] == prometheus
    test_pod = one(objects, "Pod")["metadata"]["labels"]
    assert ingress["from"][1]["podSelector"]["matchLabels"].items() <= test_pod.items()

    dns, api_server, engines, gateways = policy["egress"]
    assert {(port["port"], port["protocol"]) for port in dns["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert [port["port"] for port in api_server["ports"]] == [443, 8443]
    assert engines["ports"] == [{"port": p, "protocol": "TCP"} for p in (names.ENGINE_PORT, names.LAUNCHER_PORT)]
    assert gateways["ports"] == [{"port": names.GATEWAY_METRICS_PORT, "protocol": "TCP"}]
    for pods, component in ((engines, names.COMPONENT_ENGINE), (gateways, names.COMPONENT_GATEWAY)):
        [to] = pods["to"]
        assert to["namespaceSelector"] == {}
        assert to["podSelector"]["matchLabels"].items() <= names.child_labels("falcon", "uid", component).items()


def test_without_peers_everybody_may_scrape(helm: Helm) -> None:
    [ingress] = one(helm.render({"networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]["ingress"]
    assert "from" not in ingress


def test_the_operators_own_objects_are_not_taken_for_its_children(helm: Helm) -> None:
    for item in helm.render():
        assert item["metadata"]["labels"][names.LABEL_MANAGED_BY] != names.OPERATOR_NAME
