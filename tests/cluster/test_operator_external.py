"""Who scales from outside: a real HPA, by a metric that the operator itself exports, through `/scale`."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.conftest import ROOT, Start
from tests.cluster.external_metrics import served
from tests.cluster.process import OperatorProcess
from tests.cluster.test_operator_gateway import gateways, got
from tests.cluster.world import QUIET_SECONDS, AuditLog, Json, World, audit_path, steady, wait_for

from falcon_operator.api import names

# The API that it installs is the whole cluster's.
pytestmark = [pytest.mark.cluster, pytest.mark.alone]

HPAS = "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers"
# An HPA looks each 15 s; what is not known any more is told after some seconds, too.
HPA_SECONDS = 60


class Gateway:
    """Stands in for a gateway that kwok plays: what it says of its load."""

    def __init__(self, address: str) -> None:
        self.in_flight: int | None = 0
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                load = stand_in.in_flight
                text = "" if load is None else stand_in.text(load)
                self.send_response(200 if text else 503)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                """Nothing: the test says what matters."""

        self._server = http.server.ThreadingHTTPServer((address, names.GATEWAY_METRICS_PORT), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @staticmethod
    def text(in_flight: int) -> str:
        """As `GET /load` answers."""
        figures = {
            "in_flight_requests": in_flight,
            "held_requests": 0,
            "held_oldest_seconds": 0,
            "arrived_requests_total": in_flight,
            "waited_seconds": 0,
            "keys": 0,
        }
        return "".join(f"falcon_gateway_{name} {value}\n" for name, value in figures.items())

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def operator(world: World, start: Start) -> OperatorProcess:
    """The operator, with a resource that is scaled from outside and serves."""
    operator = start()
    example, _ = yaml.safe_load_all((ROOT / "examples/autoscaling/hpa.yaml").read_text())
    world.resource("web", {**example["spec"], "gateway": {"replicas": 1}})
    world.settled("web")
    return operator


@pytest.fixture
def gateway(world: World, operator: OperatorProcess) -> Iterator[Gateway]:
    [pod] = gateways(world)
    found = Gateway(pod["status"]["podIP"])
    yield found
    found.close()


def requests(operator: OperatorProcess) -> float | None:
    """What the operator exports; None where it does not know."""
    answer = operator.answer("/metrics")
    assert answer is not None
    lines = [line for line in answer.text.splitlines() if line.startswith("falcon_autoscaler_requests{")]
    return float(lines[0].split()[-1]) if lines else None


def scaler(world: World) -> Json:
    """The example's HPA, for this resource."""
    _, hpa = yaml.safe_load_all((ROOT / "examples/autoscaling/hpa.yaml").read_text())
    body = json.loads(json.dumps(hpa).replace('"falcon"', '"web"'))
    world.client.post(HPAS.format(world.namespace), json=body).raise_for_status()
    found: Json = body
    return found


def active(world: World) -> str:
    """Whether the HPA says that it can scale."""
    hpa = world.client.get(f"{HPAS.format(world.namespace)}/web").raise_for_status().json()
    conditions = hpa.get("status", {}).get("conditions") or []
    return next((c["status"] for c in conditions if c["type"] == "ScalingActive"), "")


def replicas(world: World) -> tuple[Any, Any]:
    """What the resource's spec asks for, and what its Deployment does."""
    return got(world, names.KIND, "web")["spec"].get("replicas"), got(world, "Deployment", "web")["spec"]["replicas"]


def test_a_real_hpa_scales_by_the_operators_own_metric_and_stops_where_that_is_not_known(
    world: World, operator: OperatorProcess, gateway: Gateway, audit: AuditLog, tmp_path: Path
) -> None:
    def metrics() -> str:
        answer = operator.answer("/metrics")
        return answer.text if answer is not None else ""

    def story() -> Any:
        return world.client.get(f"{HPAS.format(world.namespace)}/web").json(), metrics()

    scaled = AuditLog(audit_path(), "system:serviceaccount:kube-system:horizontal-pod-autoscaler")
    gateway.in_flight = 1000
    wait_for(lambda: requests(operator) == 1000, "1000 requests in the operator's metrics", 30, metrics)
    assert replicas(world) == (1, 1), "External: nobody but /scale changes the number"
    with served(world.client, world.namespace, tmp_path, metrics):
        scaler(world)
        wait_for(lambda: replicas(world) == (6, 6), "six engines, 1000 / 179", HPA_SECONDS, story)
        world.wait_ready("web")
        assert active(world) == "True"

        gateway.in_flight = None
        wait_for(lambda: requests(operator) is None, "end of the metric", 30, metrics)
        wait_for(lambda: active(world) == "False", "HPA that knows nothing", HPA_SECONDS, story)
        assert steady(lambda: replicas(world), QUIET_SECONDS) == (6, 6)

    by_hpa = [write for write in scaled.writes(world.namespace) if names.PLURAL in write]
    assert by_hpa == [f"update {names.PLURAL}/scale/web 200"]
    written = [write for write in audit.writes() if f" {names.PLURAL}/" in write]
    assert [write for write in written if "/status/" not in write] == [], "it writes the status alone"
