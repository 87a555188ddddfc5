"""An autoscaler among pods that the tests play."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.unit.load_pods import Engine, Gateway, pod

from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import Config, Decision, Fleet, Signals
from falcon_operator.decide.types import Watch
from falcon_operator.runtime.autoscaler import Autoscaler

KEY = ("ns", "web")
CONFIG = Config(min_replicas=0, max_replicas=8)
FLEET = Fleet(replicas=2, ready=2)
ONE, TWO = "127.0.0.1", "127.0.0.2"


def watch(*gateways: Gateway, engines: tuple[Engine, ...] = (), config: Config = CONFIG, **more: Any) -> Watch:
    """Pods that are called as their addresses."""
    pods = [tuple(pod(server.address, server.address) for server in servers) for servers in (gateways, engines)]
    return Watch(**{"config": config, "fleet": FLEET, "gateways": pods[0], "engines": pods[1], **more})


class Setting:
    """An autoscaler whose decision the test makes, and everything that it did."""

    def __init__(self, port: int) -> None:
        self.decision: Callable[[Signals, Fleet], Decision] = lambda _, fleet: Decision(
            fleet.replicas, "Enough.", "all"
        )
        self.looks: list[tuple[Signals, Fleet, float]] = []
        self.states: list[State] = []
        self.changed: list[tuple[str, str]] = []
        self.ahead = 0.0  # of the monotonic clock
        self.looked = asyncio.Event()
        self.autoscaler = Autoscaler(
            self.changed.append,
            gateway_port=port,
            engine_port=port,
            decision=self._decide,
            clock=lambda: time.monotonic() + self.ahead,
            jitter=lambda: 0.3,
        )

    def _decide(
        self, signals: Signals, fleet: Fleet, config: Config, state: State, now: float
    ) -> tuple[Decision, State]:
        self.looks.append((signals, fleet, now))
        self.states.append(state)
        self.looked.set()
        return self.decision(signals, fleet), replace(state, looked=now)

    @property
    def signals(self) -> Signals:
        return self.looks[-1][0]

    async def until(self, reached: Callable[[], bool], seconds: float = 20.0) -> None:
        """Look until something is so."""
        async with asyncio.timeout(seconds):
            while not reached():
                self.looked.clear()
                await self.looked.wait()

    async def looks_more(self, times: int) -> None:
        count = len(self.looks) + times
        await self.until(lambda: len(self.looks) >= count)


Pair = tuple[Gateway, Gateway, Setting]


async def until_asked(gateway: Gateway, reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not reached():
            gateway.news.clear()
            await gateway.news.wait()
