"""What users are told when something fails: cause and way out, at once, and no more often than it happens."""

from typing import Any

import pytest
from tests.unit.broken import IMAGE, NOT_FOUND, Break, crashed, waiting
from tests.unit.world import (
    World,
    at,
    container,
    diagnosis,
    schedule,
    terminated,
)

from falcon_operator.api.status import Status

CASES: list[Any] = [
    pytest.param(
        IMAGE,
        waiting("ErrImagePull", NOT_FOUND),
        "ImagePullFailed",
        True,
        ("registry.example.com/no:1", "not found", "Correct spec.image.reference"),
        id="image-not-found",
    ),
    pytest.param(
        IMAGE,
        waiting("ImagePullBackOff", f'Back-off pulling image "registry.example.com/no:1": ErrImagePull: {NOT_FOUND}'),
        "ImagePullFailed",
        True,
        ("registry.example.com/no:1", "not found", "Correct spec.image.reference"),
        id="image-back-off",
    ),
    pytest.param(
        IMAGE,
        waiting("ErrImagePull", "pull access denied, repository does not exist or may require authorization"),
        "ImagePullFailed",
        True,
        ("access denied", "spec.image.pullSecrets"),
        id="image-credentials",
    ),
    pytest.param(
        IMAGE,
        waiting("ErrImagePull", "dial tcp 10.0.0.1:443: i/o timeout"),
        "ImagePullFailed",
        False,
        ("i/o timeout", "the kubelet keeps trying"),
        id="registry-down",
    ),
    pytest.param(
        {"image": {"reference": "localhost/x:1", "pullPolicy": "Never"}},
        waiting("ErrImageNeverPull", 'Container image "localhost/x:1" is not present with pull policy of Never'),
        "ImagePullFailed",
        True,
        ("localhost/x:1", "node-1", "IfNotPresent"),
        id="image-never-pulled",
    ),
    pytest.param(
        {"image": {"reference": "bad//ref"}},
        waiting("InvalidImageName", 'Failed to apply default image tag "bad//ref": invalid reference format'),
        "ImagePullFailed",
        True,
        ("bad//ref is not a valid reference", "spec.image.reference"),
        id="image-name",
    ),
    pytest.param(
        {"model": {"source": {"oci": {"reference": "registry.example.com/weights:1"}}}},
        waiting("ImagePullBackOff", 'Back-off pulling image "registry.example.com/weights:1": not found'),
        "ImagePullFailed",
        True,
        ("registry.example.com/weights:1", "spec.model.source.oci.reference"),
        id="weights-as-image",
    ),
    pytest.param(
        {},
        waiting("CreateContainerConfigError", 'secret "hub" not found'),
        "ContainerCannotStart",
        False,
        ('secret "hub" not found', "Create the Secret"),
        id="secret",
    ),
    pytest.param(
        {},
        waiting("CreateContainerError", "container has runAsNonRoot and image will run as root"),
        "ContainerCannotStart",
        False,
        ("run as root", "spec.security.runAsUser"),
        id="root-image",
    ),
    pytest.param(
        {},
        crashed(0, diagnosis("StartInterrupted", "told to stop", "raise it", 0), end=61),
        "StartInterrupted",
        False,
        ("told to stop.", "raise it."),
        id="stopped-long-before-its-budget",
    ),
    pytest.param(
        {},
        crashed(0, ""),
        "EngineDied",
        False,
        ("stopped by the kubelet", "probe", "kubectl describe pod"),
        id="liveness",
    ),
    pytest.param(
        {"image": {"reference": "debian:12"}},
        crashed(128, 'exec: "python3": executable file not found in $PATH: unknown', reason="StartError"),
        "ContainerCannotStart",
        True,
        ("executable file not found", "python3"),
        id="no-python",
    ),
    pytest.param(
        {"model": {"source": {"baked": {"path": "/models/nowhere"}}}},
        crashed(2, diagnosis("CheckpointNotFound", "There is no checkpoint in /models/nowhere", "Correct path.", 2)),
        "CheckpointNotFound",
        True,
        ("/models/nowhere", "Correct path."),
        id="model-path",
    ),
    pytest.param(
        {"engine": {"extraArgs": ["--max-num-sequences=4"]}},
        crashed(2, diagnosis("FlagUnknown", "no flag --max-num-sequences", "Did you mean --max-num-seqs?", 2)),
        "FlagUnknown",
        True,
        ("--max-num-sequences", "--max-num-seqs"),
        id="flag",
    ),
    pytest.param(
        {},
        crashed(2, "python3: can't open file '/falcon/launch.pyz': [Errno 2] No such file"),
        "EngineFailed",
        True,
        ("exit code 2", "can't open file", "kubectl logs --previous"),
        id="no-launcher",
    ),
    pytest.param(
        {},
        crashed(1, diagnosis("OutOfMemory", "CUDA out of memory", "Lower spec.engine.gpuMemoryUtilization.", 1)),
        "OutOfMemory",
        False,
        ("CUDA out of memory", "spec.engine.gpuMemoryUtilization"),
        id="gpu-memory",
    ),
    pytest.param(
        {"engine": {"maxNumSeqs": 999}},
        crashed(1, diagnosis("SequencesExceedMemory", "999 exceeds 250 blocks", "Set maxNumSeqs to 250.", 1)),
        "SequencesExceedMemory",
        True,
        ("999", "250"),
        id="sequences",
    ),
    pytest.param(
        {"resources": {"limits": {"memory": "16Gi"}}},
        crashed(137, "", reason="OOMKilled"),
        "OutOfMemory",
        False,
        ("its limit of 16Gi", "spec.resources.limits.memory"),
        id="host-memory",
    ),
    pytest.param(
        {},
        crashed(137, "INFO serving"),
        "EngineDied",
        False,
        ("SIGKILL", "INFO serving", "starts it again"),
        id="killed",
    ),
    pytest.param(
        {},
        crashed(70, diagnosis("EngineDied", "The engine core was killed", "It restarts.", 70)),
        "EngineDied",
        False,
        ("The engine core was killed.", "It restarts."),
        id="engine-died",
    ),
    pytest.param(
        {"startup": {"budget": "1m"}},
        crashed(0, diagnosis("StartInterrupted", "told to stop", "raise it", 0), begin=0, end=61),
        "StartupBudgetExceeded",
        False,
        ("60 s", "spec.startup.budget", "spec.cache"),
        id="startup-budget",
    ),
    pytest.param(
        {},
        crashed(1, diagnosis("SomethingNew", "a later launcher knows it", "do it", 1)),
        "EngineFailed",
        False,
        ("a later launcher knows it.", "do it."),
        id="reason-of-a-later-launcher",
    ),
    pytest.param(
        {},
        crashed(1, "Traceback\nValueError: no idea\n"),
        "EngineFailed",
        False,
        ("exit code 1", "ValueError: no idea", "kubectl logs --previous"),
        id="no-diagnosis",
    ),
]


@pytest.mark.parametrize(("spec", "break_pod", "reason", "final", "words"), CASES)
def test_a_failure_is_named_with_its_way_out(
    spec: dict[str, Any], break_pod: Break, reason: str, final: bool, words: tuple[str, ...]
) -> None:
    world = World(spec=spec)
    world.step()
    break_pod(world.add_pod())
    world.step(seconds=1)
    for kind in ("Ready", "Available"):
        assert world.state(kind) == ("False", reason)
        for word in words:
            assert word in world.condition(kind)["message"]
    assert world.state("Stalled") == (("True", reason) if final else ("False", "NotStalled"))
    assert world.state("Reconciling")[0] == ("False" if final else "True")
    failure = world.status["lastFailure"]
    assert (failure["reason"], failure["pod"]) == (reason, "demo-1")
    assert failure["hint"]
    assert [(e.type, e.reason) for e in world.events] == [("Warning", reason)], "one event, not one a condition"
    for word in words:
        assert word in world.events[0].note
    Status.model_validate(world.status)
    before = world.status
    world.settle()
    assert world.status == before
    assert len(world.events) == 1


def test_a_new_pod_that_fails_for_good_holds_the_rollout_and_the_old_ones_serve() -> None:
    world = World(spec={"replicas": 2}).serve()
    world.change({"replicas": 2, "engine": {"extraArgs": ["--nope"]}})
    world.step()
    world.pods.pop()
    pod = world.add_pod()
    crashed(2, diagnosis("FlagUnknown", "no flag --nope", "Remove it.", 2))(pod)
    world.settle()
    assert world.state("Ready") == ("False", "FlagUnknown")
    assert world.state("Available")[0] == "True"
    for kind, status in (("Stalled", "True"), ("Progressing", "False"), ("Reconciling", "False")):
        assert world.state(kind) == (status, "FlagUnknown")
    for word in ("--nope", "The rollout is held, with 1 pod of earlier revisions kept."):
        assert word in world.condition("Stalled")["message"]


def test_one_more_pod_that_fails_beside_others_of_its_revision_does_not_stall() -> None:
    world = World(spec={"replicas": 1}).serve()
    world.change({"replicas": 2})
    world.step()
    crashed(2, diagnosis("FlagUnknown", "no flag --nope", "Remove it.", 2))(world.add_pod())
    world.settle()
    assert world.state("Ready") == ("False", "FlagUnknown")
    assert world.state("Stalled")[0] == "False"


def test_leaving_pods_have_no_failures() -> None:
    world = World().serve()
    pod = world.pods[0]
    pod["metadata"]["deletionTimestamp"] = at(50)
    container(pod, terminated(137, "killed at the end of its grace", end=400))
    world.settle()
    assert "lastFailure" not in world.status


def test_pods_of_a_lost_node_and_many_pods_are_said_briefly() -> None:
    world = World(spec={"replicas": 6}).serve()
    for pod in world.pods:
        ready = next(c for c in pod["status"]["conditions"] if c["type"] == "Ready")
        ready |= {"status": "False", "reason": "NodeNotReady"}
    world.settle()
    message = world.condition("Ready")["message"]
    assert message.count("which does not report any more") == 3
    assert "3 more are not ready" in message


def test_a_rollout_that_takes_too_long_is_said() -> None:
    world = World()
    world.step()
    schedule(world.add_pod(), at(0))
    assert world.deployment is not None
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    world.deployment["status"] = {"conditions": [late]}
    world.step()
    assert world.state("Progressing") == ("False", "RolloutStalled")
    assert "spec.startup.budget" in world.condition("Progressing")["message"]


def test_the_version_of_an_engine_that_failed_is_known() -> None:
    world = World()
    world.step()
    crashed(1, diagnosis("EngineStartFailed", "no", "look", 1, version="0.26.0"))(world.add_pod())
    world.step(seconds=1)
    assert world.state("EngineSupported") == ("True", "ProfileFound")
    assert world.state("Fits") == ("Unknown", "NotEvaluated")


@pytest.mark.parametrize("reason", ["OutOfMemory", "SequencesExceedMemory"])
def test_what_does_not_fit_is_said_by_fits(reason: str) -> None:
    world = World()
    world.step()
    crashed(1, diagnosis(reason, "too much", "less", 1))(world.add_pod())
    world.step(seconds=1)
    assert world.state("Fits") == ("False", reason)
