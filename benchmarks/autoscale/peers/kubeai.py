"""`kubeai`: KubeAI's autoscaler, a moving average of the active requests at its own proxy.

| constant | value | source |
| --- | --- | --- |
| interval | 10 s | substratusai/kubeai `internal/config/system.go`, 2f32ef49; `charts/kubeai/values.yaml` |
| timeWindow | 10 min: a mean of the last 60 looks, which starts with zeros | same files; `internal/movingaverage/simple.go`, `internal/modelautoscaler/autoscaler.go` |
| targetRequests | 100, or `max_num_seqs` where that is less | `api/k8s/v1/model_types.go` (default 100); the catalogue in `charts/models/values.yaml` sets 32 to 1024 by engine |
| scaleDownDelaySeconds | 30 s, that is 3 looks in a row | `model_types.go`; `internal/config/system.go` |
| order | bounds first, then the count of looks; it starts anew when replicas rise or stay | `internal/modelclient/scale.go` |
| from zero | at once, by the proxy that holds the request | `internal/modelclient/scale.go`, `docs/concepts/autoscaling.md` |

Active are all requests in the proxy, the held ones, too. It reads its own proxies at each look, so nothing is stale.
"""  # noqa: E501

from __future__ import annotations

import math
from collections import deque

from benchmarks.autoscale.peers.timing import Every, clamp
from benchmarks.autoscale.policy import Policy, View

INTERVAL = 10.0  # seconds
WINDOW = 600.0  # seconds
TARGET = 100  # active requests a replica
SCALE_DOWN_DELAY = 30.0  # seconds


class KubeAI:
    """The autoscaler and the proxy of one Model."""

    name = "kubeai"

    def __init__(self, target: int, minimum: int, maximum: int) -> None:
        # The proxy wakes a Model at zero on its own, so then it has to be asked more often than the loop runs.
        self.interval = 1.0 if minimum == 0 else INTERVAL
        self.target = target
        self.minimum = minimum
        self.maximum = maximum
        self._loop = Every(INTERVAL)
        size = math.ceil(WINDOW / INTERVAL)
        self._history = deque([0.0] * size, maxlen=size)
        self._downs_needed = math.ceil(SCALE_DOWN_DELAY / INTERVAL)
        self._downs = 0

    def desired(self, view: View) -> int:
        """How many replicas there should be from now on."""
        active = view.in_flight + view.held
        replicas = 1 if view.replicas == 0 and active > 0 else view.replicas
        if not self._loop.due(view.now):
            return replicas
        self._history.append(active)
        average = sum(self._history) / len(self._history)
        wanted = clamp(math.ceil(average / self.target), self.minimum, self.maximum)
        if wanted >= replicas:
            self._downs = 0
            return wanted
        if self._downs < self._downs_needed:
            self._downs += 1
            return replicas
        return wanted


def policy(cold_start: float, max_num_seqs: int, minimum: int, maximum: int) -> Policy:
    """The rule for engines of `max_num_seqs` sequences, within `minimum` and `maximum` replicas."""
    return KubeAI(min(TARGET, max_num_seqs), minimum, maximum)
