"""When a peer's loops run, and how old what they see is.

Prometheus' scrape interval is 15 s for all rules that read from it. It is the value of the ServiceMonitor in
Kubernetes' own example of an HPA for vLLM (kubernetes/examples `AI/vllm-deployment/hpa/vllm-service-monitor.yaml`,
929f82b7) and in the chart of WVA (llm-d-workload-variant-autoscaler `charts/.../values.yaml` `vllmService.interval`,
b08b1c77), and kinder than Prometheus' own default (1 min) and that of production-stack's chart (30 s,
`helm/README.md` `serviceMonitor.interval`, a6c01db0).

In a cluster the phase between scrape and reader is chance. Here each reader comes half a scrape interval after a
scrape, so a sample has its mean age of 7.5 s and the runs repeat.
"""

from __future__ import annotations

import math

SCRAPE = 15.0  # seconds
AGE = SCRAPE / 2  # seconds between a scrape and its reader
_SLACK = 1e-6  # a simulator's clock may be off by a rounding error


class Every:
    """A loop that runs at `phase`, `phase` + `period`, ... (seconds)."""

    def __init__(self, period: float, phase: float = 0.0) -> None:
        self.period = period
        self.phase = phase
        self._next = phase

    def due(self, now: float) -> bool:
        """Whether the loop runs now. A time that was passed over is made up for once."""
        if now + _SLACK < self._next:
            return False
        rounds = math.floor((now - self.phase + _SLACK) / self.period)
        self._next = self.phase + (rounds + 1) * self.period
        return True


def clamp(replicas: int, minimum: int, maximum: int) -> int:
    """`replicas`, but no less than `minimum` and no more than `maximum`."""
    return max(minimum, min(maximum, replicas))
