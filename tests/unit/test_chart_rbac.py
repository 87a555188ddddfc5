"""Rights: what the operator gets is what the documentation says, and nothing that would be dangerous."""

import pytest
from tests.unit.charts import NAMESPACE, ROOT, Helm, Json, one

Grants = set[tuple[str, str, str]]
OURS = "serving.falcon-operator.io"
SCOPES = [{}, {"watch": {"namespaces": ["a", "b"]}}]


def grants(rules: list[Json]) -> Grants:
    assert not any({"nonResourceURLs", "resourceNames"} & rule.keys() for rule in rules)
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


def is_of_nodes(item: Json) -> bool:
    name: str = item["metadata"]["name"]
    return name.endswith("-nodes")


def operator_rules(helm: Helm, values: Json) -> list[Json]:
    """What the operator may do: the rules of a ClusterRole or of equal Roles, and those for nodes."""
    objects = [o for o in helm.render({**values, "rbac": {"aggregate": False}}) if "rules" in o]
    (nodes,), others = [o for o in objects if is_of_nodes(o)], [o for o in objects if not is_of_nodes(o)]
    assert others
    assert all(item["rules"] == others[0]["rules"] for item in others)
    assert nodes["kind"] == "ClusterRole", "nodes are in no namespace"
    rules: list[Json] = others[0]["rules"] + nodes["rules"]
    return rules


def documented() -> Grants:
    """The table of rights in docs/install.md."""
    lines = (ROOT / "docs/install.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| API group | resource"))
    found: Grants = set()
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        group, resources, verbs = (cell.strip().replace("`", "") for cell in line.split("|")[1:4])
        group = "" if group == "core" else group
        found |= {(group, r.strip(), v.strip()) for r in resources.split(",") for v in verbs.split(",")}
    return found


@pytest.mark.parametrize("values", SCOPES, ids=["cluster", "namespaces"])
def test_rights_are_the_documented_ones(helm: Helm, values: Json) -> None:
    assert grants(operator_rules(helm, values)) == documented()


@pytest.mark.parametrize("values", SCOPES, ids=["cluster", "namespaces"])
def test_no_dangerous_right(helm: Helm, values: Json) -> None:
    forbidden = {
        "secrets", "serviceaccounts", "serviceaccounts/token", "roles", "rolebindings", "clusterroles",
        "clusterrolebindings", "namespaces", "customresourcedefinitions", "validatingwebhookconfigurations",
        "mutatingwebhookconfigurations", "pods/exec", "pods/attach", "pods/log", "pods/portforward", "pods/proxy",
        "services/proxy", "nodes/proxy", "persistentvolumes", "*",
    }  # fmt: skip
    found = grants(operator_rules(helm, values))
    assert not {resource for _, resource, _ in found} & forbidden
    assert not {verb for _, _, verb in found} & {"*", "impersonate", "escalate", "bind", "deletecollection"}
    assert {resource for _, resource, verb in found if verb == "delete"} == {
        "configmaps", "controllerrevisions", "deployments", "httproutes", "inferencepools", "jobs",
        "networkpolicies", "poddisruptionbudgets",
    }  # fmt: skip
    assert {verb for _, resource, verb in found if resource == "nodes"} == {"list", "watch"}
    assert {verb for _, resource, verb in found if resource == "pods"} == {"list", "watch", "patch"}
    ours = {(resource, verb) for group, resource, verb in found if group == OURS}
    assert not {verb for resource, verb in ours if "/" not in resource} - {"get", "list", "watch"}


def test_cluster_wide_by_default(helm: Helm) -> None:
    objects = helm.render({"rbac": {"aggregate": False}})
    account = one(objects, "ServiceAccount")["metadata"]["name"]
    roles = [item["metadata"]["name"] for item in objects if item["kind"] == "ClusterRole"]
    bindings = [item for item in objects if item["kind"] == "ClusterRoleBinding"]
    assert [binding["roleRef"]["name"] for binding in bindings] == roles
    for binding in bindings:
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == account


def test_listed_namespaces_get_a_role_each_and_only_nodes_are_cluster_wide(helm: Helm) -> None:
    objects = helm.render({"watch": {"namespaces": ["a", "b"]}, "rbac": {"aggregate": False}})
    assert [item["kind"] for item in objects if is_of_nodes(item)] == ["ClusterRole", "ClusterRoleBinding"]
    assert not [item for item in objects if item["kind"].startswith("ClusterRole") and not is_of_nodes(item)]
    for kind in ("Role", "RoleBinding"):
        assert [item["metadata"]["namespace"] for item in objects if item["kind"] == kind] == ["a", "b"]
    for binding in (item for item in objects if item["kind"] == "RoleBinding"):
        assert binding["roleRef"]["kind"] == "Role"
        assert binding["subjects"][0]["namespace"] == NAMESPACE


def test_without_nodes_nothing_is_cluster_wide(helm: Helm) -> None:
    objects = helm.render({"watch": {"namespaces": ["a"]}, "rbac": {"aggregate": False, "nodes": False}})
    assert not [item for item in objects if item["kind"].startswith("ClusterRole")]


def test_no_right_without_rbac_create(helm: Helm) -> None:
    kinds = {item["kind"] for item in helm.render({"rbac": {"create": False, "aggregate": False}})}
    assert not {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & kinds


def test_a_foreign_service_account(helm: Helm) -> None:
    objects = helm.render({"serviceAccount": {"create": False, "name": "given"}})
    assert not [item for item in objects if item["kind"] == "ServiceAccount"]
    for binding in (item for item in objects if item["kind"] == "ClusterRoleBinding"):
        assert binding["subjects"][0]["name"] == "given"
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "given"


def test_users_who_may_read_cannot_write(helm: Helm) -> None:
    roles = [i for i in helm.render({"rbac": {"create": False}}) if i["kind"] == "ClusterRole"]
    given: dict[str, Grants] = {"view": set(), "edit": set(), "admin": set()}
    for role in roles:
        for target in given:
            if role["metadata"]["labels"].get(f"rbac.authorization.k8s.io/aggregate-to-{target}") == "true":
                given[target] |= grants(role["rules"])
    assert {verb for _, _, verb in given["view"]} == {"get", "list", "watch"}
    assert given["view"] < given["edit"] == given["admin"]
    for verb in ("create", "update", "patch", "delete"):
        assert (OURS, "falconnvfp4deployments", verb) in given["edit"]
    assert (OURS, "falconnvfp4deployments/scale", "update") in given["edit"]
    # The status is the operator's.
    assert {verb for _, resource, verb in given["edit"] if resource.endswith("/status")} == {"get", "list", "watch"}


def test_only_the_operator_gets_a_token(helm: Helm) -> None:
    objects = helm.render()
    assert one(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert one(objects, "Pod")["spec"]["automountServiceAccountToken"] is False
