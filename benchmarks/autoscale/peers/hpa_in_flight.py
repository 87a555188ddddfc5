"""`hpa-in-flight`: an HPA on running and waiting requests of each pod, through prometheus-adapter.

| constant | value | source |
| --- | --- | --- |
| metric | Pods, `vllm:num_requests_running` + `vllm:num_requests_waiting` | kubernetes/examples `AI/vllm-deployment/hpa/horizontal-pod-autoscaler.yaml`, 289fdef1 (running alone) |
| averageValue | 70 % of `max_num_seqs` | see below |
| all of the HPA | defaults | `hpa.py` here |
| scrape interval | 15 s | `timing.py` here |

No documented number fits every engine: 4 in the example above, 16 for a 32B model in llm-d's KEDA guide (llm-d/llm-d
`guides/workload-autoscaling/keda-epp/optimized-baseline/overlays/k8s/queue/scaledobject.yaml`, 057abb4a), 250 in its
HPA guide (`README.hpa-epp.md`, 1b624fae), which advises to set it below the concurrency at which latency gets worse.
That is where the batch is full; 70 % of what a replica takes at a time is Knative's default for the same quantity
(`container-concurrency-target-percentage`, knative/serving `config/core/configmaps/autoscaler.yaml`, 98e5ef90).

What the gateway holds is counted in equal parts with the ready pods: without that gateway it would wait in them. A pod
that was not scraped yet is a missing one.
"""  # noqa: E501

from __future__ import annotations

from benchmarks.autoscale.peers.hpa import per_pod
from benchmarks.autoscale.peers.prometheus import Metric, PrometheusHpa, pods
from benchmarks.autoscale.policy import Policy, View

SHARE = 0.7  # of the sequences an engine takes at a time


def metric(target: float) -> Metric:
    """The replicas that requests scraped from each pod ask for, `target` of them a pod."""

    def asked(scraped: View, view: View) -> int | None:
        held = scraped.held / max(1, len(scraped.engines))
        values = [engine.running + engine.waiting + held for engine in scraped.engines]
        return per_pod(values, max(0, pods(view) - len(values)), view.replicas, target)

    return asked


def policy(cold_start: float, max_num_seqs: int, minimum: int, maximum: int) -> Policy:
    """The rule for engines of `max_num_seqs` sequences, within `minimum` (at least 1) and `maximum` replicas."""
    return PrometheusHpa("hpa-in-flight", metric(SHARE * max_num_seqs), minimum, maximum)
