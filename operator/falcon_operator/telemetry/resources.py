"""Each resource's state as metrics, read from its status at scrape time: a series vanishes with its resource."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from falcon_operator.decide.capacity import prediction_errors

WHERE = ["namespace", "name"]
_REPLICAS = (("current", "replicas"), ("ready", "readyReplicas"), ("updated", "updatedReplicas"))


class Resources(Collector):
    """The collector, and the count of what no status keeps: how often engines have failed."""

    def __init__(self) -> None:
        self.source: Callable[[], Iterable[Mapping[str, Any]]] = tuple
        self._failures: dict[tuple[str, str], Counter[str]] = {}

    def failed(self, key: tuple[str, str], reason: str) -> None:
        """Count one failure of an engine of the resource with that namespace and name."""
        self._failures.setdefault(key, Counter())[reason] += 1

    def collect(self) -> Iterable[Metric]:
        """All series of all resources."""
        conditions = GaugeMetricFamily(
            "falcon_deployment_condition",
            "The conditions of each resource: 1 for the status that holds.",
            labels=[*WHERE, "type", "status", "reason"],
        )
        replicas = GaugeMetricFamily(
            "falcon_deployment_replicas", "Engines of each resource.", labels=[*WHERE, "state"]
        )
        starts = GaugeMetricFamily(
            "falcon_engine_start_seconds",
            "Seconds from a pod's creation to each step of the last start of an engine.",
            labels=[*WHERE, "phase"],
        )
        errors = GaugeMetricFamily(
            "falcon_capacity_prediction_error_ratio",
            "What was predicted of an engine's capacity less what was measured, as a share of the latter.",
            labels=[*WHERE, "product", "figure"],
        )
        failures = CounterMetricFamily(
            "falcon_engine_failures", "Failures of engines since this operator started.", labels=[*WHERE, "reason"]
        )
        counted, self._failures = self._failures, {}
        for resource in self.source():
            metadata, status = resource["metadata"], resource.get("status") or {}
            where = [metadata["namespace"], metadata["name"]]
            for condition in status.get("conditions") or ():
                conditions.add_metric(
                    [*where, condition["type"], condition["status"], condition.get("reason") or ""], 1
                )
            asked = (resource.get("spec") or {}).get("replicas", 1)
            replicas.add_metric([*where, "desired"], status.get("desiredReplicas", asked))
            for state, field in _REPLICAS:
                replicas.add_metric([*where, state], status.get(field) or 0)
            for phase, seconds in (status.get("coldStart") or {}).items():
                starts.add_metric([*where, phase], seconds)
            for (product, figure), error in prediction_errors(status).items():
                errors.add_metric([*where, product, figure], error)
            key = metadata["namespace"], metadata["name"]
            if key in counted:
                self._failures[key] = counted[key]
                for reason, count in counted[key].items():
                    failures.add_metric([*where, reason], count)
        yield from (conditions, replicas, starts, errors, failures)
