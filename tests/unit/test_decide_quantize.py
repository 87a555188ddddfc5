"""A model that is quantized by a Job: pods wait for it, and what runs goes on."""

import copy
from typing import Any

import pytest
from hypothesis import given
from tests.unit.test_decide_properties import PROFILE, admitted, quantized
from tests.unit.world import Json, World, at, container, make_ready, renderer, terminated

from falcon_operator.api import names
from falcon_operator.api.config import OperatorConfig

REPOSITORY = "tiiuae/Falcon-H1R-7B"


def spec(revision: str = "a" * 40, quantize: Json | None = None, **more: Any) -> Json:
    source = {
        "repository": REPOSITORY,
        "revision": revision,
        "cache": {"size": "40Gi"},
        "quantize": {} if quantize is None else quantize,
    }
    return {"model": {"source": {"huggingFace": source}}, **more}


def pod_spec(world: World) -> Json:
    found: Json = world.job()["spec"]["template"]["spec"]
    return found


def ended(world: World, code: int, message: str = "", reason: str = "Error", end: float = 20) -> Json:
    """An attempt that has failed."""
    pod = world.add_quantizer_pod()
    pod["spec"]["nodeName"] = "node-1"
    pod["status"]["phase"] = "Failed"
    container(pod, terminated(code, message, reason, end=end))
    return pod


def running(world: World) -> Json:
    pod = world.add_quantizer_pod()
    pod["spec"]["nodeName"] = "node-1"
    pod["status"]["phase"] = "Running"
    container(pod, {"running": {"startedAt": at(1)}})
    return pod


def events(world: World) -> list[tuple[str, str]]:
    return [(event.reason, event.note) for event in world.events]


def test_the_first_pod_waits_for_the_job_and_reads_what_it_has_made() -> None:
    world = World(spec=spec())
    world.step()
    assert world.deployment is None
    assert ("Deployment", "demo-gateway") in world.objects, "requests can be held meanwhile"
    job = world.job()
    name = job["metadata"]["name"]
    assert job["spec"]["suspend"] is False
    for kind in ("Ready", "Available"):
        assert world.state(kind) == ("False", "Quantizing")
    for kind in ("Progressing", "Reconciling"):
        assert world.state(kind) == ("True", "Quantizing")
    assert world.state("Stalled") == ("False", "NotStalled")
    assert f"Job {name}, which quantizes {REPOSITORY} before pods start, is about to start." in events(world)[0][1]
    running(world)
    world.step()
    said = world.condition("Progressing")["message"]
    assert said == f"Job {name}, which quantizes {REPOSITORY} before pods start, runs since {at(10)}."
    status, told = world.status, len(world.events)
    assert world.step(3600).status == status, "nothing is written while it runs"
    assert len(world.events) == told
    world.quantizer_pods[0]["status"]["phase"] = "Succeeded"
    container(world.quantizer_pods[0], terminated(0, reason="Completed"))
    world.end_job()
    world.step()
    assert world.deployment is not None
    assert ("Quantized", f"Job {name} has quantized {REPOSITORY}.") in events(world)
    intent = next(v["value"] for v in world.engine()["env"] if v["name"] == "FALCON_INTENT")
    out = pod_spec(world)["containers"][0]["command"]
    assert f'"path":"{out[out.index("--out") + 1]}"' in intent
    assert "HF_TOKEN" not in {v["name"] for v in world.engine()["env"]}
    world.serve()
    assert world.state("Ready") == ("True", "Ready")
    assert world.job()["metadata"]["name"] == name, "it stays as the record"


def test_a_job_that_could_not_stalls_the_resource_with_its_own_sentence_and_a_new_spec_starts_a_new_one() -> None:
    world = World(spec=spec())
    world.step()
    first = world.job()["metadata"]["name"]
    ended(world, 1, "some log\nThe Hub cannot be reached: try again later")
    world.step()
    assert world.state("Stalled") == ("False", "NotStalled")
    assert world.status["lastFailure"]["reason"] == "QuantizeFailed"
    second = running(world)
    world.step()
    assert (
        "Its last attempt failed, and it tries again: The Hub cannot be reached"
        in (world.condition("Progressing")["message"])
    )
    second["status"]["phase"] = "Failed"
    container(second, terminated(1, "Again.", end=60))
    ended(world, 2, "There is no space left: enlarge the volume.", end=90)
    world.end_job("Failed", reason="PodFailurePolicy", message="Container quantize failed with exit code 2")
    world.settle()
    for kind in ("Ready", "Available", "Progressing", "Reconciling"):
        assert world.state(kind) == ("False", "QuantizeFailed")
    assert world.state("Stalled") == ("True", "QuantizeFailed")
    assert "There is no space left: enlarge the volume." in world.condition("Stalled")["message"]
    failure = world.status["lastFailure"]
    assert (failure["pod"], failure["exitCode"]) == (f"{first}-3", 2)
    assert first in failure["hint"]
    assert [reason for reason, _ in events(world)].count("QuantizeFailed") == 2, "one for each attempt that failed"
    world.change(spec("b" * 40))
    world.step()
    assert world.job()["metadata"]["name"] != first
    assert world.state("Stalled") == ("False", "NotStalled")
    world.serve()
    assert world.state("Ready") == ("True", "Ready")


def test_the_old_revision_serves_and_is_scaled_until_the_new_model_is_there() -> None:
    world = World(spec=spec()).serve()
    before, old = world.template(), world.job()["metadata"]["name"]
    world.change(spec("b" * 40, replicas=2))
    world.settle()
    assert world.template() == before
    assert world.deployment is not None
    assert world.deployment["spec"]["replicas"] == 2
    assert world.job()["metadata"]["name"] != old, "the old Job has no more to say"
    assert world.state("Available") == ("True", "MinimumReplicasAvailable")
    assert world.state("Ready") == ("False", "Quantizing")
    assert world.state("UpToDate") == ("False", "Quantizing")
    assert "Until then requests go to 1 pod of revision" in world.condition("Progressing")["message"]
    assert not any("are replaced by" in note for _, note in events(world)), "nothing is replaced yet"
    world.end_job("Failed", reason="DeadlineExceeded", message="x")
    world.settle()
    assert world.template() == before
    assert world.state("Stalled") == ("True", "QuantizeFailed")
    assert "It did not end within 12 hours." in world.condition("Stalled")["message"]
    assert world.state("Available")[0] == "True"
    world.end_job()
    world.step()
    assert world.template() != before
    assert any("are replaced by" in note for _, note in events(world))
    world.serve()
    assert world.state("Ready") == ("True", "Ready")


def test_back_to_the_model_that_runs_waits_for_nothing() -> None:
    world = World(spec=spec()).serve()
    world.change(spec("b" * 40))
    world.settle()
    world.change(spec())
    world.step()
    assert world.state("Ready") == ("True", "Ready")
    assert world.of_kind("Job"), "and is on record again"


def test_a_suspended_resource_has_a_suspended_job() -> None:
    world = World(spec=spec(suspend=True))
    world.step()
    name = world.job()["metadata"]["name"]
    assert world.job()["spec"]["suspend"] is True
    assert world.deployment is None
    assert world.state("Ready") == ("False", "Suspended")
    assert world.state("Reconciling") == ("False", "Reconciled")
    world.change(spec())
    world.step()
    assert world.job()["metadata"]["name"] == name
    assert world.job()["spec"]["suspend"] is False
    assert world.state("Ready") == ("False", "Quantizing")


def test_what_a_job_has_made_is_not_made_again_by_another_image() -> None:
    world = World(spec=spec()).serve()
    name, template = world.job()["metadata"]["name"], world.template()
    world.renderer = renderer(config=OperatorConfig(quantizer_image="registry.example.com/quantizer:2"))
    world.settle()
    world.change(spec(quantize={"device": "cuda", "resources": {"requests": {"cpu": 16}}}))
    world.settle()
    assert world.job()["metadata"]["name"] == name
    assert world.template() == template
    world.change(spec(quantize={"kvScales": "Calibrated"}))
    world.step()
    assert world.job()["metadata"]["name"] != name
    assert world.state("Ready") == ("False", "Quantizing")


def test_a_job_that_runs_is_replaced_by_what_another_spec_makes_of_it() -> None:
    world = World(spec=spec())
    world.step()
    running(world)
    first = world.job()["metadata"]["name"]
    world.change(spec(quantize={"image": "registry.example.com/quantizer:2"}))
    world.step()
    assert world.job()["metadata"]["name"] != first
    assert not world.quantizer_pods


def test_without_quantize_the_jobs_go() -> None:
    world = World(spec=spec()).serve()
    other = spec()
    del other["model"]["source"]["huggingFace"]["quantize"]
    world.change(other)
    world.settle()
    assert not world.of_kind("Job")
    assert "HF_HOME" in {v["name"] for v in world.engine()["env"]}


def test_a_job_that_somebody_deletes_comes_back_and_the_engines_do_not_notice() -> None:
    world = World(spec=spec()).serve()
    name = world.job()["metadata"]["name"]
    del world.objects["Job", name]
    world.settle()
    assert world.job()["metadata"]["name"] == name
    assert world.state("Ready") == ("True", "Ready")


def test_a_pod_without_a_node_says_what_it_asks_for() -> None:
    world = World(spec=spec(quantize={"device": "cuda"}, gpu={"resourceName": "nvidia.com/mig-1g.24gb"}))
    world.step()
    assert pod_spec(world)["containers"][0]["resources"]["limits"] == {"nvidia.com/mig-1g.24gb": "1"}
    pod = world.add_quantizer_pod()
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 Insufficient memory."}
    pod["status"]["conditions"] = [said]
    world.step()
    message = world.condition("Ready")["message"]
    assert "finds no node: 0/3 Insufficient memory. A pod asks for 1 nvidia.com/mig-1g.24gb, 2 CPU, 12Gi" in message
    assert "lower spec.model.source.huggingFace.quantize.resources.requests" in message


@pytest.mark.parametrize(
    ("words", "status"), [("manifest unknown: not found", "True"), ("connection refused", "False")]
)
def test_an_image_that_cannot_be_pulled_names_the_field(words: str, status: str) -> None:
    world = World(spec=spec())
    world.step()
    pod = world.add_quantizer_pod()
    pod["spec"]["nodeName"] = "node-1"
    container(pod, {"waiting": {"reason": "ErrImagePull", "message": words}})
    world.step()
    assert world.state("Stalled")[0] == status
    assert world.state("Ready") == ("False", "ImagePullFailed")
    assert "spec.model.source.huggingFace.quantize.image" in world.condition("Ready")["message"]
    saw = world.status
    container(pod, {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}})
    assert world.step().status == saw, "another wording of the same is no news"


def test_one_that_was_killed_for_its_memory_or_evicted() -> None:
    world = World(spec=spec())
    world.step()
    ended(world, 137, reason="OOMKilled")
    world.step()
    assert "ended for its memory" in world.status["lastFailure"]["message"]
    assert "resources" in world.status["lastFailure"]["hint"]
    pod = world.add_quantizer_pod()
    pod["status"] |= {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on memory.",
        "startTime": at(90),
    }
    world.step()
    assert world.state("Stalled") == ("False", "NotStalled")


def test_a_job_whose_pod_nobody_lets_be_made_says_where_to_look() -> None:
    world = World(spec=spec())
    world.step()
    world.job()["status"] = {"startTime": at(5)}
    world.step()
    assert "`kubectl describe job demo-q-" in world.condition("Ready")["message"]


def test_pods_of_an_earlier_job_say_nothing() -> None:
    world = World(spec=spec())
    world.step()
    ended(world, 2, "It is no BF16.")["metadata"]["ownerReferences"][0]["uid"] = "another"
    world.step()
    assert "lastFailure" not in world.status


def test_the_job_runs_where_engines_may_run_and_reaches_the_hub_as_they_would() -> None:
    env = [
        {"name": "HF_ENDPOINT", "value": "https://hub.example.com"},
        {"name": "https_proxy", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}},
        {"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"},
    ]
    scheduling = {
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
                ]
            }
        },
    }
    world = World(spec=spec(engine={"env": env}, scheduling=scheduling))
    world.step()
    pod = pod_spec(world)
    assert {v["name"] for v in pod["containers"][0]["env"]} >= {"HF_ENDPOINT", "https_proxy", "HF_HOME"}
    assert "VLLM_LOGGING_LEVEL" not in {v["name"] for v in pod["containers"][0]["env"]}
    assert pod["nodeSelector"] == {"zone": "a"}
    assert "podAntiAffinity" not in pod["affinity"], "it is meant for engines"
    assert pod["automountServiceAccountToken"] is False
    assert pod["restartPolicy"] == "Never"
    assert names.LABEL_COMPONENT in world.job()["spec"]["template"]["metadata"]["labels"]
    labels = world.job()["spec"]["template"]["metadata"]["labels"]
    assert not names.selector_labels("demo").items() <= labels.items(), "no Service leads to it"


def test_devices_that_are_claimed_are_claimed_for_the_job_too() -> None:
    gpu = {"claims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]}
    world = World(spec=spec(quantize={"device": "cuda"}, gpu=gpu))
    world.step()
    assert pod_spec(world)["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    assert pod_spec(world)["containers"][0]["resources"]["claims"] == [{"name": "gpu"}]
    world = World(spec=spec(gpu=gpu))
    world.step()
    assert "resourceClaims" not in pod_spec(world)


def test_the_names_of_jobs_fit_a_label() -> None:
    assert len(names.quantize_job_name("x" * names.MAX_NAME_LENGTH, "0" * 64)) <= 63


def test_nothing_is_scaled_before_the_first_pod() -> None:
    world = World(spec=spec(autoscaling={"minReplicas": 0, "maxReplicas": 4}))
    assert world.step().autoscale is None
    assert world.condition("AutoscalingActive")["status"] == "Unknown"
    world.serve()
    assert world.plan().autoscale is not None
    make_ready(world.pods[0], world.now)


@PROFILE
@given(admitted, quantized, quantized)
def test_no_pod_of_a_model_is_asked_for_before_it_is_quantized(
    spec: dict[str, Any], one: dict[str, Any], other: dict[str, Any]
) -> None:
    model = spec.get("model", {})
    world = World(spec={**spec, "model": {**model, "source": one}})
    world.settle()
    assert world.deployment is None
    world.serve()
    assert world.deployment is not None
    before = copy.deepcopy(world.template())
    world.change({**spec, "model": {**model, "source": other}})
    world.settle()
    waits = not any(c["type"] == "Complete" for c in world.job().get("status", {}).get("conditions", ()))
    assert (world.template() == before) >= waits
    world.serve()
    assert world.job()["metadata"]["annotations"][names.ANNOTATION_QUANTIZED].rpartition(":")[2] in str(
        world.template()
    )
