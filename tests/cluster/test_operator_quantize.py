"""A model that is quantized before it is served: the real Job controller, and pods that kwok or a test itself plays."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.conftest import Start
from tests.cluster.kubeapi import MERGE
from tests.cluster.test_operator_lifecycle import intent, nothing_left
from tests.cluster.world import QUIET_SECONDS, RESOURCES, AuditLog, Json, World, steady, wait_for, wait_quiet

from falcon_operator.api import names

pytestmark = pytest.mark.cluster

VOLUMES = "/api/v1/persistentvolumes"
# More than any node has: such a pod finds none, so kwok leaves it alone, and the test is its kubelet.
NO_NODE: Json = {"resources": {"requests": {"cpu": "100k"}}}


@pytest.fixture(autouse=True)
def claim(world: World) -> Iterator[None]:
    """A claim with a volume: there is no storage class that would make one."""
    size = {"storage": "40Gi"}
    name = f"weights-{world.namespace}"
    volume = {
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteMany"], "capacity": size, "hostPath": {"path": "/nowhere"}},
    }
    world.client.post(VOLUMES, json=volume).raise_for_status()
    asked = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": size},
        "volumeName": name,
        "storageClassName": "",
    }
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "weights"}, "spec": asked}
    world.create(claim)
    yield
    world.client.delete(f"{VOLUMES}/{name}").raise_for_status()


def spec(revision: str = "a", quantize: Json | None = None, **more: Any) -> Json:
    source = {
        "repository": "tiiuae/Falcon-H1R-7B",
        "revision": revision * 40,
        "cache": {"claimName": "weights"},
        "quantize": quantize or {},
    }
    return {"model": {"source": {"huggingFace": source}}, **more}


def jobs(world: World) -> list[Json]:
    return world.all("Job")


def the_job(world: World) -> Json:
    (found,) = wait_for(lambda: jobs(world), "Job")
    return found


def its_pod(world: World, after: int = 0) -> Json:
    """The newest pod of the Job, once it has made more than so many."""
    params = {"labelSelector": f"{names.LABEL_COMPONENT}={names.COMPONENT_QUANTIZER}"}

    def pods() -> list[Json]:
        path = RESOURCES["Pod"].path(world.namespace)
        items: list[Json] = world.client.get(path, params=params).raise_for_status().json()["items"]
        return sorted(items, key=lambda pod: pod["metadata"]["creationTimestamp"])

    found = wait_for(lambda: pods() if len(pods()) > after else None, "pod of the Job", 60)
    return next(pod for pod in reversed(found) if pod["status"]["phase"] == "Pending")


def end(world: World, pod: Json, code: int, message: str = "") -> None:
    """What the kubelet says of a container that has ended."""
    moment = "2026-05-01T12:00:00Z"
    ended = {"exitCode": code, "reason": "Error" if code else "Completed", "message": message}
    state = {"terminated": {**ended, "startedAt": moment, "finishedAt": moment}}
    container = {"name": "quantize", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container]}
    world.merge("Pod", pod["metadata"]["name"], {"status": status}, "status")


def event(world: World, reason: str) -> bool:
    return any(e["reason"] == reason for e in world.all("Event") if e["involvedObject"]["kind"] == names.KIND)


def test_the_model_is_quantized_before_it_is_served_and_a_restart_writes_nothing(
    world: World, start: Start, audit: AuditLog
) -> None:
    restricted = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    path = f"/api/v1/namespaces/{world.namespace}"
    world.client.patch(path, json=restricted, headers={"Content-Type": MERGE}).raise_for_status()
    first = start()
    world.resource("web", spec())
    world.settled("web")
    job = the_job(world)
    assert job["status"]["succeeded"] == 1
    deployment = world.get("Deployment", "web") or {}
    assert deployment["metadata"]["creationTimestamp"] >= job["status"]["completionTime"]
    out = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert f'"path":"{out[out.index("--out") + 1]}"' in intent(world)
    wait_for(lambda: event(world, "Quantizing") and event(world, "Quantized"), "events")
    before = wait_quiet(audit.writes, QUIET_SECONDS)
    assert [w for w in before if "jobs/" in w] == [f"patch jobs/{job['metadata']['name']} 201"]
    first.kill()
    again = start()
    wait_for(lambda: again.metric("controller_runtime_reconcile_total", result="success") >= 1, "a reconciliation")
    steady(audit.writes, 4)
    assert audit.writes() == before


def test_a_restart_during_the_job_writes_nothing_and_its_end_is_seen(
    world: World, start: Start, audit: AuditLog
) -> None:
    first = start()
    world.resource("web", spec(quantize=NO_NODE))
    pod = its_pod(world)

    def waits() -> Any:
        return world.condition("web", "Progressing")

    wait_for(lambda: "finds no node" in waits().get("message", ""), "the scheduler's words", 60, waits)
    assert world.condition("web", "Available")["reason"] == "Quantizing"
    assert world.get("Deployment", "web") is None
    before = wait_quiet(audit.writes, QUIET_SECONDS)
    first.kill()
    again = start()
    wait_for(lambda: again.metric("controller_runtime_reconcile_total", result="success") >= 1, "a reconciliation")
    steady(audit.writes, 4)
    assert audit.writes() == before
    assert world.get("Deployment", "web") is None
    end(world, pod, 0)
    world.wait_ready("web")


def test_a_failure_is_told_and_another_spec_is_another_try(world: World, start: Start, audit: AuditLog) -> None:
    start()
    world.resource("web", spec(quantize=NO_NODE))
    first = the_job(world)["metadata"]["name"]
    end(world, its_pod(world), 1, "The Hub cannot be reached for tiiuae/Falcon-H1R-7B. Try again later.")
    second = its_pod(world, after=1)  # the Job controller's next attempt

    def failure() -> Any:
        return ((world.get(names.KIND, "web") or {}).get("status") or {}).get("lastFailure") or {}

    wait_for(lambda: "cannot be reached" in failure().get("message", ""), "the first failure", 30, failure)
    assert world.condition("web", "Stalled")["status"] == "False"
    end(world, second, 2, "/var/falcon/model has 3.0 GiB free, and 20.0 are needed: enlarge the volume.")

    def stalled() -> Any:
        return world.condition("web", "Stalled")

    wait_for(lambda: stalled().get("reason") == "QuantizeFailed", "Stalled", 60, stalled)
    # What the pod said may be told of a moment after what the Job says.
    wait_for(lambda: "3.0 GiB free, and 20.0 are needed" in stalled()["message"], "its last words", 30, stalled)
    assert (failure()["reason"], failure()["exitCode"]) == ("QuantizeFailed", 2)
    assert world.condition("web", "Available")["reason"] == "QuantizeFailed"
    wait_for(lambda: event(world, "QuantizeFailed"), "event")
    quiet = wait_quiet(audit.writes, QUIET_SECONDS)
    assert len([w for w in quiet if "jobs/" in w]) == 1, "a Job that was given up is left alone"
    world.resource("web", spec())
    world.wait_ready("web")
    assert the_job(world)["metadata"]["name"] != first, "the one that failed is gone"
    assert world.condition("web", "Stalled")["status"] == "False"


def test_a_job_that_is_deleted_is_made_again(world: World, start: Start) -> None:
    start()
    world.resource("web", spec(quantize=NO_NODE))
    job = the_job(world)
    end(world, its_pod(world), 2, "It is no BF16.")
    wait_for(lambda: world.condition("web", "Stalled").get("status") == "True", "Stalled", 60)
    world.delete("Job", job["metadata"]["name"], propagationPolicy="Background")
    wait_for(
        lambda: [j["metadata"]["uid"] for j in jobs(world)] not in ([], [job["metadata"]["uid"]]), "another Job", 60
    )
    wait_for(lambda: world.condition("web", "Stalled").get("status") == "False", "another try", 60)


def test_what_serves_goes_on_until_the_new_model_is_there(world: World, start: Start) -> None:
    start()
    world.resource("web", spec())
    world.settled("web")
    old, job = world.get("Deployment", "web") or {}, the_job(world)["metadata"]["name"]
    engines = {"labelSelector": names.selector_string("web")}

    def serving() -> set[str]:
        path = RESOURCES["Pod"].path(world.namespace)
        items = world.client.get(path, params=engines).raise_for_status().json()["items"]
        return {pod["metadata"]["uid"] for pod in items}

    before = serving()
    world.resource("web", spec("b", NO_NODE, replicas=2))
    wait_for(lambda: world.condition("web", "Progressing").get("reason") == "Quantizing", "Quantizing", 30)
    wait_for(lambda: [j["metadata"]["name"] for j in jobs(world)] not in ([], [job]), "only the new Job", 30)
    wait_for(lambda: len(serving()) == 2, "a second engine of the old revision", 30)
    assert before <= serving()
    assert world.condition("web", "Available")["status"] == "True"
    held = world.get("Deployment", "web") or {}
    assert held["spec"]["template"] == old["spec"]["template"]
    end(world, its_pod(world), 0)
    wait_for(lambda: not before & serving(), "the rollout", 90)
    world.wait_ready("web")


def test_a_suspended_resource_starts_no_job_and_a_deleted_one_leaves_none(world: World, start: Start) -> None:
    start()
    world.resource("web", spec(quantize=NO_NODE, suspend=True))
    job = the_job(world)
    wait_for(lambda: world.condition("web", "Ready").get("reason") == "Suspended", "Suspended", 30)
    assert steady(lambda: the_job(world).get("status", {}).get("active"), 3) is None
    world.merge(names.KIND, "web", {"spec": {"suspend": False}})
    its_pod(world)
    assert the_job(world)["metadata"]["uid"] == job["metadata"]["uid"]
    world.delete(names.KIND, "web")
    wait_for(lambda: nothing_left(world), "end of its children", 90)
    wait_for(lambda: not world.all("Pod"), "end of the Job's pod", 90)
