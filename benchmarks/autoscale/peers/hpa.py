"""The HorizontalPodAutoscaler of Kubernetes, as the rules that end in one use it.

| constant | value | source |
| --- | --- | --- |
| sync period | 15 s | kubernetes/kubernetes `pkg/controller/podautoscaler/config/v1alpha1/defaults.go`, 85643c0f |
| tolerance | 0.1 | same file |
| scale-down stabilisation | 300 s | same file; none for scale-up: `pkg/apis/autoscaling/v2/defaults.go`, 1adaa753 |
| scale-up limit | the larger of 4 pods and 100 % in 15 s | `pkg/apis/autoscaling/v2/defaults.go`, 1adaa753 |
| scale-down limit | 100 % in 15 s | same file |
| metrics | `ceil(sum / target)`, or per pod with the missing ones | `replica_calculator.go`, 00067268 |

kubernetes.io says the same ("Horizontal Pod Autoscaling", sections "Algorithm details" and "Default Behavior").
An HPA without `behavior` uses an older limit in its code, the larger of 4 pods in all and double; the documented one is
used here, which is quicker.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.autoscale.peers.timing import clamp

SYNC = 15.0  # seconds
TOLERANCE = 0.1


@dataclass(frozen=True)
class Step:
    """How far a scale may move in `period` seconds: by `pods`, or by `percent` of what there was before."""

    period: float
    pods: int | None = None
    percent: float | None = None

    def up(self, start: int) -> int:
        """The most that may be reached from `start` replicas."""
        return start + self.pods if self.pods is not None else math.ceil(start * (1 + (self.percent or 0) / 100))

    def down(self, start: int) -> int:
        """The least that may be reached from `start` replicas."""
        return start - self.pods if self.pods is not None else int(start * (1 - (self.percent or 0) / 100))


@dataclass(frozen=True)
class Behavior:
    """The field `behavior` of an HPA; windows in seconds. Of several steps the one that allows the most counts."""

    up: tuple[Step, ...] = (Step(15, pods=4), Step(15, percent=100))
    down: tuple[Step, ...] = (Step(15, percent=100),)
    up_window: float = 0.0
    down_window: float = 300.0


class Hpa:
    """One HPA with what it remembers: its recommendations and the changes it made."""

    def __init__(self, minimum: int, maximum: int, behavior: Behavior | None = None) -> None:
        self.minimum = max(1, minimum)  # 0 needs the alpha gate HPAScaleToZero
        self.maximum = maximum
        self.behavior = behavior or Behavior()
        self._recommended: list[tuple[float, int]] = []
        self._changes: list[tuple[float, int]] = []

    def sync(self, now: float, current: int, proposed: int | None) -> int:
        """The replicas after a sync at which the metrics ask for `proposed`; None: they could not be read."""
        if not self._recommended:
            self._recommended.append((now, current))
        if not self.minimum <= current <= self.maximum:
            # Nobody scales from 0 here, and outside its bounds an HPA does not look at metrics.
            result = current if current == 0 else clamp(current, self.minimum, self.maximum)
        elif proposed is None:
            return current
        else:
            result = self._limited(now, current, self._stable(now, current, proposed))
        if result != current:
            self._changes.append((now, result - current))
        return result

    def _stable(self, now: float, current: int, proposed: int) -> int:
        rules = self.behavior
        ups = [count for at, count in self._recommended if at > now - rules.up_window]
        downs = [count for at, count in self._recommended if at > now - rules.down_window]
        longest = max(rules.up_window, rules.down_window)
        self._recommended = [(at, count) for at, count in self._recommended if at > now - longest]
        self._recommended.append((now, proposed))
        return min(max(current, min([proposed, *ups])), max([proposed, *downs]))

    def _limited(self, now: float, current: int, wanted: int) -> int:
        rules = self.behavior
        longest = max(step.period for step in (*rules.up, *rules.down))
        self._changes = [(at, change) for at, change in self._changes if at > now - longest]
        if wanted > current:
            limit = max(step.up(self._start(now, current, step.period)) for step in rules.up)
            wanted = min(wanted, max(limit, current))
        elif wanted < current:
            limit = min(step.down(self._start(now, current, step.period)) for step in rules.down)
            wanted = max(wanted, min(limit, current))
        return clamp(wanted, self.minimum, self.maximum)

    def _start(self, now: float, current: int, period: float) -> int:
        return current - sum(change for at, change in self._changes if at > now - period)


def external(total: float | None, target: float, pods: int, tolerance: float = TOLERANCE) -> int | None:
    """What a metric of type External or Object with an `averageValue` asks for; `pods` counts unready ones, too."""
    if total is None:
        return None
    if pods > 0 and abs(1 - total / (target * pods)) <= tolerance:
        return pods
    return math.ceil(total / target)


def per_pod(values: Sequence[float], missing: int, current: int, target: float) -> int | None:
    """What a metric of type Pods asks for.

    `missing` running pods report nothing: they count as at the target when the others ask for fewer replicas, as idle
    when they ask for more. None: no pod reports.
    """
    if not values:
        return None
    ratio = sum(values) / len(values) / target
    if not missing:
        return current if abs(1 - ratio) <= TOLERANCE else math.ceil(ratio * len(values))
    filled = [*values, *[target if ratio < 1 else 0.0] * missing]
    again = sum(filled) / len(filled) / target
    if abs(1 - again) <= TOLERANCE or (ratio < 1 < again) or (again < 1 < ratio):
        return current
    count = math.ceil(again * len(filled))
    if (again < 1 and count > current) or (again > 1 and count < current):
        return current
    return count
