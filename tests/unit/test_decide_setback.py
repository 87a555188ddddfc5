"""A revision that does not come to serve: with RollBack the last good one comes back, and the spec says so."""

from tests.unit.world import Json, World, at, crash_loop, diagnosis, schedule, terminated

from falcon_operator.api import names
from falcon_operator.api.status import Status

FLAG = ["--nope"]
GOOD: Json = {"rollout": {"onFailure": "RollBack"}}
BAD: Json = {**GOOD, "engine": {"extraArgs": FLAG}}


def revision(world: World) -> str:
    found: str = world.template()["metadata"]["labels"][names.LABEL_REVISION]
    return found


def controller_says(world: World, reason: str, status: str = "True") -> None:
    """What the Deployment's controller says of the template that it has now."""
    assert world.deployment is not None
    world.deployment["metadata"]["generation"] = 7
    condition = {"type": "Progressing", "status": status, "reason": reason}
    world.deployment["status"] = {"observedGeneration": 7, "conditions": [condition]}


def fail(world: World, final: bool = True) -> None:
    """The one pod is replaced by one of the new template, which fails."""
    world.pods.clear()
    pod = world.add_pod()
    schedule(pod, at(10))
    told = diagnosis("FlagUnknown", "no flag --nope", "Remove it.", 2) if final else "Traceback\nValueError: no idea\n"
    crash_loop(pod, terminated(2 if final else 1, told))


def rolled(spec: Json, good: Json = GOOD, final: bool = True) -> tuple[World, str, str]:
    """A world that served, and is asked for something that fails; with the good and the bad revision."""
    world = World(spec=good).serve()
    before = revision(world)
    controller_says(world, "NewReplicaSetAvailable")
    world.change(spec)
    world.step()
    bad = revision(world)
    assert bad != before
    controller_says(world, "ReplicaSetUpdated")
    fail(world, final)
    world.step()
    return world, before, bad


def test_the_last_good_revision_comes_back_and_says_why() -> None:
    world, good, bad = rolled(BAD)
    assert revision(world) == good
    assert world.status["revision"] == {
        "current": good,
        "updated": good,
        "renderer": world.renderer.version,
        "failed": bad,
    }
    assert world.state("Progressing") == ("True", "RolledBack")
    assert world.state("Reconciling") == ("True", "RolledBack")
    controller_says(world, "ReplicaSetUpdated")
    world.roll()
    world.answer()
    world.settle()
    assert revision(world) == good, "it is not tried again by itself"
    for kind, status in (("Ready", "False"), ("Stalled", "True"), ("Reconciling", "False"), ("Available", "True")):
        assert world.condition(kind)["status"] == status
    assert world.state("ModelServed")[0] == "True"
    for kind in ("Ready", "Stalled", "Progressing"):
        for word in (bad, good, "no flag --nope", "Correct the spec", "spec.rollout.onFailure"):
            assert word in world.condition(kind)["message"]
    assert world.state("UpToDate") == ("False", "RolledBack")
    assert world.state("Fits") == ("Unknown", "RolledBack")
    Status.model_validate(world.status)
    assert [e.reason for e in world.events if e.type == "Warning"] == ["FlagUnknown", "RolledBack"]


def test_an_operator_that_starts_anew_keeps_to_it_without_the_status() -> None:
    world, good, bad = rolled(BAD)
    world.roll()
    world.status = {}
    world.step()
    assert (revision(world), world.status["revision"]["failed"]) == (good, bad)


def test_a_corrected_spec_a_spec_set_back_and_hold_each_end_it() -> None:
    for spec, tried in (({**GOOD, "engine": {"maxModelLen": 4096}}, None), (GOOD, 0), ({**BAD, "rollout": {}}, 1)):
        world, *known = rolled(BAD)
        world.roll()
        world.change(spec)
        world.step()
        assert tried is None or revision(world) == known[tried]
        assert "failed" not in world.status["revision"]
        assert world.state("Stalled")[0] == "False"
        assert world.deployment is not None
        assert names.ANNOTATION_FAILED_REVISION not in world.deployment["metadata"]["annotations"]
        world.roll()
        world.answer()
        world.settle()
        assert world.state("Ready") == ("True", "Ready")


def test_what_may_pass_is_waited_for_until_the_deadline() -> None:
    world, good, bad = rolled(BAD, final=False)
    assert revision(world) == bad
    controller_says(world, "ProgressDeadlineExceeded", "False")
    world.step()
    assert revision(world) == good
    assert "not in place in time" in world.condition("Ready")["message"]
    assert "ValueError: no idea" in world.condition("Ready")["message"]


def test_what_was_in_place_once_is_not_on_trial() -> None:
    world = World(spec=GOOD).serve()
    world.change(BAD)
    world.step()
    bad = revision(world)
    controller_says(world, "NewReplicaSetAvailable")
    fail(world)
    world.settle()
    assert revision(world) == bad


def test_what_the_controller_said_of_the_revision_before_does_not_count() -> None:
    world = World(spec=GOOD).serve()
    world.change(BAD)
    world.step()
    controller_says(world, "ProgressDeadlineExceeded", "False")
    assert world.deployment is not None
    world.deployment["metadata"]["generation"] += 1
    assert "failed" not in world.plan().status["revision"]


def test_hold_keeps_what_is_asked_for() -> None:
    world, _, bad = rolled({**BAD, "rollout": {}}, good={})
    world.settle()
    assert revision(world) == bad
    assert world.state("Stalled") == ("True", "FlagUnknown")


def test_the_first_revision_has_none_to_go_back_to() -> None:
    world = World(spec=BAD)
    world.step()
    controller_says(world, "ReplicaSetUpdated")
    fail(world)
    world.settle()
    assert world.state("Stalled") == ("True", "FlagUnknown")


def test_where_the_good_one_fails_too_that_is_said() -> None:
    world, good, _ = rolled(BAD)
    world.pods.clear()
    pod = world.add_pod()
    schedule(pod, at(100))
    crash_loop(pod, terminated(1, diagnosis("DriverTooOld", "driver 1 is too old", "Install a newer one.", 1), end=130))
    world.settle()
    assert revision(world) == good
    assert world.state("Stalled") == ("True", "DriverTooOld")
    assert world.state("Ready") == ("False", "DriverTooOld")


def test_only_the_template_goes_back() -> None:
    world, good, _ = rolled({**BAD, "replicas": 3})
    assert world.deployment is not None
    assert (revision(world), world.deployment["spec"]["replicas"]) == (good, 3)
