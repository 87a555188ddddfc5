"""What is kept of a failure: one record, one event for each time it happens, whatever words the kubelet finds."""

from tests.unit.broken import IMAGE, NOT_FOUND, crashed, waiting
from tests.unit.world import World, at, conditions, container, crash_loop, diagnosis, make_ready, schedule, terminated


def test_an_engine_that_died_and_recovered_is_remembered_and_told_once() -> None:
    world = World().serve()
    pod = world.pods[0]
    last = terminated(70, diagnosis("EngineDied", "The engine core was killed", "It restarts.", 70), end=100)
    world.step(seconds=100)
    pod["status"]["conditions"] = conditions(PodScheduled=("True", "", at(0)), Ready=("False", "", at(100)))
    container(pod, last)
    world.step(seconds=1)
    assert world.state("Ready") == ("False", "EngineDied")
    assert world.state("Available") == ("False", "EngineDied")
    crash_loop(pod, last)
    world.step(seconds=1)
    container(pod, {"running": {"startedAt": at(120)}}, last, restarts=1)
    world.step(seconds=20)
    assert world.state("Ready") == ("False", "EngineDied"), "it starts again, and that is why"
    pod["status"]["conditions"] = conditions(PodScheduled=("True", "", at(0)), Ready=("True", "", at(140)))
    container(pod, {"running": {"startedAt": at(120)}}, last, restarts=1, started=True)
    world.answer()
    world.settle()
    assert world.state("Ready") == ("True", "Ready")
    assert world.status["lastFailure"] == {
        "time": at(100),
        "pod": "demo-1",
        "exitCode": 70,
        "reason": "EngineDied",
        "message": "The engine core was killed.",
        "hint": "It restarts.",
    }
    assert [e.reason for e in world.events] == ["Ready", "EngineDied", "Ready"]
    world.pods.clear()
    world.roll()
    world.settle()
    assert world.status["lastFailure"]["time"] == at(100), "also when the pod is gone"
    assert [e.reason for e in world.events].count("EngineDied") == 1


def test_every_crash_is_an_event_and_moves_the_record() -> None:
    world = World()
    world.step()
    pod = world.add_pod()
    schedule(pod, at(11))
    for restarts, end in ((1, 20), (2, 60), (3, 120)):
        crash_loop(pod, terminated(1, "boom", end=end), restarts)
        world.step(seconds=30)
        world.step(seconds=1)
        assert world.status["lastFailure"]["time"] == at(end)
    assert [e.reason for e in world.events] == ["EngineFailed"] * 3


def test_the_kubelets_two_words_for_one_failed_pull_are_one_failure() -> None:
    world = World(spec=IMAGE)
    world.step()
    pod = world.add_pod()
    waiting("ErrImagePull", NOT_FOUND)(pod)
    world.step(seconds=30)
    before = world.status
    for message in (
        'Back-off pulling image "registry.example.com/no:1"',
        NOT_FOUND.replace("failed to resolve", "read udp 10.0.0.1:4242: failed to resolve"),
        f'Back-off pulling image "registry.example.com/no:1": ErrImagePull: {NOT_FOUND}',
    ):
        waiting("ImagePullBackOff", message)(pod)
        assert world.step(seconds=30).status == before
    assert len(world.events) == 1


def test_a_pull_that_was_first_seen_without_its_cause_gets_the_cause_later() -> None:
    world = World(spec=IMAGE)
    world.step()
    pod = world.add_pod()
    waiting("ImagePullBackOff", 'Back-off pulling image "registry.example.com/no:1"')(pod)
    world.step(seconds=30)
    assert world.state("Stalled")[0] == "False"
    waiting("ErrImagePull", NOT_FOUND)(pod)
    world.step(seconds=30)
    assert world.state("Stalled") == ("True", "ImagePullFailed")
    assert "not found" in world.status["lastFailure"]["message"]
    assert len(world.events) == 2, "the failure, then that it stalls"


def test_an_evicted_pod_is_remembered_and_does_not_block_its_successor() -> None:
    world = World().serve()
    old = world.pods[0]
    old["status"] = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory.",
        "startTime": at(0),
    }
    make_ready(world.add_pod(), world.now)
    world.answer()
    world.settle()
    assert world.state("Ready") == ("True", "Ready")
    assert world.status["replicas"] == 1
    assert world.status["lastFailure"]["reason"] == "Evicted"
    assert "low on resource: memory" in world.status["lastFailure"]["message"]


def test_a_pod_that_the_node_refuses_is_remembered() -> None:
    world = World()
    world.step()
    pod = world.add_pod()
    schedule(pod, at(11))
    pod["status"] |= {
        "phase": "Failed",
        "reason": "UnexpectedAdmissionError",
        "message": "Allocate failed due to no healthy devices, which is unexpected.",
    }
    world.step(seconds=1)
    assert world.status["lastFailure"]["reason"] == "ContainerCannotStart"
    assert "node-1 was refused by the node (UnexpectedAdmissionError)" in world.status["lastFailure"]["message"]
    assert world.status["replicas"] == 0


TAKEN = diagnosis("GPUMemoryTaken", "16.9 of 79.18 GiB is free", "It passes where a previous engine is ending.", 1)


def retried_world() -> World:
    """A pod whose launcher gave up early, as one of an older launcher does."""
    world = World()
    world.step()
    crashed(1, TAKEN, begin=20, end=60)(world.add_pod())
    world.step(seconds=60)
    return world


def test_memory_that_is_not_free_yet_is_retried_and_does_not_stall() -> None:
    world = retried_world()
    assert world.state("Stalled") == ("False", "NotStalled")
    assert world.state("Reconciling")[0] == "True"
    assert world.state("Ready") == ("False", "GPUMemoryTaken")
    assert f"It is retried, since {at(20)}." in world.condition("Ready")["message"]
    assert world.status["lastFailure"]["since"] == at(20)
    assert [e.reason for e in world.events] == ["GPUMemoryTaken"]
    assert f"It is retried, since {at(20)}." in world.events[0].note


def test_memory_that_is_still_not_free_after_five_minutes_stalls() -> None:
    world = retried_world()
    pod = world.pods[0]
    for begin, end, restarts in ((90, 200, 2), (260, 310, 3)):
        crash_loop(pod, terminated(1, TAKEN, begin=begin, end=end), restarts)
        world.step(seconds=100)
        assert world.status["lastFailure"]["since"] == at(20), "counted from the first of them"
        assert world.state("Stalled")[0] == ("True" if end - 20 >= 285 else "False")
    assert world.state("Stalled") == ("True", "GPUMemoryTaken")
    container(pod, {"running": {"startedAt": at(320)}}, terminated(1, TAKEN, begin=260, end=310), restarts=4)
    make_ready(pod, world.now, terminated(1, TAKEN, begin=260, end=310), restarts=4)
    world.roll_gateway()
    world.answer()
    world.settle()
    assert world.state("Stalled")[0] == "False", "it passed after all"
    assert world.state("Ready") == ("True", "Ready")


def test_a_launcher_that_has_retried_for_five_minutes_stalls_at_once() -> None:
    world = World()
    world.step()
    crashed(1, TAKEN, begin=20, end=318)(world.add_pod())
    world.step(seconds=330)
    assert world.state("Stalled") == ("True", "GPUMemoryTaken")


def test_the_five_minutes_begin_anew_after_the_pod_has_served() -> None:
    world = retried_world()
    pod = world.pods[0]
    pod["status"]["conditions"] = conditions(PodScheduled=("True", "", at(11)), Ready=("False", "", at(5000)))
    crash_loop(pod, terminated(1, TAKEN, begin=5001, end=5030), restarts=2)
    world.step(seconds=5040)
    assert world.status["lastFailure"]["since"] == at(5001)
    assert world.state("Stalled")[0] == "False"
