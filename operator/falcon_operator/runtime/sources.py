"""The pods that say how much load there is: each with its newest sample, and a timer that asks for the next one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from falcon_operator.decide.autoscale.types import EngineSample, GatewaySample
from falcon_operator.observe.gateway import GatewayLink
from falcon_operator.observe.http import Http, Unreadable, url_of
from falcon_operator.observe.load import engine_names, read_engine

# An answer that takes longer is of no use: so much can have changed.
LOOK_SECONDS = 2.0
# A gateway without news answers after 20.
NEWS_SECONDS = 25.0
# One that had nothing new to say is not asked again sooner than so long after it was asked, even if it answers at once.
AGAIN_SECONDS = 1.0
# A pod that has not answered so many times is asked less often.
PATIENT_TIMES, PATIENT_SECONDS = 5, 5.0
# Turns that come later than this tell of this process, not of the pods.
LATE_SECONDS = 0.25
# Timers are due together, so many times a second: each turn of the event loop has a price of its own.
TURNS = 40

Sample = TypeVar("Sample", GatewaySample, EngineSample)


@dataclass(frozen=True)
class Means:
    """What all sources share. The clock is monotonic."""

    clock: Callable[[], float]
    http: Http
    gateway_port: int
    engine_port: int
    slots: asyncio.Semaphore  # for engines that are asked at the same time


class Source(Generic[Sample]):
    """One pod. `taken` is called after each answer and each failure, with the sample before it."""

    def __init__(self, address: str, means: Means, taken: Callable[[Source[Sample], Sample | None], None]) -> None:
        self.address, self.means = address, means
        self._taken: Callable[[Source[Sample], Sample | None], None] = taken
        self.sample: Sample | None = None
        self.problem: str | None = None  # why the newest question has no answer
        self.closed = False
        self._failures = 0
        self._timer: asyncio.TimerHandle | None = None
        self._when = 0.0
        self._phase, self._period = 0.0, 1.0

    @property
    def tried(self) -> bool:
        """Whether it has said something, or has been found to say nothing."""
        return self.sample is not None or self.problem is not None

    def beat(self, period: float, phase: float) -> None:
        """Ask so often; `phase`, 0 to 1, says when within the period."""
        before, self._period, self._phase = self._period, period, phase
        if self._timer is None or period != before:
            self.schedule()

    def schedule(self) -> None:
        """Have the next turn at its time."""
        patient = self._failures >= PATIENT_TIMES and self._period < PATIENT_SECONDS
        period = PATIENT_SECONDS if patient else self._period
        now = asyncio.get_running_loop().time()
        begun = math.floor(now / period - self._phase + 1e-6) + 1 + self._phase
        self.at(begun * period)

    def at(self, when: float) -> None:
        """Have the next turn at a time of the event loop."""
        if self._timer is not None:
            self._timer.cancel()
        self._when = math.ceil(when * TURNS - 1e-6) / TURNS
        self._timer = asyncio.get_running_loop().call_at(self._when, self._come_due)

    def hurry(self, when: float) -> None:
        """Have the next turn at this time of the event loop at the latest."""
        if self._timer is not None and when < self._when:
            self.at(when)

    def take(self, found: Sample | Unreadable) -> None:
        """Keep an answer."""
        before = self.sample
        if isinstance(found, Unreadable):
            self.problem = str(found)
            self._failures += 1
        else:
            self.sample, self.problem, self._failures = found, None, 0
        self._taken(self, before)

    def close(self) -> None:
        """Ask nothing more."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _come_due(self) -> None:
        self._timer = None
        self.turn()

    def turn(self) -> None:
        """Ask, and have the next turn."""
        raise NotImplementedError


class GatewaySource(Source[GatewaySample]):
    """A gateway: asked on each beat, or told to say when there is news where `idle` says so."""

    def __init__(
        self,
        address: str,
        means: Means,
        taken: Callable[[Source[GatewaySample], GatewaySample | None], None],
        idle: Callable[[], bool],
    ) -> None:
        super().__init__(address, means, taken)
        self._idle = idle
        self._excused = -math.inf  # when this process itself was late last
        self._link = GatewayLink(address, means.gateway_port, self._answered, means.clock)

    def wake(self) -> None:
        """Load has come elsewhere: go back to asking on each beat."""
        if self._link.open and self._link.waits:
            self._link.drop()
            self.schedule()

    def turn(self) -> None:
        """Ask, unless it is still to answer."""
        link = self._link
        if link.open:
            patience = NEWS_SECONDS if link.waits and link.connected else LOOK_SECONDS
            # Where this process itself has been late, the answer may only be yet to be read.
            if asyncio.get_running_loop().time() - self._when > LATE_SECONDS:
                self._excused = self.means.clock()
            if self.means.clock() - max(link.asked, self._excused) >= patience - 1 / TURNS:
                link.give_up()
        if self.closed:
            return
        if not link.open:
            self._ask()
        elif self._timer is None:
            self._wait()

    def close(self) -> None:
        """Ask nothing more, and end the connection."""
        super().close()
        self._link.close()

    def _ask(self) -> None:
        known = self.sample
        if known is not None and self.problem is None and self._idle():
            self._link.ask(known.arrived)
        else:
            self._link.ask()
        self._wait()

    def _wait(self) -> None:
        """Have the next turn on the next beat, or after all of the time that a wait for news may take."""
        if self._link.waits and self._link.connected:
            since = self.means.clock() - self._link.asked
            self.at(asyncio.get_running_loop().time() + max(NEWS_SECONDS - since, AGAIN_SECONDS))
        else:
            self.schedule()

    def _answered(self, found: GatewaySample | Unreadable) -> None:
        waited, asked = self._link.waits, self._link.asked
        self.take(found)
        if self.closed or not waited or self._link.open:
            return
        if self.problem is None and self._idle():
            # At once, so that no first request comes unnoticed, or a little later where it does not wait for news.
            soon = asked + AGAIN_SECONDS - self.means.clock()
            if soon <= 0:
                self._ask()
            else:
                self.at(asyncio.get_running_loop().time() + soon)
        else:
            self.schedule()


class EngineSource(Source[EngineSample]):
    """An engine: a question takes a connection of its own, since engines close theirs between two."""

    def __init__(
        self, address: str, means: Means, taken: Callable[[Source[EngineSample], EngineSample | None], None]
    ) -> None:
        super().__init__(address, means, taken)
        self._url = f"{url_of(address, means.engine_port)}/metrics"
        self._version: str | None = None
        self._names = engine_names(None)
        self._reading: asyncio.Task[None] | None = None

    def called(self, version: str | None) -> None:
        """The engines' version, which says what their metrics are called."""
        if version != self._version:
            self._version, self._names = version, engine_names(version)

    def rest(self) -> None:
        """Ask no more until the next beat is laid."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def turn(self) -> None:
        """Ask, unless it is still to answer."""
        self.schedule()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name=f"load of {self.address}")

    def close(self) -> None:
        """Ask nothing more."""
        super().close()
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        found: EngineSample | Unreadable
        try:
            async with self.means.slots:
                found = await read_engine(self.means.http, self._url, self._names, self.means.clock)
        except Unreadable as problem:
            found = problem
        finally:
            self._reading = None
        if not self.closed:
            self.take(found)
