"""Values: each is documented and typed, and a mistake is refused with a sentence that names it."""

import json
import re

import pytest
from tests.unit.charts import CHART, Helm, Json, default_values, nested

SCHEMA: Json = json.loads((CHART / "values.schema.json").read_text())
MAPS = {"affinity", "resources.requests", "resources.limits"}


def keys_of_values(values: Json, prefix: str = "") -> set[str]:
    found = set()
    for key, value in values.items():
        path = f"{prefix}{key}"
        found |= keys_of_values(value, f"{path}.") if isinstance(value, dict) and value and path not in MAPS else {path}
    return found


def keys_of_schema(schema: Json, prefix: str = "") -> set[str]:
    found = set()
    for key, value in schema["properties"].items():
        path = f"{prefix}{key}"
        if "properties" in value and path not in MAPS:
            found |= keys_of_schema(value, f"{path}.")
        else:
            found.add(path)
    return found


def test_schema_and_values_have_the_same_keys() -> None:
    # Helm itself hands `global` to every subchart.
    assert keys_of_schema(SCHEMA) - {"global"} == keys_of_values(default_values())


def test_every_value_is_documented() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    undocumented, comment = [], ""
    for line in lines:
        if line.lstrip().startswith("#"):
            comment += line
            continue
        # `resources` is documented as a whole; a line that only opens a section needs nothing.
        leaf = re.match(r"( {0,2}\w+):", line)
        if (
            leaf
            and "# --" not in comment
            and not (line.endswith(":"))
            and leaf[1].strip() not in {"requests", "limits"}
        ):
            undocumented.append(leaf[1])
        comment = ""
    assert not undocumented


def objects_in(schema: Json) -> list[Json]:
    children = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    return [schema, *(found for child in children for found in objects_in(child))]


def test_no_object_of_ours_takes_unknown_keys() -> None:
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#", "Helm 3 knows no later draft"
    assert all(part["additionalProperties"] is False for part in objects_in(SCHEMA) if "properties" in part)


TYPOS = [
    "imgae", "crds.enable", "image.tags", "watch.namespace", "operator.worker", "operator.extra", "gateway.images",
    "rbac.created", "serviceAccount.names", "service.ports", "serviceMonitor.enable", "networkPolicy.ingres",
    "resources.limit", "affinity.node", "replicas",
]  # fmt: skip


@pytest.mark.parametrize("name", ["helm", "helm3"])
def test_typos_are_refused_by_name(name: str, request: pytest.FixtureRequest) -> None:
    message = request.getfixturevalue(name).refusal(together({typo: "x" for typo in TYPOS}))
    assert "values don't meet the specifications of the schema" in message
    for typo in TYPOS:
        *section, key = typo.split(".")
        place = "/" + "/".join(section) if section else ""
        lines = [line for line in message.splitlines() if f"at '{place}': additional properties" in line]
        assert any(f"'{key}'" in line for line in lines), f"{typo} is not named in {message}"


# Each row is one path; rows of one path are refused in turn, all else at once.
WRONG = [
    ("operator.workers", "many", "got string, want integer"),
    ("operator.workers", 0, "minimum: got 0, want 1"),
    ("operator.resyncSeconds", "10m", "got string, want integer"),
    ("operator.sweepSeconds", 1, "minimum: got 1, want 10"),
    ("operator.logLevel", "loud", "one of 'debug', 'info', 'warning', 'error'"),
    ("operator.logFormat", "xml", "one of 'json', 'text'"),
    ("operator.allowTrustRemoteCode", "yes", "got string, want boolean"),
    ("operator.defaultImage", "", "minLength"),
    ("operator.monitoringNamespaces", "monitoring", "got string, want array"),
    ("gateway.image", 1, "got number, want string"),
    ("image.pullPolicy", "Allways", "one of 'Always', 'IfNotPresent', 'Never'"),
    ("image.digest", "sha256:abc", "does not match pattern"),
    ("image.tag", "a b", "does not match pattern"),
    ("watch.namespaces", "team-a", "got string, want array"),
    ("watch.namespaces", ["Team_A"], "'Team_A' does not match pattern"),
    ("watch.namespaces", ["a", "a"], "items at 0 and 1 are equal"),
    ("imagePullSecrets", ["pull"], "got string, want object"),
    ("runAsUser", 0, "minimum: got 0, want 1"),
    ("crds.keep", "true", "got string, want boolean"),
    ("service.port", 70000, "maximum: got 70,000, want 65,535"),
    ("serviceMonitor.interval", "often", "does not match pattern"),
    ("serviceMonitor.renderMode", "Sometimes", "one of 'SkipIfMissing', 'Always'"),
    ("networkPolicy.apiServerPorts", [], "minItems: got 0, want 1"),
    ("podLabels", {"a": 1}, "got number, want string"),
    ("tolerations", {"operator": "Exists"}, "got object, want array"),
]


def together(values: dict[str, object]) -> Json:
    whole: Json = {}
    for path, value in values.items():
        *section, key = path.split(".")
        part = whole
        for name in section:
            part = part.setdefault(name, {})
        part[key] = value
    return whole


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_wrong_values_are_refused_where_they_are(helm: Helm, turn: int) -> None:
    rows = [row for i, row in enumerate(WRONG) if [other[0] for other in WRONG[:i]].count(row[0]) == turn]
    message = helm.refusal(together({path: value for path, value, _ in rows}))
    for path, _, says in rows:
        lines = [line for line in message.splitlines() if f"'/{path.replace('.', '/')}" in line]
        assert any(says in line for line in lines), f"{path} is not refused with {says!r} in {message}"


@pytest.mark.parametrize("path", ["runAsUser", "runAsGroup", "image.digest", "priorityClassName", "affinity"])
def test_null_removes_a_default(helm: Helm, path: str) -> None:
    assert helm.render(nested(path, None))


def test_values_of_a_parent_chart_are_no_typo(helm: Helm) -> None:
    assert helm.render({"global": {"anything": True}})
