"""`knative-kpa`: Knative's pod autoscaler on concurrency.

| constant | value | source |
| --- | --- | --- |
| containerConcurrency | `max_num_seqs`: what a replica takes at a time | knative/serving `config/core/configmaps/autoscaler.yaml`, 98e5ef90 (its use; unset, 100 would stand for it) |
| container-concurrency-target-percentage | 70 | same file; `pkg/reconciler/autoscaling/resources/target.go` |
| stable-window | 60 s | same file |
| panic-window-percentage | 10, that is 6 s | same file |
| panic-threshold-percentage | 200 | same file |
| max-scale-up-rate, max-scale-down-rate | 1000, 2 a tick | same file |
| scale-down-delay | 0 s | same file |
| scale-to-zero-grace-period | 30 s | same file |
| tick | 2 s | `pkg/autoscaler/scaling/multiscaler.go` |
| look at the concurrency | every 1 s | `pkg/autoscaler/metrics/collector.go` |
| the rule | both averages, panic mode | `pkg/autoscaler/scaling/autoscaler.go`, `pkg/autoscaler/aggregation/bucketing.go` |

Concurrency is all that is in a pod's queue-proxy or held by the activator, here in flight and held. Rates are counted
from the ready pods, one at least. A window that is not full yet is averaged over what there is.
"""  # noqa: E501

from __future__ import annotations

import math
from collections import deque

from benchmarks.autoscale.peers.timing import Every, clamp
from benchmarks.autoscale.policy import Policy, View

TARGET_SHARE = 0.7
STABLE = 60  # seconds, and looks
PANIC = 6  # seconds, and looks
PANIC_THRESHOLD = 2.0
UP_RATE = 1000.0
DOWN_RATE = 2.0
TICK = 2.0  # seconds
LOOK = 1.0  # seconds
GRACE = 30.0  # seconds at zero demand before the last replica goes


class KnativeKpa:
    """The autoscaler of one revision."""

    name = "knative-kpa"
    interval = LOOK

    def __init__(self, concurrency: float, minimum: int, maximum: int) -> None:
        self.target = concurrency * TARGET_SHARE
        self.minimum = minimum
        self.maximum = maximum
        self._tick = Every(TICK)
        self._looks: deque[float] = deque(maxlen=STABLE)
        self._panic_at: float | None = None
        self._panic_most = 0
        self._started = False
        self._idle_since: float | None = None

    def desired(self, view: View) -> int:
        """How many replicas there should be from now on."""
        self._looks.append(view.in_flight + view.held)
        if not self._tick.due(view.now):
            return view.replicas
        return self._bounded(view, self._scale(view.now, view.ready))

    def _scale(self, now: float, pods: int) -> int:
        if not self._started:
            # An autoscaler that finds more than one pod starts in panic mode, since it has no history.
            self._started = True
            if pods > 1:
                self._panic_at, self._panic_most = now, pods
        ready = max(1, pods)
        last = list(self._looks)[-PANIC:]
        stable = math.ceil(sum(self._looks) / len(self._looks) / self.target)
        panic = math.ceil(sum(last) / len(last) / self.target)
        over = panic / ready >= PANIC_THRESHOLD
        if over:
            self._panic_at = now
        elif self._panic_at is not None and self._panic_at + STABLE < now:
            self._panic_at, self._panic_most = None, 0
        least, most = math.floor(ready / DOWN_RATE), math.ceil(UP_RATE * ready)
        wanted = min(max(stable, least), most)
        if self._panic_at is None:
            return wanted
        self._panic_most = max(self._panic_most, wanted, min(max(panic, least), most))
        return self._panic_most

    def _bounded(self, view: View, wanted: int) -> int:
        wanted = clamp(wanted, self.minimum, self.maximum)
        if wanted > 0:
            self._idle_since = None
            return wanted
        if self._idle_since is None:
            self._idle_since = view.now
        return 0 if view.now >= self._idle_since + GRACE else min(1, view.replicas)


def policy(cold_start: float, max_num_seqs: int, minimum: int, maximum: int) -> Policy:
    """The rule for engines of `max_num_seqs` sequences, within `minimum` and `maximum` replicas."""
    return KnativeKpa(max_num_seqs, minimum, maximum)
