"""`spec.autoscaling` on a real API server: who moves the number, who does not, and what is written for it."""

import http.server
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from tests.cluster.conftest import Start
from tests.cluster.world import QUIET_SECONDS, AuditLog, Json, World, steady, wait_for, wait_quiet

from falcon_operator.api import names

pytestmark = pytest.mark.cluster

UPTO3 = {"autoscaling": {"maxReplicas": 3}}
SCALE: Json = {"spec": {"replicas": 4}}


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


class Gateways:
    """Stands in for what kwok's gateways would say of the requests; all of them say the same."""

    def __init__(self, world: World) -> None:
        self.world, self.in_flight, self.held, self.arrived = world, 0, 0, 0
        self._news = threading.Condition()
        self._servers: dict[str, _Server] = {}

    def say(self, in_flight: int = 0, held: int = 0) -> None:
        """So many requests from now on; those that are more have just come."""
        with self._news:
            self.arrived += max(in_flight + held - self.in_flight - self.held, 0)
            self.in_flight, self.held = in_flight, held
            self._news.notify_all()

    def serve(self) -> "Gateways":
        """Answer for the gateways that are there by now."""
        wait_for(lambda: len(self._addresses()) == 2, "two gateways with an address")
        for address in self._addresses() - self._servers.keys():
            server = self._servers[address] = _Server((address, names.GATEWAY_METRICS_PORT), self._handler())
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def close(self) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def _addresses(self) -> set[str]:
        pods = [p for p in self.world.all("Pod") if p["metadata"]["labels"].get(names.LABEL_COMPONENT) == "gateway"]
        return {address for p in pods if (address := p.get("status", {}).get("podIP"))}

    def _text(self, known: str | None) -> str:
        begin = time.monotonic()
        with self._news:
            self._news.wait_for(lambda: known != str(self.arrived) or self.held > 0, 5)
            waited = time.monotonic() - begin
            return (
                f"falcon_gateway_in_flight_requests {self.in_flight}\nfalcon_gateway_held_requests {self.held}\n"
                f"falcon_gateway_arrived_requests_total {self.arrived}\nfalcon_gateway_waited_seconds {waited}\n"
            )

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        text = self._text

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = text(next(iter(parse_qs(urlparse(self.path).query).get("arrived", [])), None)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing: the test says what matters."""

        return Handler


@pytest.fixture
def gateways(world: World) -> Iterator[Gateways]:
    found = Gateways(world)
    yield found
    found.close()


def wanted(world: World) -> int:
    """The Deployment's number."""
    found: int = (world.get("Deployment", "web") or {"spec": {"replicas": -1}})["spec"]["replicas"]
    return found


def active(world: World, reason: str) -> Json:
    def there() -> Json | None:
        found = world.condition("web", "AutoscalingActive")
        return found if found.get("reason") == reason else None

    return wait_for(there, reason, 60, lambda: world.condition("web", "AutoscalingActive"))


def status(world: World) -> Json:
    found: Json = (world.get(names.KIND, "web") or {})["status"]
    return found


def one_engine(world: World, gateways: Gateways) -> None:
    """A resource whose load is known and small."""
    world.resource("web", UPTO3)
    world.settled("web")
    gateways.serve()
    active(world, "ScalingActive")
    assert wanted(world) == 1


def to_three(world: World, gateways: Gateways) -> None:
    """From one engine to three in one step, since more requests wait than one takes."""
    gateways.say(held=2000)
    wait_for(lambda: wanted(world) == 3, "three engines", 30, lambda: status(world)["autoscaling"])
    gateways.say(in_flight=2000)
    wait_for(lambda: status(world).get("readyReplicas") == 3, "three that are ready", 60, lambda: status(world))


def test_load_moves_the_number_once_and_a_restart_moves_and_writes_nothing(
    world: World, start: Start, audit: AuditLog, gateways: Gateways
) -> None:
    first = start()
    one_engine(world, gateways)
    to_three(world, gateways)
    said = status(world)
    assert (said["desiredReplicas"], said["autoscaling"]["desiredReplicas"]) == (3, 3)
    assert said["autoscaling"]["limitedBy"] == "maxReplicas"
    (move,) = said["autoscaling"]["decisions"]
    assert (move["fromReplicas"], move["toReplicas"]) == (1, 3)
    told = wait_for(lambda: [e for e in world.all("Event") if e.get("action") == "Scale"], "an event")
    assert [e["message"] for e in told] == [f"Scaled from 1 to 3: {move['reason']}"]
    assert (world.get(names.KIND, "web") or {})["spec"]["replicas"] == 1, "the user's own"

    writes = wait_quiet(audit.writes, QUIET_SECONDS)
    assert writes.count("patch deployments/web 201") == 1
    assert writes.count("patch deployments/web 200") == 1, "one write of the Deployment for the move"
    for load in (1900, 2100, 1800, 2200):  # traffic
        gateways.say(in_flight=load)
        steady(audit.writes, 1)
    first.kill()
    again = start()
    wait_for(lambda: again.metric("controller_runtime_reconcile_total", result="success") >= 1, "a reconciliation")
    steady(audit.writes, QUIET_SECONDS)
    assert audit.writes() == writes
    assert wanted(world) == 3


def test_two_operators_do_not_fight(world: World, start: Start, audit: AuditLog, gateways: Gateways) -> None:
    start()
    start()
    one_engine(world, gateways)
    made = len(audit.writes())  # each may have applied the new Deployment
    to_three(world, gateways)
    moved = wait_quiet(audit.writes, QUIET_SECONDS)[made:]
    assert 1 <= moved.count("patch deployments/web 200") <= 2, "each writes the same number once at most"
    world.merge("Deployment", "web", {"spec": {"replicas": 2}})
    wait_for(lambda: wanted(world) == 3, "three again: the load asks for it", 30)
    wait_quiet(audit.writes, QUIET_SECONDS)
    assert wanted(world) == 3


def test_what_cannot_be_read_freezes_the_number_and_is_said(world: World, start: Start, audit: AuditLog) -> None:
    start()
    world.resource("web", UPTO3 | {"replicas": 2})
    world.wait_ready("web")
    message = active(world, "MetricsUnknown")["message"]
    assert "The number of engines stays at 1 until it is." in message
    assert message.endswith("spec.replicas is 2 and ignored, since spec.autoscaling.mode is Native: remove it.")
    world.merge(names.KIND, "web", SCALE, subresource="scale")
    wait_for(lambda: "spec.replicas is 4" in world.condition("web", "AutoscalingActive").get("message", ""), "a remark")
    assert wanted(world) == 1
    world.merge("Deployment", "web", {"spec": {"replicas": 3}})
    wait_for(lambda: status(world)["desiredReplicas"] == 3, "the number that somebody else has set", 30)
    world.merge(names.KIND, "web", {"spec": {"suspend": True}})
    wait_for(lambda: wanted(world) == 0, "no engines while suspended", 30)
    assert active(world, "Suspended")["status"] == "False"
    world.merge(names.KIND, "web", {"spec": {"suspend": False}})
    wait_for(lambda: wanted(world) == 1, "an engine", 30)


def test_in_external_the_number_is_the_scale_subresources(world: World, start: Start, gateways: Gateways) -> None:
    start()
    world.resource("web", {"autoscaling": {"mode": "External"}})
    world.wait_ready("web")
    gateways.serve().say(in_flight=2000)
    assert "An HPA or KEDA writes spec.replicas" in active(world, "ScaledExternally")["message"]
    world.merge(names.KIND, "web", SCALE, subresource="scale")
    wait_for(lambda: wanted(world) == 4, "four engines", 30)
    assert steady(lambda: wanted(world), 3) == 4
    assert "autoscaling" not in status(world)


def test_to_zero_and_back_with_the_first_request(world: World, start: Start, gateways: Gateways) -> None:
    start()
    world.resource("web", {"autoscaling": {"minReplicas": 0, "maxReplicas": 2, "scaleToZeroAfter": "10s"}})
    world.settled("web")
    gateways.serve()
    wait_for(lambda: wanted(world) == 0, "no engines", 60, lambda: status(world).get("autoscaling"))
    idle = wait_for(
        lambda: c if (c := world.condition("web", "Ready")).get("reason") == "ScaledToZero" else None, "ScaledToZero"
    )
    assert idle["message"].startswith("No requests for 10s: no engine runs.")
    assert world.condition("web", "Stalled")["status"] == "False"
    gateways.say(held=1)
    wait_for(lambda: wanted(world) == 1, "an engine for the first request", 10)
    gateways.say(in_flight=1)
    world.wait_ready("web")
