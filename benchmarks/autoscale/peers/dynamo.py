"""`dynamo`: load-based scaling of NVIDIA Dynamo's planner, engines that do prefill and decode (`mode: agg`).

Its throughput-based scaling (every 180 s, a forecast of the load divided by a profiled throughput) is left out: it
needs a sweep of the engine before deployment, by GPU hours or by a simulator that does not know this model. Load-based
scaling works without one, in two ways, and both are here:

- `dynamo`: `optimization_target: sla`, to the targets of this benchmark. Each engine's latencies are predicted by a line
  fitted to what was seen, for now and for one engine less.
- `dynamo-throughput`: `optimization_target: throughput`, which is the default: fixed thresholds on the KV cache.

| constant | value | source (ai-dynamo/dynamo `components/src/dynamo/planner/`) |
| --- | --- | --- |
| load_adjustment_interval | 5 s | `config/defaults.py`, 1ca60155 |
| ttft, itl | 2 s, 50 ms: the targets judged here (defaults 0.5 s, 50 ms) | same file |
| load_scaling_down_sensitivity | 80 %, of the ITL and of the part of the TTFT that is queueing | same file; `core/load_scaling.py`, 0c6da1ec |
| max_num_fpm_samples, fpm_sample_bucket_size, load_min_observations | 64, 16, 5 | `config/defaults.py`; `core/perf_model/base.py`, 439d6458 |
| up | +1 where all engines are predicted over a target | `core/load_scaling.py` |
| down | -1 where no engine left would be over its share of the targets, or full | same file |
| throughput: up, down | +1 where one engine's KV use and queue is over 1.0; -1 where all are under 0.6 | same file |
| blocked | while the engines asked for and ready differ | `core/state_machine.py`, 0272cbdd |
| max_gpu_budget, min_endpoint | the bounds of the resource (defaults 8, 1) | `config/defaults.py` |

The planner gets tokens of each forward pass; the view has none, so a request stands for its tokens: the ITL is fitted
to running requests and predicted for running and waiting ones and one more (as in `core/perf_model/agg.py`, 518a7027),
the TTFT is fitted to waiting ones. Queued prompts are turned into KV use by the mean lengths of finished requests. A
line that falls is taken as level (the planner waits for more samples then). Held requests are counted in equal parts
with the ready engines. Nothing is stale.
"""  # noqa: E501

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.autoscale.peers.timing import Every, clamp
from benchmarks.autoscale.policy import EngineView, Policy, View

INTERVAL = 5.0  # seconds
TTFT = 2.0  # seconds
ITL = 0.05  # seconds
SENSITIVITY = 0.8
SAMPLES = 64
BUCKETS = 16
LEAST_SAMPLES = 5
UP, DOWN = 1.0, 0.6  # of the KV cache


class Line:
    """A latency (seconds) as a line over a number of requests, which never falls.

    Of the kept samples the oldest of the fullest bucket makes room for a new one, so that hours at one load do not push
    out what was seen at others.
    """

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []
        self._least = math.inf
        self._most = -math.inf

    def add(self, requests: float, latency: float) -> None:
        """One more sample."""
        self._least, self._most = min(self._least, requests), max(self._most, requests)
        self._samples.append((requests, latency))
        if len(self._samples) > SAMPLES:
            places = [self._bucket(each) for each, _ in self._samples]
            fullest = max(places, key=places.count)
            del self._samples[places.index(fullest)]

    def fitted(self) -> tuple[float, float] | None:
        """(latency at zero requests, latency a request); None with too few samples."""
        count = len(self._samples)
        if count < LEAST_SAMPLES:
            return None
        x = sum(requests for requests, _ in self._samples) / count
        y = sum(latency for _, latency in self._samples) / count
        spread = sum((requests - x) ** 2 for requests, _ in self._samples)
        joint = sum((requests - x) * (latency - y) for requests, latency in self._samples)
        slope = max(0.0, joint / spread) if spread > 0 else 0.0
        return max(0.0, y - slope * x), slope

    def _bucket(self, requests: float) -> int:
        width = (self._most - self._least) / BUCKETS
        return min(BUCKETS - 1, int((requests - self._least) / width)) if width > 0 else 0


class Planner:
    """What both targets have in common: one step at a time, and none while another is under way."""

    interval = INTERVAL

    def __init__(self, name: str, minimum: int, maximum: int) -> None:
        self.name = name
        self.minimum = max(1, minimum)
        self.maximum = maximum
        self._loop = Every(INTERVAL)

    def desired(self, view: View) -> int:
        """How many replicas there should be from now on."""
        if not self._loop.due(view.now):
            return view.replicas
        held = view.held / max(1, len(view.engines))
        self.observe(view.engines)
        if not view.engines or view.ready != view.replicas:
            return max(self.minimum, view.replicas)
        return clamp(view.replicas + self.change(view.engines, held), self.minimum, self.maximum)

    def observe(self, engines: Sequence[EngineView]) -> None:
        """Learns from the engines as they are."""

    def change(self, engines: Sequence[EngineView], held: float) -> int:
        """+1, 0 or -1 replica; `held` requests wait for each engine beside its own."""
        raise NotImplementedError


class Sla(Planner):
    """`optimization_target: sla`."""

    def __init__(self, name: str, minimum: int, maximum: int) -> None:
        super().__init__(name, minimum, maximum)
        self._ttft = Line()
        self._itl = Line()

    def observe(self, engines: Sequence[EngineView]) -> None:
        """Learns from the engines as they are."""
        for engine in engines:
            if engine.ttft is not None:
                self._ttft.add(engine.waiting, engine.ttft)
            if engine.itl is not None and engine.running:
                self._itl.add(engine.running, engine.itl)

    def change(self, engines: Sequence[EngineView], held: float) -> int:
        """+1, 0 or -1 replica; `held` requests wait for each engine beside its own."""
        ttft, itl = self._ttft.fitted(), self._itl.fitted()
        if ttft is None or itl is None:
            return 0
        waiting = [engine.waiting + held for engine in engines]
        load = [engine.running + engine.waiting + held for engine in engines]
        if all(ttft[0] + ttft[1] * count > TTFT for count in waiting):
            return 1
        if all(itl[0] + itl[1] * (count + 1) > ITL for count in load):
            return 1
        if len(engines) == 1:
            return 0
        grows = len(engines) / (len(engines) - 1)
        queueing = (TTFT - ttft[0]) * SENSITIVITY
        for engine, queue, count in zip(engines, waiting, load, strict=True):
            slow = queueing <= 0 or ttft[1] * queue * grows >= queueing
            slow = slow or itl[0] + itl[1] * (count * grows + 1) >= ITL * SENSITIVITY
            if slow or (engine.kv + queued(engine, engines, held)) * grows >= 1:
                return 0
        return -1


class Throughput(Planner):
    """`optimization_target: throughput`."""

    def change(self, engines: Sequence[EngineView], held: float) -> int:
        """+1, 0 or -1 replica; `held` requests wait for each engine beside its own."""
        use = [engine.kv + queued(engine, engines, held) for engine in engines]
        if any(share > UP for share in use):
            return 1
        return -1 if len(use) > 1 and all(share < DOWN for share in use) else 0


def queued(engine: EngineView, engines: Sequence[EngineView], held: float) -> float:
    """The share of `engine`'s KV cache that the prompts of its queue would take, by what a running request takes."""
    queue = engine.waiting + held
    if queue <= 0:
        return 0.0
    if not engine.running:
        return 1.0  # nothing to judge by, and a queue before an idle engine
    finished = sum(each.finished for each in engines)
    prompt = sum(each.prompted for each in engines) / finished if finished else 1.0
    answer = sum(each.generated for each in engines) / finished if finished else 0.0
    share = prompt / (prompt + answer / 2) if prompt > 0 else 1.0
    return engine.kv / engine.running * share * queue


def policy(cold_start: float, max_num_seqs: int, minimum: int, maximum: int) -> Policy:
    """Scaling to latencies, within `minimum` (at least 1) and `maximum` replicas."""
    return Sla("dynamo", minimum, maximum)


def policy_of_throughput(cold_start: float, max_num_seqs: int, minimum: int, maximum: int) -> Policy:
    """Scaling to KV use, within `minimum` (at least 1) and `maximum` replicas."""
    return Throughput("dynamo-throughput", minimum, maximum)
