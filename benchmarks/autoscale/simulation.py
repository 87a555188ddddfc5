"""Plays a load to a fleet that one policy scales: gateway, engines and pods in virtual time."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol, runtime_checkable

from benchmarks.autoscale.engine import EngineLaw
from benchmarks.autoscale.pods import Pod
from benchmarks.autoscale.policy import Policy, View
from benchmarks.autoscale.trace import Load

# Seconds: a request is held so long at most; so long a pod that is to go may take for the answers it has begun.
HELD_AT_MOST = 600.0
DRAINED_AFTER = 300.0
# The objective, in seconds.
TTFT, TPOT = 2.0, 0.05
# A policy that rests looks again so soon after a request comes, and after so many seconds without one.
_WOKEN, _RESTED = 0.05, 20.0

_TURN, _READY, _CUT = 0, 1, 2


@runtime_checkable
class Resting(Protocol):
    """A policy that need not be asked while nothing happens."""

    def rests(self) -> bool:
        """Whether it waits for the next request."""
        ...


@dataclass(frozen=True)
class Setting:
    """What is the same for all policies; `initial` replicas are ready at the beginning."""

    law: EngineLaw
    cold_start: float  # seconds from creation to Ready
    least: int = 1
    most: int = 32
    initial: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of all requests under one policy; times in seconds."""

    policy: str
    slo_attainment: float  # share of all requests
    gpu_hours: float
    ttft_p50: float
    ttft_p99: float
    scalings_per_hour: float
    failed: int
    seconds: float  # of the trace
    moves: tuple[tuple[float, int], ...]  # time, desired replicas from then on; the first is the beginning
    pods: tuple[tuple[float, int], ...]  # time, pods that count from then on


class Simulation:
    """One run; `run` may be called once."""

    def __init__(self, load: Load, setting: Setting, policy: Policy) -> None:
        self._load, self._setting, self._policy = load, setting, policy
        many = len(load)
        self._sent_at, self._first, self._last = ([math.nan] * many for _ in range(3))
        self._failed: dict[int, float] = {}  # request, when
        self._held: deque[int] = deque()
        self._pods: dict[int, Pod] = {}  # that are not gone
        self._serving: list[Pod] = []
        self._events: list[tuple[float, int, int]] = []
        self._arrived = self._sent = self._flying = self._created = 0
        self._desired = setting.initial
        self._moves = [(0.0, setting.initial)]
        self._counts = [(0.0, setting.initial)]
        self._gpu_seconds = 0.0
        for _ in range(setting.initial):
            self._create(0.0, 0.0)

    def run(self) -> Outcome:
        """Until the trace has ended and all requests that came are answered or have failed."""
        at, events, policy = self._load.at, self._events, self._policy
        many, end = len(at), self._load.end
        looks, look_at = 0, 0.0
        now = 0.0
        while True:
            arrival = at[self._arrived] if self._arrived < many else math.inf
            event = events[0][0] if events else math.inf
            if event <= arrival and event <= look_at:
                if event == math.inf:
                    break
                now = max(now, event)
                self._event(now)
            elif arrival <= look_at:
                now = arrival
                self._arrive(now)
            else:
                now = look_at
                self._look(now)
                looks += 1
                look_at = max(looks * policy.interval, look_at + policy.interval / 2)
                if isinstance(policy, Resting) and policy.rests():
                    coming = at[self._arrived] if self._arrived < many else math.inf
                    wake = min(coming + _WOKEN, now + _RESTED)
                    if wake > look_at:
                        look_at = wake
                        looks = math.ceil(wake / policy.interval)
                if look_at > end:
                    look_at = math.inf
        for request in self._held:
            self._failed[request] = at[request] + HELD_AT_MOST
        for pod in self._pods.values():
            self._count(pod, end)
        return self._outcome()

    def _event(self, now: float) -> None:
        due, kind, uid = heappop(self._events)
        pod = self._pods.get(uid)
        if pod is None:
            return
        if kind == _TURN:
            if due == pod.engine.next_at:
                self._turn(pod, now)
        elif kind == _READY:
            self._serving.append(pod)
            self._send(now)
        else:
            self._cut(pod, now)

    def _turn(self, pod: Pod, now: float) -> None:
        engine = pod.engine
        at = engine.next_at
        begun, ended = engine.turn()
        for request in begun:
            self._first[request] = at
            pod.first_tokens += 1
            pod.first_waits += at - self._sent_at[request]
        for request in ended:
            self._last[request] = at
        self._flying -= len(ended)
        if engine.next_at != math.inf:
            heappush(self._events, (engine.next_at, _TURN, pod.uid))
        elif pod.draining:
            self._gone(pod, now)
            return
        if ended and self._held and not pod.draining:
            self._send(now)

    def _arrive(self, now: float) -> None:
        request = self._arrived
        self._arrived += 1
        self._held.append(request)
        self._send(now)

    def _send(self, now: float) -> None:
        """What is held goes to the engine with the fewest requests that has room, the one that waits longest first."""
        held, load = self._held, self._load
        while held:
            if load.at[held[0]] < now - HELD_AT_MOST:
                self._fail_old(now)
                continue
            least, found = self._setting.law.most, None
            for pod in self._serving:
                its = pod.engine.load
                if its < least or (its == least and found is not None and pod.sent < found.sent):
                    least, found = its, pod
            if found is None:
                return
            request = held.popleft()
            self._sent += 1
            self._flying += 1
            found.sent = self._sent
            self._sent_at[request] = now
            engine = found.engine
            before = engine.next_at
            engine.put(request, load.prompt[request], load.answer[request], now)
            if engine.next_at != before:
                heappush(self._events, (engine.next_at, _TURN, found.uid))

    def _fail_old(self, now: float) -> None:
        while self._held and self._load.at[self._held[0]] < now - HELD_AT_MOST:
            request = self._held.popleft()
            self._failed[request] = self._load.at[request] + HELD_AT_MOST

    def _look(self, now: float) -> None:
        self._fail_old(now)
        setting, serving = self._setting, self._serving
        view = View(
            now=now,
            replicas=self._desired,
            ready=len(serving),
            starting=tuple(now - p.created for p in self._pods.values() if p.ready_at > now and not p.draining),
            engines=tuple(pod.view(now, setting.law.most) for pod in serving),
            held=len(self._held),
            in_flight=self._flying,
            arrived=self._arrived,
        )
        wanted = min(max(self._policy.desired(view), setting.least), setting.most)
        if wanted == self._desired:
            return
        for _ in range(wanted - self._desired):
            self._create(now, now + setting.cold_start)
        for _ in range(self._desired - wanted):
            self._remove(now)
        self._desired = wanted
        self._moves.append((now, wanted))
        self._counts.append((now, len(self._pods)))

    def _create(self, now: float, ready_at: float) -> None:
        self._created += 1
        pod = Pod(self._created, self._setting.law, now, ready_at)
        self._pods[pod.uid] = pod
        if ready_at <= now:
            self._serving.append(pod)
        else:
            heappush(self._events, (ready_at, _READY, pod.uid))

    def _remove(self, now: float) -> None:
        """Of those that start the newest, else the one with the fewest requests."""
        starting = [p for p in self._pods.values() if p.ready_at > now]
        if starting:
            self._gone(starting[-1], now)
            return
        pod = min(self._serving, key=lambda p: (p.engine.load, -p.uid))
        self._serving.remove(pod)
        pod.draining = True
        if pod.engine.load:
            heappush(self._events, (now + DRAINED_AFTER, _CUT, pod.uid))
        else:
            self._gone(pod, now)

    def _cut(self, pod: Pod, now: float) -> None:
        for request in pod.engine.requests():
            self._failed[request] = now
            self._flying -= 1
        self._gone(pod, now)

    def _gone(self, pod: Pod, now: float) -> None:
        pod.gone_at = now
        del self._pods[pod.uid]
        self._count(pod, self._load.end)
        self._counts.append((now, len(self._pods)))

    def _count(self, pod: Pod, end: float) -> None:
        """GPU time from creation until it is gone, as far as the trace goes."""
        self._gpu_seconds += max(min(pod.gone_at, end) - pod.created, 0.0)

    def _outcome(self) -> Outcome:
        load, first, last, failed = self._load, self._first, self._last, self._failed
        met = 0
        waits: list[float] = []
        for request, at in enumerate(load.at):
            begun, answer = first[request], load.answer[request]
            if begun != begun:  # it never began
                waits.append(failed[request] - at)
                continue
            waits.append(begun - at)
            if request in failed or begun - at > TTFT:
                continue
            met += answer == 1 or last[request] - begun <= TPOT * (answer - 1)
        waits.sort()
        return Outcome(
            policy=self._policy.name,
            slo_attainment=met / len(load),
            gpu_hours=self._gpu_seconds / 3600,
            ttft_p50=_quantile(waits, 0.5),
            ttft_p99=_quantile(waits, 0.99),
            scalings_per_hour=(len(self._moves) - 1) * 3600 / load.end,
            failed=len(failed),
            seconds=load.end,
            moves=tuple(self._moves),
            pods=tuple(self._counts),
        )


def _quantile(ordered: list[float], share: float) -> float:
    """The least value that such a share of all does not exceed."""
    return ordered[min(max(math.ceil(share * len(ordered)) - 1, 0), len(ordered) - 1)]
