"""The examples for an HPA and for KEDA say what the documentation calls safe."""

from typing import Any

import pytest
import yaml
from tests.unit.charts import ROOT, Json

from falcon_operator.api.names import API_VERSION, KIND
from falcon_operator.api.spec import Spec

EXAMPLES = ROOT / "examples/autoscaling"


def documents(name: str) -> tuple[Json, Json]:
    """The resource and what scales it."""
    resource, scaler = yaml.safe_load_all((EXAMPLES / f"{name}.yaml").read_text())
    return resource, scaler


def behavior(scaler: Json) -> Any:
    spec = scaler["spec"]
    return spec["behavior"] if "behavior" in spec else spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]


@pytest.mark.parametrize("name", ["hpa", "keda"])
def test_the_scaler_means_the_resource_and_nobody_else_sets_its_replicas(name: str) -> None:
    resource, scaler = documents(name)
    target = scaler["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": API_VERSION, "kind": KIND, "name": resource["metadata"]["name"]}
    assert resource["spec"]["autoscaling"]["mode"] == "External"
    assert "replicas" not in resource["spec"]


@pytest.mark.parametrize("name", ["hpa", "keda"])
def test_it_is_quick_upwards_and_patient_downwards(name: str) -> None:
    _, scaler = documents(name)
    found = behavior(scaler)
    most = scaler["spec"].get("maxReplicas") or scaler["spec"]["maxReplicaCount"]
    assert found["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert found["scaleUp"]["policies"] == [{"type": "Pods", "value": most, "periodSeconds": 15}]
    assert found["scaleDown"]["stabilizationWindowSeconds"] >= 600
    assert found["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 120}]


def test_the_target_is_a_share_of_what_an_engine_takes() -> None:
    most = Spec().engine.max_num_seqs
    [metric] = documents("hpa")[1]["spec"]["metrics"]
    [trigger] = documents("keda")[1]["spec"]["triggers"]
    assert metric["external"]["target"]["type"] == trigger["metricType"] == "AverageValue"
    for target in (metric["external"]["target"]["averageValue"], trigger["metadata"]["threshold"]):
        assert 0.6 * most <= int(target) <= 0.7 * most


def test_what_keda_cannot_read_is_not_zero() -> None:
    spec = documents("keda")[1]["spec"]
    [trigger] = spec["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"}
