"""What the chart renders: every block of it both ways, and the pod's security in all of them."""

import dataclasses
import re
import tomllib
from typing import Any

import pytest
import yaml
from tests.unit.charts import CHART, NAMESPACE, RELEASE, ROOT, Helm, Json, nested, one, pods

from falcon_operator.api.config import OperatorConfig

CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
PROMETHEUS = ("--api-versions", "monitoring.coreos.com/v1/ServiceMonitor")
DIGEST = "sha256:" + 64 * "a"

# Every value that an `if`, `with` or `range` of the templates looks at: one rendering without the block, one with it.
BOTH_WAYS: dict[str, tuple[Any, Any]] = {
    "affinity": ({}, {"nodeAffinity": {}}),
    "crds.enabled": (False, True),
    "crds.keep": (False, True),
    "fullnameOverride": ("", "other"),
    "image.digest": ("", DIGEST),
    "image.registry": ("", "registry.example.com"),
    "image.tag": ("", "v9"),
    "imagePullSecrets": ([], [{"name": "pull"}]),
    "nameOverride": ("", "other"),
    "networkPolicy.apiServerPorts": ([443], [8443, 9443]),
    "networkPolicy.enabled": (False, True),
    "networkPolicy.ingressFrom": ([], [{"namespaceSelector": {}}]),
    "nodeSelector": ({}, {"kubernetes.io/os": "linux"}),
    "operator.allowTrustRemoteCode": (False, True),
    "podAnnotations": ({}, {"example.com/a": "b"}),
    "priorityClassName": ("", "system-cluster-critical"),
    "rbac.aggregate": (False, True),
    "rbac.create": (False, True),
    "rbac.nodes": (False, True),
    "runAsGroup": (None, 1234),
    "runAsUser": (None, 1234),
    "service.annotations": ({}, {"example.com/a": "b"}),
    "service.enabled": (False, True),
    "serviceAccount.annotations": ({}, {"example.com/a": "b"}),
    "serviceAccount.create": (False, True),
    "serviceMonitor.enabled": (False, True),
    "serviceMonitor.renderMode": ("SkipIfMissing", "Always"),
    "tolerations": ([], [{"operator": "Exists"}]),
    "watch.namespaces": ([], ["a", "b"]),
}
# What else must be set for a value to be looked at.
CONTEXT: dict[str, Json] = {
    "crds.keep": {"crds": {"enabled": True}},
    "networkPolicy": {"networkPolicy": {"enabled": True}},
    "serviceMonitor.enabled": {"serviceMonitor": {"renderMode": "Always"}},
    "serviceMonitor.renderMode": {"serviceMonitor": {"enabled": True}},
}
CASES = [(path, value) for path, values in BOTH_WAYS.items() for value in values]


def merged(below: Json, above: Json) -> Json:
    both = {key: merged(below[key], above[key]) for key in below.keys() & above.keys() if isinstance(above[key], dict)}
    return {**below, **above, **both}


def values_with(path: str, value: Any) -> Json:
    context = CONTEXT.get(path, CONTEXT.get(path.split(".")[0], {}))
    return merged(context, nested(path, value))


def test_every_condition_of_the_templates_is_rendered_both_ways() -> None:
    conditions: set[str] = set()
    for template in (CHART / "templates").rglob("*"):
        if template.suffix in {".yaml", ".tpl", ".txt"}:
            for block in re.findall(r"{{-? *(?:if|else if|with|range)\b(.*?)}}", template.read_text()):
                conditions.update(re.findall(r"\.Values\.([\w.]+)", block))
    # The image's template has a short name for `.Values.image`.
    conditions.update({"image.digest", "image.registry"})
    assert conditions <= BOTH_WAYS.keys(), f"not rendered both ways: {sorted(conditions - BOTH_WAYS.keys())}"


@pytest.mark.parametrize("path", BOTH_WAYS)
def test_a_value_makes_a_difference(helm: Helm, path: str) -> None:
    off, on = (helm.render(values_with(path, value)) for value in BOTH_WAYS[path])
    assert off != on


def notes_of(helm: Helm, values: Json) -> str:
    done = helm.run("install", RELEASE, str(CHART), "-n", NAMESPACE, "--dry-run=client", values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("NOTES:", 1)[1]


@pytest.mark.parametrize(("path", "value"), CASES)
def test_pods_stay_restricted_whatever_is_set(helm: Helm, path: str, value: Any) -> None:
    found = pods(helm.render(values_with(path, value)))
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["securityContext"].get("runAsUser") != 0
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all("hostPath" not in volume for volume in pod.get("volumes", []))
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]
            assert "cpu" not in container["resources"]["limits"]


@pytest.mark.parametrize(("path", "value"), CASES)
def test_namespaces_names_and_labels(helm: Helm, path: str, value: Any) -> None:
    objects = helm.render(values_with(path, value))
    assert len(
        {(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects}
    ) == len(objects)
    for item in objects:
        metadata = item["metadata"]
        if item["kind"] == "CustomResourceDefinition":
            continue
        wanted = {"Role": {"a", "b"}, "RoleBinding": {"a", "b"}}.get(item["kind"], {NAMESPACE})
        assert item["kind"] in CLUSTER_SCOPED or metadata["namespace"] in wanted
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert ("other" if path == "fullnameOverride" and value else RELEASE) in metadata["name"]


@pytest.mark.parametrize("name", ["helm", "helm3"])
def test_lint(name: str, request: pytest.FixtureRequest) -> None:
    done = request.getfixturevalue(name).run("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert "0 chart(s) failed" in done.stdout


@pytest.mark.parametrize("side", [0, 1], ids=["all off", "all on"])
def test_helm_3_renders_the_same(helm: Helm, helm3: Helm, side: int) -> None:
    values: Json = {}
    for path, both in BOTH_WAYS.items():
        values = merged(values, nested(path, both[side]))
    assert helm3.render(values) == helm.render(values)
    assert helm3.render() == helm.render()


def test_rendering_needs_no_cluster_and_no_luck(helm: Helm) -> None:
    text = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    assert not re.findall(
        r"\b(lookup|randAlpha\w*|randNumeric|uuidv4|now|genCA|genSelfSignedCert|htpasswd)\b *[\"($]", text
    )
    assert helm.template() == helm.template()


def test_the_environment_is_the_operators_configuration(helm: Helm) -> None:
    container = one(helm.render(), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    environment = {item["name"]: item["value"] for item in container["env"] if item["name"] != "USER"}
    defaults = {f.name: f.default for f in dataclasses.fields(OperatorConfig)}
    assert environment.keys() == {f"FALCON_OPERATOR_{name.upper()}" for name in defaults}
    for name, default in defaults.items():
        shown = ",".join(default) if isinstance(default, tuple) else str(default)
        if isinstance(default, bool):
            shown = shown.lower()
        if name == "operator_namespace":
            shown = NAMESPACE  # what the default cannot know
        assert environment[f"FALCON_OPERATOR_{name.upper()}"] == shown


def test_the_operators_settings_reach_it(helm: Helm) -> None:
    settings = {
        "defaultImage": "example.com/vllm:1",
        "monitoringNamespaces": ["prometheus", "victoria"],
        "clusterDomain": "example.internal",
        "allowTrustRemoteCode": True,
        "workers": 3,
        "resyncSeconds": 1000000,
        "sweepSeconds": 61,
        "logLevel": "debug",
        "logFormat": "text",
    }
    images = {"gateway": {"image": "example.com/gateway:2"}, "quantizer": {"image": "example.com/quantizer:3"}}
    objects = helm.render({"operator": settings, **images, "watch": {"namespaces": ["a", "b"]}})
    container = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    environment = {item["name"].removeprefix("FALCON_OPERATOR_"): item["value"] for item in container["env"]}
    assert environment == {
        "USER": "falcon-operator",
        "DEFAULT_IMAGE": "example.com/vllm:1",
        "GATEWAY_IMAGE": "example.com/gateway:2",
        "QUANTIZER_IMAGE": "example.com/quantizer:3",
        "OPERATOR_NAMESPACE": NAMESPACE,
        "MONITORING_NAMESPACES": "prometheus,victoria",
        "CLUSTER_DOMAIN": "example.internal",
        "ALLOW_TRUST_REMOTE_CODE": "true",
        "WATCH_NAMESPACES": "a,b",
        "WORKERS": "3",
        "RESYNC_SECONDS": "1000000",
        "SWEEP_SECONDS": "61",
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "text",
        "LISTEN_PORT": "8080",
    }


def test_one_operator_at_a_time_that_says_how_it_is(helm: Helm) -> None:
    spec = one(helm.render(), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    container = spec["template"]["spec"]["containers"][0]
    # Whatever the entry point of the image is.
    assert (container["command"], container.get("args")) == (["falcon-operator", "run"], None)
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def test_selectors_hold_over_an_upgrade_and_find_the_operator_alone(helm: Helm) -> None:
    objects = helm.render({"podLabels": {"app.kubernetes.io/name": "wrong", "team": "a"}})
    deployment = one(objects, "Deployment")
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector.keys() == {f"app.kubernetes.io/{key}" for key in ("name", "instance", "component")}
    assert deployment["spec"]["template"]["metadata"]["labels"] == {**selector, "team": "a"}
    assert one(objects, "Service")["spec"]["selector"] == selector
    assert (
        one(objects, "Pod")["metadata"]["labels"]["app.kubernetes.io/component"]
        != selector["app.kubernetes.io/component"]
    )


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, "docker.io/mutazai/falcon-operator:0.1.0"),
        ({"tag": "v9"}, "docker.io/mutazai/falcon-operator:v9"),
        ({"tag": "v9", "digest": DIGEST}, f"docker.io/mutazai/falcon-operator@{DIGEST}"),
        ({"registry": "", "repository": "localhost/operator", "tag": "dev"}, "localhost/operator:dev"),
    ],
)
def test_image_reference(helm: Helm, image: Json, reference: str) -> None:
    assert {pod["containers"][0]["image"] for pod in pods(helm.render({"image": image}))} == {reference}


def test_long_names_stay_names(helm: Helm) -> None:
    for item in helm.render({"fullnameOverride": 63 * "n"}):
        if item["kind"] not in CLUSTER_SCOPED:
            assert len(item["metadata"]["name"]) <= 63


@pytest.mark.parametrize(("api", "mode", "there"), [((), "SkipIfMissing", False), (PROMETHEUS, "SkipIfMissing", True)])
def test_service_monitor_where_the_api_is(helm: Helm, api: tuple[str, ...], mode: str, there: bool) -> None:
    objects = helm.render({"serviceMonitor": {"enabled": True, "renderMode": mode}}, *api)
    assert any(item["kind"] == "ServiceMonitor" for item in objects) is there


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


@pytest.mark.parametrize(("version", "accepted"), [("1.29.9", False), ("1.30.0", True), ("1.30.4-gke.100", True)])
def test_kubernetes_version(helm: Helm, version: str, accepted: bool) -> None:
    done = helm.run("template", RELEASE, str(CHART), "--kube-version", version)
    assert (done.returncode == 0) is accepted, done.stderr


def test_notes_say_what_to_type_next(helm: Helm) -> None:
    notes = notes_of(helm, {"watch": {"namespaces": ["team"]}})
    assert "kubectl apply -n team -f -" in notes
    assert "kubectl get fnd -n team --watch" in notes
    assert f"helm test {RELEASE} -n {NAMESPACE}" in notes
    assert "WARNING" not in notes
    example = re.search(r"<<EOF\n(.*?)\n  EOF", notes, re.S)
    assert example
    assert yaml.safe_load(example[1])["kind"] == "FalconNVFP4Deployment"


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        ({"crds": {"enabled": False}}, "crds.enabled is false"),
        ({"crds": {"keep": False}}, "crds.keep is false"),
        ({"rbac": {"create": False}}, "rbac.create is false"),
        ({"rbac": {"nodes": False}}, "rbac.nodes is false"),
        ({"operator": {"allowTrustRemoteCode": True}}, "operator.allowTrustRemoteCode is true"),
        ({"image": {"tag": "v9", "digest": DIGEST}}, "image.tag (v9) is not used"),
        ({"serviceMonitor": {"enabled": True}}, "no monitoring.coreos.com/v1 API"),
        ({"serviceMonitor": {"enabled": True}, "service": {"enabled": False}}, "service.enabled is false"),
    ],
)
def test_notes_warn(helm: Helm, values: Json, warning: str) -> None:
    assert warning in notes_of(helm, values).split("WARNING: ", 1)[-1]
