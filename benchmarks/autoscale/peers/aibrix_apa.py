"""`aibrix-apa`: AIBrix's own rule of its PodAutoscaler, strategy APA, on KV cache and waiting requests.

| constant | value | source |
| --- | --- | --- |
| metrics | KV cache in use, target 0.5; waiting requests, target 100; the larger answer counts | vllm-project/aibrix `samples/autoscaling/multimetrics-apa.yaml`, e3e10f9e (`apa.yaml` has the first alone) |
| resync | 10 s, pods scraped directly | `pkg/controller/podautoscaler/podautoscaler_controller.go` |
| observeWindowSeconds | 180 s: the mean over time of the mean over pods | `pkg/controller/podautoscaler/metrics/client.go`; `docs/source/features/autoscaling/metric-based-autoscaling.rst` |
| a pod whose metrics cannot be read | counts as 0 | `pkg/controller/podautoscaler/metrics/fetcher.go` |
| tolerance up, down | 0.1, 0.1 | `pkg/controller/podautoscaler/context/context.go` (the sample's 0.2 is under a key that is not read) |
| rate up, down | at most double, at least half, a resync | same file |
| cooldown up, down | 0 s, 300 s | same file |
| the rule | `ceil(replicas x value / target)` | `pkg/controller/podautoscaler/algorithm/apa.go` |

The documents call the cooldown a stabilisation window "for scale-down recommendations", and the code's comment compares
it to the HPA: then it is the largest recommendation of 300 s that counts, and `aibrix-apa` does so. The code at
e3e10f9e takes the smallest one, so that one low recommendation of the last five minutes is enough to fall back to it;
`aibrix-apa-code` is that. Held requests are counted in equal parts with the ready pods. AIBrix does not scale from zero
by itself.
"""  # noqa: E501

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from benchmarks.autoscale.peers.timing import Every, clamp
from benchmarks.autoscale.policy import Policy, View

RESYNC = 10.0  # seconds
WINDOW = 180.0  # seconds
TOLERANCE = 0.1
RATE = 2.0
COOLDOWN = 300.0  # seconds
KV_TARGET = 0.5
WAITING_TARGET = 100.0


def recommended(replicas: int, value: float, target: float) -> int:
    """What one metric asks for, `value` its mean a pod."""
    ratio = value / target
    if ratio > 1 + TOLERANCE:
        return min(math.ceil(replicas * ratio), math.ceil(RATE * replicas))
    if ratio < 1 - TOLERANCE:
        return max(math.ceil(replicas * ratio), math.floor(replicas / RATE))
    return replicas


class AibrixApa:
    """One PodAutoscaler; `settle` chooses among the recommendations of the cooldown when replicas are to be removed."""

    interval = RESYNC

    def __init__(self, name: str, minimum: int, maximum: int, settle: Callable[[list[int]], int]) -> None:
        self.name = name
        self.minimum = minimum
        self.maximum = maximum
        self._settle = settle
        self._resync = Every(RESYNC)
        self._seen: deque[tuple[float, float, float]] = deque()
        self._recommended: list[tuple[float, int]] = []

    def desired(self, view: View) -> int:
        """How many replicas there should be from now on."""
        now, replicas = view.now, view.replicas
        if not self._resync.due(now):
            return replicas
        if replicas == 0 and self.minimum > 0:
            return 0
        if not self.minimum <= replicas <= self.maximum:
            return clamp(replicas, self.minimum, self.maximum)
        asked = self._asked(view)
        if asked is None:
            return replicas
        self._recommended = [(at, count) for at, count in self._recommended if at > now - COOLDOWN]
        self._recommended.append((now, asked))
        if asked >= replicas:
            return asked
        return self._settled(replicas)

    def _settled(self, replicas: int) -> int:
        settled = self._settle([count for _, count in self._recommended])
        return clamp(min(settled, replicas), self.minimum, self.maximum)

    def _asked(self, view: View) -> int | None:
        count = view.ready + len(view.starting)
        if count == 0:
            return None
        kv = sum(engine.kv for engine in view.engines) / count
        self._seen.append((view.now, kv, view.waiting / count))
        while self._seen[0][0] < view.now - WINDOW:
            self._seen.popleft()
        means = [sum(look[column] for look in self._seen) / len(self._seen) for column in (1, 2)]
        answers = [
            recommended(view.replicas, mean, target)
            for mean, target in zip(means, (KV_TARGET, WAITING_TARGET), strict=True)
        ]
        return clamp(max(answers), self.minimum, self.maximum)


def policy(cold_start: float, max_num_seqs: int, minimum: int, maximum: int) -> Policy:
    """The rule as documented, within `minimum` and `maximum` replicas."""
    return AibrixApa("aibrix-apa", minimum, maximum, max)


def policy_of_code(cold_start: float, max_num_seqs: int, minimum: int, maximum: int) -> Policy:
    """The rule as the code does it, within `minimum` and `maximum` replicas."""
    return AibrixApa("aibrix-apa-code", minimum, maximum, min)
