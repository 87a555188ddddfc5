"""Which pods go when there are to be fewer: the real controllers choose, by what the operator has written on them."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from benchmarks.reconcile.engines import NAME
from tests.cluster.conftest import ACCOUNT, RBAC, Start
from tests.cluster.world import QUIET_SECONDS, AuditLog, Json, World, audit_path, wait_for, wait_quiet

from falcon_operator.api import names
from falcon_operator.decide.deletion_cost import ANNOTATION, UNKNOWN_COST

pytestmark = pytest.mark.cluster

Engine = Callable[[Json, int | None], None]


class _Server(http.server.ThreadingHTTPServer):
    allow_reuse_port = True  # beside the stand-in that answers for all addresses; this one is nearer
    daemon_threads = True


@pytest.fixture
def works() -> Iterator[Callable[[Json, int | None], None]]:
    """Has the engine of a pod work on so many requests; None: it does not say on how many."""
    servers: dict[str, _Server] = {}
    loads: dict[str, int | None] = {}

    def works(pod: Json, load: int | None) -> None:
        address = pod["status"]["podIP"]
        loads[address] = load

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                load = loads[address]
                answers = {"/v1/models": json.dumps({"data": [{"id": NAME}]})}
                if load is not None:
                    answers["/metrics"] = f"vllm:num_requests_running {load}.0\nvllm:num_requests_waiting 0.0\n"
                self.send_response(200 if self.path in answers else 503)
                self.end_headers()
                self.wfile.write(answers.get(self.path, "").encode())

            def log_message(self, *_: Any) -> None:
                """Nothing: the test says what matters."""

        if address not in servers:
            servers[address] = _Server((address, names.ENGINE_PORT), Handler)
            threading.Thread(target=servers[address].serve_forever, daemon=True).start()

    yield works
    for server in servers.values():
        server.shutdown()
        server.server_close()


def pods(world: World) -> dict[str, Json]:
    """The engine pods that stay, by name."""
    return {
        pod["metadata"]["name"]: pod
        for pod in world.all("Pod")
        if not pod["metadata"].get("deletionTimestamp")
        and pod["metadata"]["labels"].get(names.LABEL_COMPONENT) == names.COMPONENT_ENGINE
    }


def cost(world: World, name: str) -> str | None:
    found: str | None = pods(world)[name]["metadata"].get("annotations", {}).get(ANNOTATION)
    return found


def three(world: World) -> list[str]:
    """The names of three pods that serve."""
    world.resource("web", {"replicas": 3})
    world.settled("web")
    found = sorted(pods(world))
    assert len(found) == 3
    return found


def left(world: World, count: int) -> list[str]:
    """The names of the pods that are left, once there are so many."""
    wait_for(lambda: len(pods(world)) == count, f"{count} pods", 30, lambda: list(pods(world)))
    world.wait_ready("web")
    return sorted(pods(world))


def test_fewer_replicas_take_the_emptiest_pods_one_decision_after_the_other(
    world: World, start: Start, audit: AuditLog, works: Engine
) -> None:
    start()
    one, two, last = three(world)
    for name, load in ((one, 7), (two, 2), (last, 4)):
        works(pods(world)[name], load)
    before = len(wait_quiet(audit.writes, QUIET_SECONDS))
    world.resource("web", {"replicas": 2})
    assert left(world, 2) == [one, last]
    assert (cost(world, one), cost(world, last)) == ("7", "4")
    first = [w for w in wait_quiet(audit.writes, QUIET_SECONDS)[before:] if " pods/" in w or " deployments/web " in w]
    assert sorted(first[:3]) == [f"patch pods/{name} 200" for name in (one, two, last)]
    assert first[3:] == ["patch deployments/web 200"], "the costs first, then one write of the Deployment"

    works(pods(world)[one], 0)
    world.resource("web", {"replicas": 1})
    assert left(world, 1) == [last], "what runs now decides, not what ran then"


def test_an_engine_that_does_not_say_is_left_alone_and_so_is_a_cost_of_somebody_else(
    world: World, start: Start, works: Engine
) -> None:
    start()
    one, two, last = three(world)
    for name, load in ((one, 3), (two, None), (last, 5)):
        works(pods(world)[name], load)
    world.merge("Pod", one, {"metadata": {"annotations": {ANNOTATION: "1000"}}})
    world.resource("web", {"replicas": 2})
    assert left(world, 2) == [one, two]
    assert (cost(world, one), cost(world, two)) == ("1000", str(UNKNOWN_COST))


def test_a_template_that_changes_as_well_replaces_pods_only_after_the_emptiest_have_gone(
    world: World, start: Start, audit: AuditLog, works: Engine
) -> None:
    start()
    one, two, last = three(world)
    for name, load in ((one, 2), (two, 7), (last, 4)):
        works(pods(world)[name], load)
    controller = AuditLog(audit_path(), "system:serviceaccount:kube-system:replicaset-controller")
    world.resource("web", {"replicas": 1, "podMetadata": {"annotations": {"example.com/new": "1"}}})

    def deleted() -> list[str]:
        writes = [w.split()[1] for w in controller.writes(world.namespace) if w.startswith("delete ")]
        return [name.removeprefix("pods/") for name in writes]

    wait_for(lambda: len(deleted()) == 3, "end of all pods of the old template", 60, deleted)
    assert set(deleted()[:2]) == {one, last}
    assert deleted()[2:] == [two]
    assert {w for w in audit.writes() if " pods/" in w} == {f"patch pods/{name} 200" for name in (one, two, last)}
    world.wait_ready("web")
    assert len(pods(world)) == 1


def test_without_the_right_to_patch_pods_there_are_fewer_all_the_same(
    world: World, start: Start, works: Engine
) -> None:
    role = f"{RBAC}/namespaces/{world.namespace}/roles/{ACCOUNT}"
    body = world.client.get(role).raise_for_status().json()
    for rule in body["rules"]:
        if rule["resources"] == ["pods"]:
            rule["verbs"].remove("patch")
    world.client.put(role, json=body).raise_for_status()
    operator = start()
    found = three(world)
    for load, name in enumerate(found, 1):
        works(pods(world)[name], load)
    world.resource("web", {"replicas": 2})
    left(world, 2)
    wait_for(lambda: "the operator may not patch pods" in operator.tail(200), "words for what is missing", 10)
