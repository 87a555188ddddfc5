"""This operator's own rule: the decision function that runs in production, fed as its runtime feeds it."""

from __future__ import annotations

from benchmarks.autoscale.policy import View
from falcon_operator.decide.autoscale.decision import decide
from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import Config, EngineSample, Fleet, GatewaySample, Signals

# Seconds: each of two gateways is read once in one, half of it apart; engines are read once in five; after ten without
# a request the gateways say when there is one.
_GATEWAYS = 2
_LOOK = 1.0 / _GATEWAYS
_ENGINES = 10.0
_IDLE = 10.0


class Falcon:
    """Requests are taken to be split evenly between the gateways; what one of them says is half a second older."""

    name = "falcon"
    interval = _LOOK

    def __init__(self, cold_start: float, per_engine: int, least: int, most: int) -> None:
        self._config = Config(min_replicas=least, max_replicas=most, cold_start=cold_start, per_engine=per_engine)
        self._state: State | None = None
        self._gateways: dict[str, GatewaySample] = {}
        self._engines: dict[str, EngineSample] = {}
        self._engines_read: float | None = None
        self._turn = 0
        self._busy = 0.0
        self._arrived = 0
        self._rests = False

    def rests(self) -> bool:
        """Whether nothing has happened for a while."""
        return self._rests

    def desired(self, view: View) -> int:
        """One look at one gateway, and the decision."""
        now = view.now
        if view.held or view.in_flight or view.arrived != self._arrived:
            self._busy, self._arrived = now, view.arrived
        idle, self._rests = self._rests, now - self._busy >= _IDLE
        for turn in range(_GATEWAYS) if idle or not self._gateways else (self._turn,):
            self._gateways[f"gateway-{turn}"] = GatewaySample(
                at=now,
                in_flight=(view.in_flight + turn) // _GATEWAYS,
                held=(view.held + turn) // _GATEWAYS,
                arrived=(view.arrived + turn) // _GATEWAYS,
            )
        self._turn = (self._turn + 1) % _GATEWAYS
        if self._engines_read is None or now - self._engines_read >= _ENGINES - _LOOK / 2:
            self._engines_read = now
            self._engines = {
                f"engine-{e.uid}": EngineSample(
                    now, e.running, e.waiting, e.prompted, e.generated, e.finished, e.token_seconds
                )
                for e in view.engines
            }
        else:
            ready = {f"engine-{e.uid}" for e in view.engines}
            self._engines = {uid: sample for uid, sample in self._engines.items() if uid in ready}
        signals = Signals(self._gateways, _GATEWAYS, self._engines, view.ready)
        fleet = Fleet(view.replicas, view.ready, view.starting)
        state = self._state or State(since=now)
        decision, self._state = decide(signals, fleet, self._config, state, now)
        return decision.replicas
