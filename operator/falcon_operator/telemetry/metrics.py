"""The operator's own metrics, under controller-runtime's names where the meaning is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from falcon_operator import __version__
from falcon_operator.api.names import KIND
from falcon_operator.telemetry.resources import Resources
from falcon_operator.telemetry.scaling import Scaling, Source

# Dashboards made for kubebuilder's operators select by these labels.
CONTROLLER = KIND.lower()
RECONCILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 15)


class Metrics:
    """One registry for one operator."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter that nobody asks for
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        Gauge("falcon_operator_info", "The operator's version.", ["version"], registry=registry).labels(
            __version__
        ).set(1)

        self._reconciled = Counter(
            "controller_runtime_reconcile", "Reconciliations by result.", ["controller", "result"], registry=registry
        )
        self._errors = Counter(
            "controller_runtime_reconcile_errors", "Reconciliations that failed.", ["controller"], registry=registry
        ).labels(CONTROLLER)
        self._panics = Counter(
            "controller_runtime_reconcile_panics",
            "Reconciliations that met an error of the operator itself.",
            ["controller"],
            registry=registry,
        ).labels(CONTROLLER)
        self._reconcile_seconds = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "How long a reconciliation took.",
            ["controller"],
            buckets=RECONCILE_BUCKETS,
            registry=registry,
        ).labels(CONTROLLER)
        self.active_workers = Gauge(
            "controller_runtime_active_workers", "Workers that are busy.", ["controller"], registry=registry
        ).labels(CONTROLLER)
        self.max_workers = Gauge(
            "controller_runtime_max_concurrent_reconciles", "Workers.", ["controller"], registry=registry
        ).labels(CONTROLLER)

        self.queue_depth = Gauge("workqueue_depth", "Resources that wait.", ["name"], registry=registry).labels(
            CONTROLLER
        )
        self.queue_adds = Counter("workqueue_adds", "Resources queued.", ["name"], registry=registry).labels(CONTROLLER)
        self.queue_retries = Counter(
            "workqueue_retries", "Resources queued again after an error.", ["name"], registry=registry
        ).labels(CONTROLLER)
        self.queue_seconds = Histogram(
            "workqueue_queue_duration_seconds", "How long a resource waited.", ["name"],
            buckets=RECONCILE_BUCKETS, registry=registry,
        ).labels(CONTROLLER)  # fmt: skip
        self.work_seconds = Histogram(
            "workqueue_work_duration_seconds", "How long a queued resource was worked on.", ["name"],
            buckets=RECONCILE_BUCKETS, registry=registry,
        ).labels(CONTROLLER)  # fmt: skip
        self.unfinished_seconds = Gauge(
            "workqueue_unfinished_work_seconds", "Age of all work in progress, added up.", ["name"], registry=registry
        ).labels(CONTROLLER)
        self.longest_seconds = Gauge(
            "workqueue_longest_running_processor_seconds",
            "Age of the oldest work in progress.",
            ["name"],
            registry=registry,
        ).labels(CONTROLLER)

        self._requests = Counter(
            "rest_client_requests", "Requests to the API server.", ["code", "method", "host"], registry=registry
        )
        self._request_seconds = Histogram(
            "rest_client_request_duration_seconds",
            "How long the API server took.",
            ["verb", "host"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._applied = Counter(
            "falcon_apply", "Writes of objects, by kind and outcome.", ["kind", "outcome"], registry=registry
        )
        self._swept = Counter(
            "falcon_cache_ghosts",
            "Objects that a sweep found gone with no event having said so.",
            ["kind"],
            registry=registry,
        )
        self._resources = Resources()
        registry.register(self._resources)
        self._scaling = Scaling()
        registry.register(self._scaling)
        self.loop_lag = Gauge("falcon_event_loop_lag_seconds", "How late the event loop last was.", registry=registry)

    def request(self, method: str, code: str, host: str, seconds: float) -> None:
        """Count one request to the API server."""
        self._requests.labels(code, method, host).inc()
        self._request_seconds.labels(method, host).observe(seconds)

    def reconciled(self, result: str, seconds: float) -> None:
        """Count one reconciliation: `success`, `error`, `requeue_after` or `panic`."""
        self._reconciled.labels(CONTROLLER, result).inc()
        self._reconcile_seconds.observe(seconds)
        if result in ("error", "panic"):
            self._errors.inc()
        if result == "panic":
            self._panics.inc()

    def applied(self, kind: str, outcome: str) -> None:
        """Count one write of an object."""
        self._applied.labels(kind, outcome).inc()

    def swept(self, kind: str, count: int) -> None:
        """Count objects that a sweep dropped."""
        if count:
            self._swept.labels(kind).inc(count)

    def failed(self, key: tuple[str, str], reason: str) -> None:
        """Count one failure of an engine of the resource with that namespace and name."""
        self._resources.failed(key, reason)

    def export_resources(self, resources: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        """Export each resource's state; read at scrape time, so that a series vanishes with its resource."""
        self._resources.source = resources

    def export_scaling(self, source: Source) -> None:
        """Export what the autoscaler knows and wants; read at scrape time."""
        self._scaling.source = source

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
