"""An API server that refuses, a watch that breaks, an operator that dies between two writes."""

import json
import os
import signal
from functools import partial
from typing import Any

import pytest
from tests.cluster.apiproxy import ApiProxy
from tests.cluster.conftest import Start
from tests.cluster.world import Json, World, wait_for

from falcon_operator.api import names
from falcon_operator.kube.resources import EXTENSIONS, WATCHED

pytestmark = pytest.mark.cluster

# Kinds that are not installed here are not watched.
WATCHES = len(WATCHED.keys() - EXTENSIONS)
# What differs between two namespaces, or two times, though the same was made.
VOLATILE = frozenset(
    {
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "managedFields",
        "clusterIP",
        "clusterIPs",
        "status",
        "namespace",
        "deployment.kubernetes.io/revision",
        names.LABEL_UID,
        names.ANNOTATION_APPLIED,
    }
)


def normalised(value: Any) -> Any:
    """An object without what is another in each namespace and at each time."""
    if isinstance(value, dict):
        return {
            key: normalised(item)
            for key, item in value.items()
            if key not in VOLATILE
            and key not in (names.LABEL_UID, names.ANNOTATION_APPLIED, "deployment.kubernetes.io/revision")
        }
    if isinstance(value, list):
        return [normalised(item) for item in value]
    return value


def end_state(world: World) -> Json:
    """Everything that the operator made, and what it says of it."""
    state = {f"{kind}/{name}": normalised(world.get(kind, name)) for kind, name in world.children()}
    resource = world.get(names.KIND, "web")
    assert resource is not None
    conditions = {c["type"]: (c["status"], c["reason"]) for c in resource["status"]["conditions"]}
    # The gateway's configuration names the namespace.
    found: Json = json.loads(json.dumps({**state, "conditions": conditions}).replace(world.namespace, "here"))
    return found


UNDISTURBED: Json = {}  # the end state without a crash; the same in each namespace


def at_rest(world: World) -> None:
    """Wait for the end: Ready may be there before the gateway is."""
    world.settled("web")
    wait_for(lambda: world.condition("web", "Reconciling").get("status") == "False", "the end of reconciling")


def undisturbed(world: World, start: Start) -> Json:
    operator = start()
    world.resource("web")
    at_rest(world)
    state = end_state(world)
    operator.kill()
    world.delete(names.KIND, "web")
    for kind, name in world.children():
        if kind == "ConfigMap" and name != "web-gateway":
            world.delete(kind, name)
    wait_for(lambda: world.children() == [], "empty namespace", 90)
    return state


# Launcher, two Deployments, two Services, ConfigMap, two policies, two budgets, two statuses, event and revision:
# one more than there are.
@pytest.mark.parametrize("write", range(1, 16))
def test_an_operator_that_dies_after_any_write_is_followed_by_one_that_finishes(
    world: World, start: Start, proxy: ApiProxy, write: int
) -> None:
    if not UNDISTURBED:
        UNDISTURBED.update(undisturbed(world, start))
    doomed = start(through=proxy)
    proxy.written = lambda count: os.kill(doomed.pid, signal.SIGKILL) if count == write else None
    world.resource("web")
    wait_for(lambda: doomed.exit_code is not None or (proxy.writes < write and settled(world)), "death or the end")
    if doomed.exit_code is None:
        doomed.kill()
    start()
    at_rest(world)
    assert end_state(world) == UNDISTURBED


def holds(world: World, text: str) -> bool:
    return text in json.dumps(world.get("Deployment", "web"))


def settled(world: World) -> bool:
    return world.is_ready("web") and bool(world.all("ControllerRevision"))


def test_a_watch_that_is_cut_again_and_again_loses_nothing(world: World, start: Start, proxy: ApiProxy) -> None:
    start(through=proxy)
    world.resource("web")
    world.wait_ready("web")
    for length in (4096, 8192, 16384):
        wait_for(lambda: proxy.cut_watches() >= WATCHES, "watch of every kind to cut")
        world.resource("web", {"engine": {"maxModelLen": length}})
        wait_for(partial(holds, world, f'\\"maxModelLen\\":{length}'), f"maxModelLen {length} in the Deployment", 90)
    world.wait_ready("web")


def test_a_deletion_that_no_watch_told_of_is_found_by_a_sweep(world: World, start: Start, proxy: ApiProxy) -> None:
    operator = start("--sweep-seconds", "3", through=proxy)
    world.resource("web")
    world.settled("web")
    before = world.get("Deployment", "web")
    assert before is not None
    wait_for(lambda: proxy.cut_watches() >= WATCHES, "watch of every kind to cut")
    proxy.watches_allowed = False
    world.delete("Deployment", "web")

    def again() -> bool:
        now = world.get("Deployment", "web")
        return now is not None and now["metadata"]["uid"] != before["metadata"]["uid"]

    wait_for(again, "new Deployment, though no watch works", 90)
    assert operator.metric("falcon_cache_ghosts_total", kind="Deployment") >= 1
    proxy.watches_allowed = True
    world.wait_ready("web", 120)


@pytest.mark.parametrize("status", [429, 500, 503, 401])
def test_an_api_server_that_refuses_for_a_while_is_waited_for(
    world: World, start: Start, proxy: ApiProxy, status: int
) -> None:
    operator = start(through=proxy)
    refused: list[str] = []

    def refusal(method: str, path: str) -> int | None:
        if method == "PATCH" and len(refused) < 4:
            refused.append(path)
            return status
        return None

    proxy.refusal = refusal
    world.resource("web")
    world.wait_ready("web", 90)
    assert len(refused) == 4
    assert operator.exit_code is None
    assert operator.metric("controller_runtime_reconcile_errors_total") >= 1


def test_an_operator_that_starts_before_the_api_server_waits_for_it(
    world: World, start: Start, proxy: ApiProxy
) -> None:
    proxy.refusal = lambda _method, _path: 503
    operator = start(through=proxy, wait=False)
    unready = wait_for(lambda: operator.answer("/readyz"), "endpoint")
    assert unready.status_code == 503
    world.resource("web")
    proxy.refusal = lambda _method, _path: None
    operator.wait_ready()
    world.wait_ready("web")
