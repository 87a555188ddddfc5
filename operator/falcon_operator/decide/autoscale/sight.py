"""From samples of different ages to what is known of the load now."""

from __future__ import annotations

from dataclasses import dataclass

from falcon_operator.decide.autoscale.types import Config, Signals

# A sample that is older says nothing of now. Gateways are asked each second and may take two to answer; an idle one
# answers every 20 seconds, or at once when that ends.
FRESH_SECONDS = 5.0
IDLE_SECONDS = 30.0


@dataclass(frozen=True)
class Sight:
    """The load as the sources say it that could be read; counts are of requests."""

    kind: str  # of sources: gateway or engine
    expected: int
    fresh: int
    in_flight: float
    held: float
    counters: dict[str, tuple[float, float]]  # when it was asked, and the requests that had come, by source

    @property
    def blind(self) -> bool:
        """Whether nothing is known."""
        return self.fresh == 0

    @property
    def half(self) -> bool:
        """Whether too little is known to remove anything."""
        return 2 * self.fresh < self.expected

    @property
    def words(self) -> str:
        """What was looked at; the same while the same things are."""
        plural = self.kind if self.expected == 1 else f"{self.kind}s"
        return f"{self.fresh} of {self.expected} {plural}"


def look(signals: Signals, config: Config, now: float) -> Sight:
    """What the gateways say, or the engines where requests do not come through one.

    A source that cannot be read any more is taken to be as busy as it was, and one that never could as the others.
    """
    if config.gateway:
        samples = {
            uid: (s.at, s.in_flight, s.held, s.arrived, s.in_flight + s.held == 0)
            for uid, s in signals.gateways.items()
        }
        kind, expected = "gateway", signals.gateways_expected
    else:
        samples = {
            uid: (s.at, s.running, s.waiting, s.finished + s.running + s.waiting, False)
            for uid, s in signals.engines.items()
        }
        kind, expected = "engine", signals.engines_expected
    known = {
        uid: found
        for uid, found in samples.items()
        if -1 <= now - found[0] <= (IDLE_SECONDS if found[4] else FRESH_SECONDS)
    }
    missing = max(expected - len(samples), 0)
    of_others = missing / len(known) if known else 0.0
    return Sight(
        kind=kind,
        expected=max(expected, len(samples)),
        fresh=len(known),
        in_flight=sum(f[1] for f in samples.values()) + of_others * sum(f[1] for f in known.values()),
        held=sum(f[2] for f in samples.values()) + of_others * sum(f[2] for f in known.values()),
        counters={uid: (f[0], f[3]) for uid, f in known.items()},
    )
