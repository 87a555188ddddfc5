"""`llmd-wva`: the Workload Variant Autoscaler of llm-d, saturation analyzer V1, which an HPA acts for.

| constant | value | source |
| --- | --- | --- |
| loop | 30 s | llm-d/llm-d-workload-variant-autoscaler `internal/engines/saturation/engine.go`, b08b1c77 |
| what it reads | of each pod the highest KV use and queue of the last minute in Prometheus | `internal/collector/registration/saturation.go` |
| kvCacheThreshold, queueLengthThreshold | 0.80, 5: a pod at or over one is saturated | `deploy/configmap-saturation-scaling.yaml` |
| kvSpareTrigger, queueSpareTrigger | 0.1, 3: +1 where the mean spare of the others is less | same file; `docs/saturation-scaling-config.md` |
| scale-down | -1 where two pods are not saturated and the spare of all but one would still do | `internal/saturation/analyzer.go`, `constants.go` |
| blocked | while desired, existing and reporting pods differ | `internal/saturation/analyzer.go` |
| HPA | External `wva_desired_replicas`, averageValue 1; both windows 120 s; 100 % in 15 s | llm-d/llm-d `guides/workload-autoscaling/optimized-baseline-autoscaling/hpa.yaml`, 739e6a61 |
| scrape interval | 15 s, of the engines and of WVA | `timing.py` here; chart `values.yaml`, b08b1c77 |

Kinder than it is shipped: the HPA's tolerance is 0 (its field `tolerance`), since 0.1 swallows -1 from ten replicas and
+1 from eleven, after which WVA is blocked for ever; the number is kept within the bounds for the same reason; the
windows are those of the guide (the chart has 240 s and 10 pods in 150 s). Held requests are counted in equal parts with
the ready pods. Peaks are forgotten when the number of pods changes. V2 (tokens) is off by default and needs a size of
the KV cache in tokens; scale to zero is off by default.
"""  # noqa: E501

from __future__ import annotations

from benchmarks.autoscale.peers.hpa import SYNC, Behavior, Hpa, Step, external
from benchmarks.autoscale.peers.prometheus import pods
from benchmarks.autoscale.peers.timing import AGE, SCRAPE, Every, clamp
from benchmarks.autoscale.policy import Policy, View

LOOP = 30.0  # seconds
PEAK = 60.0  # seconds
KV, QUEUE = 0.80, 5.0
KV_SPARE, QUEUE_SPARE = 0.1, 3.0
SAFE_PODS = 2
BEHAVIOR = Behavior((Step(15, percent=100),), (Step(15, percent=100),), 120.0, 120.0)

Peaks = list[tuple[float, float]]  # (KV use, queue) of each pod


def change(peaks: Peaks) -> int:
    """+1, 0 or -1 replica for pods with these `peaks`."""
    spare = [(KV - kv, QUEUE - queue) for kv, queue in peaks if kv < KV and queue < QUEUE]
    count = len(spare)
    kv = sum(each for each, _ in spare) / count if spare else 0.0
    queue = sum(each for _, each in spare) / count if spare else 0.0
    if kv < KV_SPARE or queue < QUEUE_SPARE:
        return 1
    if count < SAFE_PODS:
        return 0
    grows = count / (count - 1)
    safe = KV - (KV - kv) * grows >= KV_SPARE and QUEUE - (QUEUE - queue) * grows >= QUEUE_SPARE
    return -1 if safe else 0


class LlmdWva:
    """One VariantAutoscaling, and its HPA."""

    name = "llmd-wva"
    interval = AGE

    def __init__(self, minimum: int, maximum: int) -> None:
        self.minimum = max(1, minimum)
        self.maximum = maximum
        self.hpa = Hpa(minimum, maximum, BEHAVIOR)
        self._scrape = Every(SCRAPE)
        self._loop = Every(LOOP, AGE)
        self._sync = Every(SYNC, AGE)
        self._scrapes: list[tuple[float, Peaks]] = []
        self._wanted: int | None = None  # wva_desired_replicas
        self._published: int | None = None  # the same, as last scraped

    def desired(self, view: View) -> int:
        """How many replicas there should be from now on."""
        if self._scrape.due(view.now):
            held = view.held / max(1, len(view.engines))
            scrape = [(engine.kv, engine.waiting + held) for engine in view.engines]
            recent = [(at, old) for at, old in self._scrapes if at >= view.now - PEAK and len(old) == len(scrape)]
            self._scrapes = [*recent, (view.now, scrape)]
            self._published = self._wanted
        if self._loop.due(view.now):
            self._decide(view)
        if not self._sync.due(view.now):
            return view.replicas
        total = None if self._published is None else float(self._published)
        return self.hpa.sync(view.now, view.replicas, external(total, 1.0, pods(view), tolerance=0.0))

    def _decide(self, view: View) -> None:
        peaks = self._peaks()
        if not peaks:
            return
        current = pods(view)
        if self._wanted is not None and self._wanted != current:
            return  # blocked: the number asked for last stands
        target = current
        if len(peaks) == current:
            target = current + change(peaks)
        self._wanted = clamp(target, self.minimum, self.maximum)

    def _peaks(self) -> Peaks:
        looks = [scrape for _, scrape in self._scrapes]
        return [(max(kv for kv, _ in pod), max(queue for _, queue in pod)) for pod in zip(*looks, strict=True)]


def policy(cold_start: float, max_num_seqs: int, minimum: int, maximum: int) -> Policy:
    """The rule, within `minimum` (at least 1) and `maximum` replicas."""
    return LlmdWva(minimum, maximum)
