"""What users are told when a pod finds no place, or the API server does not take an object."""

import pytest
from tests.unit.world import (
    Json,
    World,
    at,
)

UNSCHEDULABLE = (
    "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: "
    "3 No preemption victims found for incoming pod."
)


def unschedulable(pod: Json, message: str = UNSCHEDULABLE) -> None:
    pod["status"]["conditions"] = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": at(11),
        }
    ]


def test_no_node_is_said_in_the_schedulers_words_with_what_was_asked_for() -> None:
    world = World(spec={"gpu": {"products": ["NVIDIA-B200"], "memoryAtLeast": "100Gi"}})
    world.step()
    unschedulable(world.add_pod())
    world.step(seconds=1)
    for kind in ("Ready", "Available", "GPUCompatible"):
        assert world.state(kind) == ("False", "Unschedulable")
        message = world.condition(kind)["message"]
        assert "3 Insufficient nvidia.com/gpu." in message
        assert "preemption" not in message
        assert "1 nvidia.com/gpu, a product of NVIDIA-B200, GPU memory of at least 100Gi" in message
        assert "spec.gpu" in message
    assert world.state("Stalled")[0] == "False", "a node may become free by itself"
    assert [(e.type, e.reason) for e in world.events] == [("Warning", "Unschedulable")]
    world.settle()
    assert len(world.events) == 1
    world.change({})
    world.step()
    world.roll()
    world.answer()
    world.settle()
    assert world.state("Ready") == ("True", "Ready")


def test_a_missing_claim_is_said() -> None:
    world = World(spec={"model": {"source": {"volume": {"claimName": "weights"}}}})
    world.step()
    unschedulable(world.add_pod(), '0/1 nodes are available: persistentvolumeclaim "weights" not found. not found')
    world.step(seconds=1)
    assert 'persistentvolumeclaim "weights" not found' in world.condition("Ready")["message"]
    assert "Create the claim" in world.condition("Ready")["message"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("2 Insufficient nvidia.com/gpu", ("Too few nvidia.com/gpu are free", "spec.gpu.count")),
        ("1 Insufficient nvidia.com/mig-1g.24gb", ("Too few nvidia.com/mig-1g.24gb",)),
        (
            "2 node(s) had untolerated taint {nvidia.com/gpu: present}",
            ("A taint nvidia.com/gpu: present keeps pods away", "spec.scheduling.tolerations"),
        ),
        ("2 node(s) had untolerated taint(s)", ("A taint keeps pods away",)),
        ("1 node(s) had untolerated taint {spot: }", ("A taint spot keeps",)),
        ("2 node(s) didn't match Pod's node affinity/selector", ("spec.gpu.products", "labels")),
        ("2 Insufficient memory", ("Too little memory is free", "spec.resources.requests")),
        ("2 node(s) didn't match pod anti-affinity rules", ("Other pods are in the way",)),
        ("2 node(s) didn't match pod topology spread constraints", ("topologySpreadConstraints",)),
        ("2 node(s) were unschedulable", ("cordoned", "kubectl uncordon")),
        ("2 node(s) had volume node affinity conflict", ("bound to nodes", "spec.cache")),
        ("pod has unbound immediate PersistentVolumeClaims", ("StorageClass",)),
        ("2 cannot allocate all claims", ("spec.gpu.claims",)),
        ("2 Too many pods", ("add a node",)),
        ("no nodes available to schedule pods", ("add one",)),
        ("something that no scheduler says yet", ("spec.gpu, spec.resources or spec.scheduling",)),
        (
            "1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint {a: b}, 1 Insufficient cpu",
            ("Too few nvidia.com/gpu", "A taint a: b", "Too little cpu"),
        ),
    ],
)
def test_each_of_the_schedulers_words_has_its_way_out(message: str, words: tuple[str, ...]) -> None:
    world = World()
    world.step()
    unschedulable(world.add_pod(), f"0/2 nodes are available: {message}.")
    world.step(seconds=1)
    for kind in ("Ready", "Available", "GPUCompatible"):
        assert world.state(kind) == ("False", "Unschedulable")
        assert message in world.condition(kind)["message"]
        for word in words:
            assert word in world.condition(kind)["message"]
    assert [e.reason for e in world.events] == ["Unschedulable"]


@pytest.mark.parametrize(
    ("message", "reason", "stalled", "words"),
    [
        (
            'pods "demo-7b9d-x2x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: 4',
            "Refused",
            "False",
            ("exceeded quota: gpus", "ResourceQuota", "spec.replicas"),
        ),
        (
            'pods "demo-7b9d-x2x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
            "PolicyRefused",
            "True",
            ("PodSecurity", "runAsNonRoot", "spec.security"),
        ),
        ("admission webhook denied the request: no", "Refused", "False", ("denied the request: no",)),
    ],
)
def test_pods_that_may_not_be_created(message: str, reason: str, stalled: str, words: tuple[str, ...]) -> None:
    world = World()
    world.step()
    assert world.deployment is not None
    failed = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    world.deployment["status"] = {"conditions": [failed]}
    world.step()
    assert world.state("Ready") == ("False", reason)
    assert world.state("Available") == ("False", reason)
    assert world.state("Stalled")[0] == stalled
    for word in words:
        assert word in world.condition("Ready")["message"]
    assert "x2x" not in world.condition("Ready")["message"], "the name changes with every attempt"


@pytest.mark.parametrize(
    ("refused", "reason", "words"),
    [
        (
            {"Deployment/demo": "Deployment demo is already there and belongs to somebody else: delete it"},
            "NameTaken",
            ("Deployment demo", "Delete it"),
        ),
        (
            {"Service/demo": 'Apply failed with 1 conflict: conflict with "kubectl" using v1: .spec.selector'},
            "NameTaken",
            ("Service demo", "kubectl"),
        ),
        (
            {"Deployment/demo": 'deployments.apps "demo" is forbidden: User "x" cannot patch'},
            "Refused",
            ("Deployment demo", "Give the operator this right"),
        ),
        (
            {"Deployment/demo": "spec.template.spec.tolerations[0].key: Invalid value", "Service/demo": "no"},
            "Refused",
            ("tolerations[0].key", "Correct the field"),
        ),
        (
            {"PersistentVolumeClaim/demo-cache": 'is forbidden: exceeded quota: disks, requested: "1Ti"'},
            "Refused",
            ("demo-cache", "ResourceQuota"),
        ),
    ],
)
def test_a_child_that_the_api_server_refuses_stalls_with_its_words(
    refused: dict[str, str], reason: str, words: tuple[str, ...]
) -> None:
    world = World(refused=refused)
    world.step()
    assert world.state("Stalled") == ("True", reason)
    assert world.state("Ready") == ("False", reason)
    for word in words:
        assert word in world.condition("Stalled")["message"]
    assert [(e.type, e.reason) for e in world.events] == [("Warning", reason)]
    world.refused = {}
    world.serve()
    assert world.state("Stalled")[0] == "False"
    assert world.state("Ready") == ("True", "Ready")
