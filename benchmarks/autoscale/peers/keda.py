"""`keda`: a ScaledObject with a Prometheus trigger on waiting requests, as production-stack documents it.

| constant | value | source |
| --- | --- | --- |
| query | `sum(vllm:num_requests_waiting)` | vllm-project/production-stack `docs/source/use_cases/autoscaling-keda.rst`, a6c01db0 |
| threshold | 5, AverageValue | same page; kedacore/keda-docs `content/docs/2.18/reference/scaledobject-spec.md`, a55c5d34 |
| activationThreshold | 0 | kedacore/keda `pkg/scalers/prometheus_scaler.go`, 8b4f083c |
| ignoreNullValues | true: no series counts as 0 | same file |
| pollingInterval | 30 s, from and to zero only | `apis/keda/v1alpha1/withtriggers_types.go`, 8b4f083c; scaledobject-spec.md |
| cooldownPeriod | 300 s, to zero only | `pkg/scaling/executor/scale_executor.go`, 8b4f083c |
| keep-alive trigger | requests came in the last minute, threshold 1; with minimum 0 only | production-stack, same page, "Scale-to-Zero" |
| between 1 and the maximum | the HPA that KEDA makes, defaults | `hpa.py` here; `controllers/keda/hpa.go` leaves `behavior` unset |
| scrape interval | 15 s | `timing.py` here |

Above zero this is `hpa-waiting`, but for the missing series. KEDA asks Prometheus anew for each sync of the HPA, since
`useCachedMetrics` is false by default. Held requests count as waiting, as in `hpa-waiting`.
"""  # noqa: E501

from __future__ import annotations

from benchmarks.autoscale.peers.hpa import SYNC, Hpa, external
from benchmarks.autoscale.peers.prometheus import pods
from benchmarks.autoscale.peers.timing import AGE, SCRAPE, Every
from benchmarks.autoscale.policy import Policy, View

THRESHOLD = 5.0  # waiting requests a replica
POLLING = 30.0  # seconds
COOLDOWN = 300.0  # seconds
KEEP_ALIVE = 60.0  # seconds: the range of the keep-alive query


class Keda:
    """One ScaledObject and its HPA."""

    name = "keda"
    interval = AGE

    def __init__(self, minimum: int, maximum: int) -> None:
        self.hpa = Hpa(minimum, maximum)
        self.to_zero = minimum == 0
        self._scrape = Every(SCRAPE)
        self._sync = Every(SYNC, AGE)
        self._poll = Every(POLLING, AGE)
        self._scraped: list[View] = []
        self._active_at: float | None = None

    def desired(self, view: View) -> int:
        """How many replicas there should be from now on."""
        if self._scrape.due(view.now):
            self._scraped = [old for old in self._scraped if old.now >= view.now - KEEP_ALIVE] + [view]
        replicas = view.replicas
        if self._poll.due(view.now) and self.to_zero:
            replicas = self._polled(view)
        if self._sync.due(view.now) and replicas > 0:
            replicas = self.hpa.sync(view.now, replicas, self._proposed(view))
        return replicas

    def _waiting(self) -> float:
        return self._scraped[-1].waiting if self._scraped else 0.0

    def _arrivals(self) -> bool:
        return self.to_zero and bool(self._scraped) and self._scraped[-1].arrived > self._scraped[0].arrived

    def _proposed(self, view: View) -> int | None:
        asked = external(self._waiting(), THRESHOLD, pods(view))
        kept = external(float(self._arrivals()), 1.0, pods(view)) if self.to_zero else None
        return max((count for count in (asked, kept) if count is not None), default=None)

    def _polled(self, view: View) -> int:
        if self._waiting() > 0 or self._arrivals():
            self._active_at = view.now
            return max(1, view.replicas)
        if self._active_at is None or view.now > self._active_at + COOLDOWN:
            return 0
        return view.replicas


def policy(cold_start: float, max_num_seqs: int, minimum: int, maximum: int) -> Policy:
    """The rule, within `minimum` and `maximum` replicas."""
    return Keda(minimum, maximum)
