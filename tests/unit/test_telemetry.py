import json
import logging
from typing import Any

import pytest
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.ports import free_port

from falcon_operator.api.names import KIND
from falcon_operator.runtime.watched import Figures
from falcon_operator.telemetry import logging as operator_logging
from falcon_operator.telemetry.logging import JsonFormatter, TextFormatter
from falcon_operator.telemetry.metrics import Metrics
from falcon_operator.telemetry.server import serving

RESOURCE: dict[str, Any] = {
    "kind": KIND,
    "metadata": {"namespace": "ns", "name": "web"},
    "spec": {"replicas": 3},
    "status": {
        "replicas": 2,
        "readyReplicas": 1,
        "conditions": [{"type": "Ready", "status": "False", "reason": "Starting"}],
    },
}


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == name
    }


def test_a_resources_series_are_those_of_its_status_and_vanish_with_it() -> None:
    metrics, resources = Metrics(), [RESOURCE]
    metrics.export_resources(lambda: resources)
    assert samples(metrics, "falcon_deployment_replicas") == {
        ("web", "ns", "desired"): 3,
        ("web", "ns", "current"): 2,
        ("web", "ns", "ready"): 1,
        ("web", "ns", "updated"): 0,
    }
    assert samples(metrics, "falcon_deployment_condition") == {("web", "ns", "Starting", "False", "Ready"): 1}
    resources[0] = {**RESOURCE, "status": {"desiredReplicas": 7}}
    assert samples(metrics, "falcon_deployment_replicas")["web", "ns", "desired"] == 7, "what an autoscaler has found"
    resources.clear()
    assert samples(metrics, "falcon_deployment_condition") == {}


def test_what_is_known_of_engines_is_a_series_each_and_vanishes_with_the_resource() -> None:
    predicted = {"blocks": 1650, "blockTokens": 3328, "tokens": 5}
    measured = {"blocks": 1660, "blockTokens": 3328, "sequences": 41, "tokens": 0}
    status = {
        "coldStart": {"scheduled": 0.0, "loaded": 25.4},
        "capacity": [
            {"product": "NVIDIA-H200", "predicted": predicted, "measured": measured},
            {"product": "NVIDIA-B200", "predicted": predicted},
        ],
    }
    metrics, resources = Metrics(), [{**RESOURCE, "status": status}]
    metrics.export_resources(lambda: resources)
    assert samples(metrics, "falcon_engine_start_seconds") == {
        ("web", "ns", "scheduled"): 0,
        ("web", "ns", "loaded"): 25.4,
    }
    assert samples(metrics, "falcon_capacity_prediction_error_ratio") == {
        ("blocks", "web", "ns", "NVIDIA-H200"): pytest.approx(-10 / 1660),
        ("blockTokens", "web", "ns", "NVIDIA-H200"): 0,
    }
    for reason in ("OutOfMemory", "OutOfMemory", "EngineDied"):
        metrics.failed(("ns", "web"), reason)
    metrics.failed(("ns", "gone"), "EngineDied")
    for _ in range(2):
        assert samples(metrics, "falcon_engine_failures_total") == {
            ("web", "ns", "OutOfMemory"): 2,
            ("web", "ns", "EngineDied"): 1,
        }
    resources.clear()
    for name in ("start_seconds", "failures_total"):
        assert samples(metrics, f"falcon_engine_{name}") == {}


def test_names_are_controller_runtimes() -> None:
    metrics = Metrics()
    metrics.reconciled("success", 0.01)
    metrics.reconciled("error", 0.01)
    metrics.reconciled("panic", 0.01)
    metrics.applied("Service", "written")
    metrics.swept("Pod", 2)
    metrics.swept("Service", 0)
    controller = "falconnvfp4deployment"
    assert samples(metrics, "controller_runtime_reconcile_total")[controller, "success"] == 1
    assert samples(metrics, "controller_runtime_reconcile_errors_total")[controller,] == 2
    assert samples(metrics, "controller_runtime_reconcile_panics_total")[controller,] == 1
    assert samples(metrics, "controller_runtime_reconcile_time_seconds_count")[controller,] == 3
    assert samples(metrics, "falcon_apply_total") == {("Service", "written"): 1}
    assert samples(metrics, "falcon_cache_ghosts_total") == {("Pod",): 2}
    text = metrics.render().decode()
    for name in ("workqueue_depth", "workqueue_adds_total", "process_resident_memory_bytes", "falcon_operator_info"):
        assert f"\n{name}" in text
    assert "_created" not in text


def test_what_the_autoscaler_does_not_know_has_no_series() -> None:
    metrics = Metrics()
    assert samples(metrics, "falcon_autoscaler_requests") == {}
    known = {("ns", "web"): Figures(3, 7.0, 0.0, 2.4), ("ns", "blind"): Figures(), ("ns", "half"): Figures(desired=2)}
    metrics.export_scaling(known.items)
    web, half = ("web", "ns"), ("half", "ns")
    assert samples(metrics, "falcon_autoscaler_desired_replicas") == {web: 3, half: 2}
    assert samples(metrics, "falcon_autoscaler_requests") == {web: 7}
    assert samples(metrics, "falcon_autoscaler_held_requests") == {web: 0}, "none is not unknown"
    assert samples(metrics, "falcon_autoscaler_demand") == {web: 2.4}
    known.clear()
    assert samples(metrics, "falcon_autoscaler_desired_replicas") == {}


async def test_the_endpoints_say_what_is_wrong() -> None:
    port, problem = free_port(), ["a worker hangs"]

    def check() -> str | None:
        return problem[0] if problem else None

    async with serving(port, Metrics(), health=check, readiness=lambda: None), ClientSession() as session:

        async def ask(path: str) -> tuple[int, str]:
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status, await answer.text()

        assert await ask("/healthz") == (503, "a worker hangs\n")
        assert await ask("/readyz") == (200, "ok\n")
        problem.clear()
        assert await ask("/healthz") == (200, "ok\n")
        status, text = await ask("/metrics")
        assert status == 200
        assert "# TYPE falcon_operator_info gauge" in text
        assert (await ask("/other"))[0] == 404


def record(**extra: Any) -> logging.LogRecord:
    logger = logging.getLogger("falcon")
    return logger.makeRecord("falcon", logging.WARNING, "f", 1, "said %s", ("this",), None, extra=extra)


def test_a_line_of_json_holds_the_message_and_what_was_given_with_it() -> None:
    line = json.loads(JsonFormatter().format(record(key="ns/web")))
    assert line["time"].endswith("Z")
    del line["time"]
    assert line == {"level": "warning", "logger": "falcon", "message": "said this", "key": "ns/web"}


def test_an_exception_stays_in_its_line() -> None:
    try:
        raise ValueError("bad")
    except ValueError as error:
        failed = record()
        failed.exc_info = (ValueError, error, error.__traceback__)
    text = JsonFormatter().format(failed)
    assert "\n" not in text
    assert json.loads(text)["exception"].endswith("ValueError: bad")
    assert TextFormatter().format(failed).endswith("ValueError: bad")


def test_a_line_of_text_is_for_people() -> None:
    assert TextFormatter().format(record(key="ns/web")).endswith(" WARNING said this key=ns/web")


def test_chatter_of_libraries_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        operator_logging.configure("info", "text")
        logging.getLogger("kopf.objects").info("Handler 'pods' succeeded.")
        logging.getLogger("falcon").info("kept")
        assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == ["kept"]
    finally:
        root.handlers[:], root.level = before, level
