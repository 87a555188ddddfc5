from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.world import UID, renderer

from falcon_engine.intent import PORT_VARIABLE, VARIABLE, Intent
from falcon_operator.api import names
from falcon_operator.api.spec import Spec
from falcon_operator.desired import affinity, claims, pod, quantity
from falcon_operator.desired.canonical import content_hash, differing_paths
from falcon_operator.desired.intent import version_of_tag
from falcon_operator.desired.metadata import Owner, stamped
from falcon_operator.desired.revision import spec_hash
from falcon_operator.desired.services import client_service, engines_service

OWNER = Owner("demo", "team", UID)
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
H100 = {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["H100"]}
H100_ONLY = affinity.Requirements(alternatives=((H100,),))


def template(**spec: Any) -> dict[str, Any]:
    return pod.pod_template(Spec.model_validate(spec), "demo", renderer())


def engine(**spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = template(**spec)["spec"]["containers"][0]
    return found


def variables(**spec: Any) -> dict[str, str]:
    return {v["name"]: v.get("value", "") for v in engine(**spec)["env"]}


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        (2, "2"),
        ("1500m", "1500m"),
        ("12Gi", "12Gi"),
        ("2048Mi", "2Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ti", "512Gi"),
        ("1000000", "1M"),
        ("5000M", "5G"),
        ("1536", "1536"),
        ("512Ki", "512Ki"),
        ("0", "0"),
        ("1e3", "1k"),
    ],
)
def test_quantities_are_written_as_the_api_server_stores_them(written: str | int, stored: str) -> None:
    assert quantity.canonical(written) == stored


@given(st.integers(1, 10**6), st.sampled_from(["m", "", "k", "M", "G", "Ki", "Mi", "Gi", "Ti"]))
def test_a_canonical_quantity_is_the_same_amount_and_stays_as_it_is(number: int, suffix: str) -> None:
    once = quantity.canonical(f"{number}{suffix}")
    assert quantity.parse(once) == quantity.parse(f"{number}{suffix}")
    assert quantity.canonical(once) == once


@pytest.mark.parametrize("text", ["", "Gi", "1.2.3", "12 Gi", "x", "1Kb", "-"])
def test_what_is_no_quantity_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity.parse(text)


def test_mebibytes_are_rounded_up() -> None:
    assert quantity.mebibytes("24Gi") == 24576
    assert quantity.mebibytes("1048577") == 2
    assert quantity.parse("80G") / quantity.MIB == Fraction(80 * 10**9, 1048576)


@pytest.mark.parametrize(
    "user",
    [
        None,
        {},
        {"nodeAffinity": None},
        {"nodeAffinity": {}},
        {"nodeAffinity": {REQUIRED: None}},
        {"nodeAffinity": {REQUIRED: {}}},
        {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": None}}},
        {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": []}}},
        {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{}]}}},
    ],
)
def test_a_requirement_is_there_whatever_is_missing_of_the_users_affinity(user: dict[str, Any] | None) -> None:
    terms = {"nodeSelectorTerms": [{"matchExpressions": [H100]}]}
    assert affinity.merged(user, H100_ONLY) == {"nodeAffinity": {REQUIRED: terms}}
    assert affinity.merged(user, affinity.Requirements()) is None


def test_every_alternative_of_the_user_gets_the_requirement_and_the_rest_stays() -> None:
    zone, rack = {"key": "zone", "operator": "Exists"}, {"key": "rack", "operator": "Exists"}
    preferred = [{"weight": 1, "preference": {"matchExpressions": [zone]}}]
    user = {
        "nodeAffinity": {
            REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [zone]}, {"matchFields": [rack]}, {}]},
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
        },
        "podAffinity": {REQUIRED: [{"topologyKey": "zone"}]},
    }
    before = content_hash(user)
    assert affinity.merged(user, H100_ONLY) == {
        "nodeAffinity": {
            REQUIRED: {
                "nodeSelectorTerms": [
                    {"matchExpressions": [zone, H100]},
                    {"matchFields": [rack], "matchExpressions": [H100]},
                ]
            },
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
        },
        "podAffinity": {REQUIRED: [{"topologyKey": "zone"}]},
    }
    assert content_hash(user) == before, "the user's affinity is not changed"


def test_each_alternative_of_the_user_meets_each_of_ours() -> None:
    zones = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in "ab"]
    h200 = {**H100, "values": ["H200"]}
    found = affinity.merged(
        {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": zones}}},
        affinity.Requirements(alternatives=((H100,), (h200,))),
    )
    assert found is not None
    terms = found["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert [(t["matchExpressions"][0]["values"][0], t["matchExpressions"][1]["values"][0]) for t in terms] == [
        ("a", "H100"),
        ("a", "H200"),
        ("b", "H100"),
        ("b", "H200"),
    ]


def test_a_cpu_engine_asks_for_no_gpu_unless_it_is_told_to() -> None:
    cpu = {"device": "cpu"}
    spec = template(engine=cpu, gpu={"products": ["H100"]})["spec"]
    assert "affinity" not in spec
    assert "limits" not in spec["containers"][0]["resources"]
    with_count = template(engine=cpu, gpu={"products": ["H100"], "count": 1})["spec"]
    assert with_count["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"] == [{"matchExpressions": [H100]}]
    assert with_count["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}


def test_a_mig_profile_is_asked_for_by_its_name_in_requests_and_limits() -> None:
    resources = engine(gpu={"resourceName": "nvidia.com/mig-3g.40gb"}, resources={"limits": {"cpu": 4}})["resources"]
    assert resources["requests"] == {"cpu": "2", "memory": "12Gi", "nvidia.com/mig-3g.40gb": "1"}
    assert resources["limits"] == {"cpu": "4", "nvidia.com/mig-3g.40gb": "1"}


@pytest.mark.parametrize(("budget", "failures"), [("30m", 900), ("10s", 5), ("11s", 6), ("24h", 43200)])
def test_the_startup_probe_gives_at_least_the_budget(budget: str, failures: int) -> None:
    probe = engine(startup={"budget": budget})["startupProbe"]
    assert (probe["periodSeconds"], probe["failureThreshold"]) == (2, failures)


def test_the_launcher_says_when_an_engine_has_started_and_the_engine_whether_it_lives() -> None:
    for startup in ({}, {"canary": False}):
        container = engine(startup=startup)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {"http": 8000, "launcher": 8001}
        assert container["startupProbe"]["httpGet"] == {"path": "/started", "port": "launcher"}
        for probe in ("readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}


def test_a_pod_has_time_to_drain_and_to_stop() -> None:
    assert template(rollout={"drainTimeout": "0s"})["spec"]["terminationGracePeriodSeconds"] == pod.STOP_SECONDS
    spec = template(rollout={"drainTimeout": "1h"})["spec"]
    assert spec["terminationGracePeriodSeconds"] == 3600 + pod.STOP_SECONDS
    hook = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert hook == ["python3", "/falcon/launch.pyz", "drain"]


def test_the_users_variables_replace_ours_but_never_the_intent() -> None:
    env = [{"name": "HOME", "value": "/tmp"}, {"name": "EMPTY"}, {"name": "A", "value": "b"}]
    found = variables(engine={"env": [*env, {"name": VARIABLE, "value": "{}"}, {"name": PORT_VARIABLE, "value": "1"}]})
    assert PORT_VARIABLE not in found, "probes and Services know of the intent's port alone"
    assert (found["HOME"], found["EMPTY"], found["A"]) == ("/tmp", "", "b")
    names_of = [v["name"] for v in engine(engine={"env": env})["env"]]
    assert len(names_of) == len(set(names_of)), "server-side apply takes no name twice"
    assert Intent.from_json(found[VARIABLE]).device == "cuda"


def test_the_launcher_reads_the_intent_that_the_operator_writes() -> None:
    source = {"volume": {"claimName": "w", "path": "a/b/"}}
    spec = {"model": {"source": source, "names": ["x", "y"]}, "gpu": {"count": 4}, "rollout": {"drainTimeout": "90s"}}
    intent = Intent.from_json(variables(**spec, image={"reference": "vllm/vllm-openai:v0.33.0"})[VARIABLE])
    assert (intent.source.kind, intent.source.path) == ("volume", "/var/falcon/source/a/b")
    assert (intent.names, intent.tensor_parallel_size, intent.drain_timeout_seconds) == (("x", "y"), 4, 90)
    assert intent.version == "0.33.0"


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.33.0", "0.33.0"),
        ("localhost:5000/team/vllm:0.32.0-cu130", "0.32.0"),
        ("vllm/vllm-openai:v0.33.0@sha256:" + "0" * 64, "0.33.0"),
        ("docker.io/mutazai/falcon-h1r-7b-nvfp4:latest", None),
        ("localhost:5000/team/vllm", None),
        ("team/serving:2026.1.0", None),
        ("team/serving:1.2.3", None),
    ],
)
def test_a_tag_is_taken_for_a_version_where_it_is_one_of_vllm(image: str, version: str | None) -> None:
    assert version_of_tag(image) == version


def test_the_pods_are_restricted_and_know_nothing_of_the_cluster() -> None:
    spec = template()["spec"]
    container = spec["containers"][0]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    env = variables()
    for name, value in env.items():
        if value.startswith("/"):
            assert any(value.startswith(path) for path in writable), f"{name}={value} cannot be written"


def test_both_services_select_the_pods_by_labels_that_never_change() -> None:
    revision = pod.revision_of(template())
    labels = pod.labelled(template(), "demo", UID, revision)["metadata"]["labels"]
    for service in (client_service(OWNER, to_gateway=False), engines_service(OWNER)):
        selector = service["spec"]["selector"]
        assert selector.items() <= labels.items()
        assert names.LABEL_REVISION not in selector
        assert names.LABEL_UID not in selector


def test_a_claim_follows_only_as_far_as_a_claim_can() -> None:
    live: dict[str, dict[str, Any]] = {
        "demo-cache": {"spec": {"resources": {"requests": {"storage": "20Gi"}}, "storageClassName": "fast"}},
        "demo-model": {"spec": {}},
        "stranger": {"spec": {}},
    }
    smaller = Spec.model_validate({"cache": {"size": "10Gi", "storageClassName": "slow"}})
    (claim,) = claims.claims(smaller, OWNER, live)
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    shrink, cls, kept = claims.remarks(smaller, OWNER, live)
    assert "demo-cache stays at 20Gi" in shrink
    assert "cannot change to slow" in cls
    assert "demo-model is kept" in kept
    bigger = Spec.model_validate({"cache": {"size": "30Gi"}})
    assert claims.claims(bigger, OWNER, live)[0]["spec"]["resources"]["requests"]["storage"] == "30Gi"


def test_the_applied_hash_is_of_everything_but_itself() -> None:
    body = {"kind": "X", "metadata": {"name": "a", "annotations": {"b": "c"}}, "spec": {"x": 1}}
    once = stamped(body)
    assert stamped(once) == once
    assert stamped({**body, "spec": {"x": 2}})["metadata"] != once["metadata"]


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 7},
        {"suspend": True},
        {"updatePolicy": "Auto"},
        {"rollout": {"strategy": "Surge"}},
        {"model": {"source": {"baked": {}}}},
    ],
)
def test_what_does_not_touch_the_pods_is_the_same_spec(change: dict[str, Any]) -> None:
    assert spec_hash(Spec.model_validate(change)) == spec_hash(Spec())


@pytest.mark.parametrize(
    "change",
    [
        {"rollout": {"drainTimeout": "1m"}},
        {"engine": {"prefixCaching": False}},
        {"cache": {"size": "1Gi"}},
        {"model": {"source": {"baked": {"path": "/m"}}}},
        {"scheduling": {"tolerations": []}},
    ],
)
def test_what_touches_the_pods_is_another_spec(change: dict[str, Any]) -> None:
    assert spec_hash(Spec.model_validate(change)) != spec_hash(Spec())


def test_growing_a_claim_is_the_same_spec_of_pods() -> None:
    sizes = [Spec.model_validate({"cache": {"size": size}}) for size in ("1Gi", "2Gi")]
    assert len({spec_hash(spec) for spec in sizes}) == 1


def test_differences_are_named_by_the_path_that_a_person_would_say() -> None:
    old = {"spec": {"containers": [{"name": "engine", "env": [{"name": "A", "value": "1"}], "extra": 1}]}}
    new = {"spec": {"containers": [{"name": "engine", "env": [{"name": "A", "value": "2"}, {"name": "B"}]}]}}
    assert differing_paths(old, new) == [
        "spec.containers[engine].env[A].value",
        "spec.containers[engine].env[B]",
    ]
