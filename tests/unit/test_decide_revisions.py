"""A template that has served is kept, whoever renders now; a spec that is corrected recovers."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.world import World, at, container, crash_loop, diagnosis, renderer, schedule, terminated

from falcon_operator.api import names
from falcon_operator.api.config import OperatorConfig
from falcon_operator.decide.revision import KEPT_REVISIONS

UPGRADED = renderer("2", OperatorConfig(default_image="registry.example.com/newer:2"))


def revision(world: World) -> str:
    found: str = world.template()["metadata"]["labels"][names.LABEL_REVISION]
    return found


def launcher_of(world: World) -> str:
    found: str = world.template()["spec"]["volumes"][0]["configMap"]["name"]
    return found


def test_a_revision_is_recorded_when_it_has_served_and_not_before() -> None:
    world = World()
    world.step()
    world.add_pod()
    world.settle()
    assert not world.of_kind("ControllerRevision")
    world.serve()
    (record,) = world.of_kind("ControllerRevision").values()
    assert record["metadata"]["name"] == names.revision_name("demo", revision(world))
    assert record["revision"] == 1
    assert record["data"]["template"] == world.template()
    assert world.status["revision"] == {
        "current": revision(world),
        "updated": revision(world),
        "renderer": world.renderer.version,
    }


@pytest.mark.parametrize("upgraded", [UPGRADED, renderer("2"), replace(renderer(), config=UPGRADED.config)])
def test_an_upgraded_operator_leaves_what_serves_alone_and_says_what_it_would_change(upgraded: Any) -> None:
    world = World().serve()
    before = world.deployment
    world.renderer = upgraded
    world.engines = {}
    world.settle()
    assert world.deployment == before
    assert world.state("Ready") == ("True", "Ready")
    assert world.state("UpToDate") == ("False", "AdoptionAvailable")
    message = world.condition("UpToDate")["message"]
    if upgraded.launcher != renderer().launcher:
        assert "spec.volumes[launcher].configMap.name" in message
    if upgraded.config != renderer().config:
        assert "spec.containers[engine].image" in message
    assert "spec.updatePolicy" in message
    assert world.status["revision"]["available"] == upgraded.version
    world.change({"replicas": 2})
    world.settle()
    assert world.template() == (before or {})["spec"]["template"], "scaling is no adoption"


def test_a_changed_spec_and_the_policy_auto_adopt() -> None:
    for spec in ({"engine": {"maxNumSeqs": 8}}, {"updatePolicy": "Auto"}):
        world = World().serve()
        old = revision(world)
        world.renderer = UPGRADED
        world.change(spec)
        world.settle()
        assert revision(world) != old
        assert world.engine()["image"] == "registry.example.com/newer:2"
        assert launcher_of(world) == UPGRADED.launcher.name
        assert ("ConfigMap", UPGRADED.launcher.name) in world.objects
        assert world.state("UpToDate") == ("True", "UpToDate")
        assert world.state("Ready") == ("False", "RolloutInProgress")
        assert world.status["revision"]["current"] == old
        assert "RolloutInProgress" in [e.reason for e in world.events]
        world.roll()
        world.answer()
        world.settle()
        assert world.state("Ready") == ("True", "Ready")
        assert len(world.of_kind("ControllerRevision")) == 2


def test_auto_adopts_an_upgrade_by_itself() -> None:
    world = World(spec={"updatePolicy": "Auto"}).serve()
    world.renderer = UPGRADED
    world.step()
    assert launcher_of(world) == UPGRADED.launcher.name


def test_going_back_to_an_earlier_spec_takes_the_template_that_served() -> None:
    world = World().serve()
    first, template = revision(world), world.template()
    world.change({"engine": {"maxNumSeqs": 8}})
    world.step()
    world.roll()
    world.answer()
    world.settle()
    assert revision(world) != first
    world.renderer = UPGRADED
    world.change({})
    world.settle()
    assert world.template() == template
    assert world.status["revision"]["updated"] == first


def test_an_earlier_template_whose_launcher_is_gone_is_rendered_anew() -> None:
    world = World().serve()
    world.change({"engine": {"maxNumSeqs": 8}})
    world.step()
    world.roll()
    world.settle()
    del world.objects["ConfigMap", renderer().launcher.name]
    world.renderer = UPGRADED
    world.change({})
    world.step()
    assert launcher_of(world) == UPGRADED.launcher.name


def test_a_running_revision_whose_launcher_was_deleted_is_not_restarted_for_it() -> None:
    world = World().serve()
    before = world.template()
    del world.objects["ConfigMap", renderer().launcher.name]
    world.renderer = UPGRADED
    world.settle()
    assert world.template() == before
    world.pods.clear()
    world.settle()
    assert launcher_of(world) == UPGRADED.launcher.name, "nothing is lost any more"


def test_an_upgrade_while_a_first_start_goes_well_does_not_interrupt_it() -> None:
    world = World()
    world.step()
    pod = world.add_pod()
    schedule(pod, at(10))
    container(pod, {"running": {"startedAt": at(12)}})
    before = world.template()
    world.renderer = UPGRADED
    world.settle()
    assert world.template() == before
    world.pods.clear()
    world.serve()
    assert launcher_of(world) == UPGRADED.launcher.name, "no pod, so nothing to be kept"


def test_an_upgrade_between_ready_and_the_record_records_what_runs() -> None:
    world = World()
    world.step()
    world.roll()
    # The API server has filled in defaults, which the record then holds as well.
    assert world.deployment is not None
    world.deployment["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    world.deployment["spec"]["template"]["metadata"]["creationTimestamp"] = None
    old = revision(world)
    world.renderer = UPGRADED
    world.answer()
    world.settle()
    assert revision(world) == old
    (record,) = world.of_kind("ControllerRevision").values()
    assert record["data"]["template"]["spec"]["dnsPolicy"] == "ClusterFirst"
    assert "creationTimestamp" not in record["data"]["template"]["metadata"]
    assert launcher_of(world) == renderer().launcher.name
    assert "dnsPolicy" not in world.condition("UpToDate")["message"]


def test_an_upgrade_renews_a_template_that_has_never_worked() -> None:
    world = World()
    world.step()
    pod = world.add_pod()
    schedule(pod, at(10))
    crash_loop(pod, terminated(1, "boom"))
    world.step()
    world.renderer = UPGRADED
    world.step()
    assert launcher_of(world) == UPGRADED.launcher.name


def test_the_oldest_records_go_and_never_one_that_runs() -> None:
    world = World().serve()
    first = revision(world)
    old_pod = world.pods[0]
    for seqs in range(1, KEPT_REVISIONS + 3):
        world.change({"engine": {"maxNumSeqs": seqs}})
        world.step()
        world.roll()
        world.pods.append(old_pod)
        world.settle()
    kept = world.of_kind("ControllerRevision")
    assert names.revision_name("demo", first) in kept, "a pod of it is still there"
    assert names.revision_name("demo", revision(world)) in kept
    assert len(kept) == KEPT_REVISIONS
    assert len({r["revision"] for r in kept.values()}) == KEPT_REVISIONS


@pytest.mark.parametrize(
    "bad",
    [
        {"image": {"reference": "registry.example.com/no:1"}},
        {"engine": {"extraArgs": ["--nope"]}},
        {"gpu": {"products": ["no-such-gpu"]}},
        {"scheduling": {"nodeSelector": {"no": "node"}}},
    ],
)
@pytest.mark.parametrize("served_before", [True, False])
def test_a_corrected_spec_recovers_without_help(bad: dict[str, Any], served_before: bool) -> None:
    world = World(spec={}).serve() if served_before else World(spec=bad)
    good = revision(world) if served_before else None
    world.change(bad)
    world.step()
    world.pods.clear()
    pod = world.add_pod()
    schedule(pod, at(10))
    crash_loop(pod, terminated(2, diagnosis("FlagUnknown", "no flag --nope", "Remove it.", 2)))
    world.settle()
    assert world.state("Stalled")[0] == "True"
    world.change({})
    world.step()
    assert good in (None, revision(world))
    assert world.state("Stalled")[0] == "False", "the old pods' failure is not the new revision's"
    world.roll()
    world.answer()
    world.settle()
    assert world.state("Ready") == ("True", "Ready")
    assert world.status["lastFailure"]["reason"] == "FlagUnknown"


def test_what_others_change_in_the_deployment_is_put_right() -> None:
    world = World().serve()
    before = world.template()
    assert world.deployment is not None
    world.deployment["spec"]["replicas"] = 9
    world.deployment["spec"]["template"] = {**before, "spec": {**before["spec"], "hostNetwork": True}}
    world.step()
    assert world.template() == before
    assert world.deployment["spec"]["replicas"] == 1
