"""An HPA that reads from Prometheus: what was scraped, and when the HPA looks at it."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.autoscale.peers.hpa import SYNC, Behavior, Hpa
from benchmarks.autoscale.peers.timing import AGE, SCRAPE, Every
from benchmarks.autoscale.policy import View

# (what Prometheus has, what the API server has) -> replicas; None where there is no such metric
Metric = Callable[[View, View], int | None]


class PrometheusHpa:
    """A rule that is one HPA on one `metric`. Pods are counted fresh, requests as last scraped."""

    interval = AGE

    def __init__(self, name: str, metric: Metric, minimum: int, maximum: int, behavior: Behavior | None = None) -> None:
        self.name = name
        self.hpa = Hpa(minimum, maximum, behavior)
        self._metric = metric
        self._scrape = Every(SCRAPE)
        self._sync = Every(SYNC, AGE)
        self._scraped: View | None = None

    def desired(self, view: View) -> int:
        """How many replicas there should be from now on."""
        if self._scrape.due(view.now):
            self._scraped = view
        if not self._sync.due(view.now):
            return view.replicas
        proposed = None if self._scraped is None else self._metric(self._scraped, view)
        return self.hpa.sync(view.now, view.replicas, proposed)


def pods(view: View) -> int:
    """The pods there are, ready or not: `status.replicas` of the Deployment."""
    return view.ready + len(view.starting)
