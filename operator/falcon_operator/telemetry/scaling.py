"""What the autoscaler knows and wants, read at scrape time: a series is absent while its figure is not known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Figures(Protocol):
    """Of one resource; None is not known."""

    @property
    def desired(self) -> int | None:
        """Engines that there should be."""

    @property
    def requests(self) -> float | None:
        """Requests in flight and held."""

    @property
    def held(self) -> float | None:
        """Requests that wait in gateways."""

    @property
    def demand(self) -> float | None:
        """Engines' worth of work."""


Source = Callable[[], Iterable[tuple[tuple[str, str], Figures]]]


class Scaling(Collector):
    """The collector."""

    def __init__(self) -> None:
        self.source: Source = tuple

    def collect(self) -> Iterable[Metric]:
        """All series of all resources that have autoscaling."""
        where = ["namespace", "name"]
        desired = GaugeMetricFamily(
            "falcon_autoscaler_desired_replicas", "Engines that the autoscaler finds right.", labels=where
        )
        requests = GaugeMetricFamily(
            "falcon_autoscaler_requests", "Requests in flight and held, over all gateways.", labels=where
        )
        held = GaugeMetricFamily(
            "falcon_autoscaler_held_requests", "Requests that wait in gateways for an engine.", labels=where
        )
        demand = GaugeMetricFamily(
            "falcon_autoscaler_demand", "Work, in engines that it would keep busy all the time.", labels=where
        )
        for key, figures in self.source():
            for family, value in (
                (desired, figures.desired),
                (requests, figures.requests),
                (held, figures.held),
                (demand, figures.demand),
            ):
                if value is not None:
                    family.add_metric(list(key), value)
        yield from (desired, requests, held, demand)
