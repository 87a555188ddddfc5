"""`hpa-waiting`: an HPA on the sum of `vllm:num_requests_waiting`, 5 a replica, through prometheus-adapter.

| constant | value | source |
| --- | --- | --- |
| metric | External, `sum(vllm:num_requests_waiting)` | vllm-project/production-stack `docs/source/use_cases/autoscaling-keda.rst`, a6c01db0 |
| averageValue | 5 | same page (`threshold: '5'`) |
| all of the HPA | defaults | `hpa.py` here |
| scrape interval | 15 s | `timing.py` here |

What the gateway of this simulator holds counts as waiting: without that gateway it would wait in engines. While no
engine is ready and nothing is held the metric does not exist, and an HPA then stays as it is.
"""  # noqa: E501

from __future__ import annotations

from benchmarks.autoscale.peers.hpa import external
from benchmarks.autoscale.peers.prometheus import PrometheusHpa, pods
from benchmarks.autoscale.policy import Policy, View

TARGET = 5.0  # waiting requests a replica


def metric(scraped: View, view: View) -> int | None:
    """The replicas that what was scraped asks for."""
    known = bool(scraped.engines) or scraped.held > 0
    return external(scraped.waiting if known else None, TARGET, pods(view))


def policy(cold_start: float, max_num_seqs: int, minimum: int, maximum: int) -> Policy:
    """The rule, within `minimum` (at least 1) and `maximum` replicas."""
    return PrometheusHpa("hpa-waiting", metric, minimum, maximum)
