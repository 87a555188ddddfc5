"""What the autoscaler looks at, what it remembers and what it says. Times are seconds of one monotonic clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from falcon_operator.api.reasons import Reason


@dataclass(frozen=True)
class GatewaySample:
    """One look at one gateway, `at` the time when it was asked; all counts are of requests.

    `arrived` is a counter: what clients have asked of engines since this gateway started, held requests included.
    """

    at: float
    in_flight: float  # that engines work on through this gateway
    held: float  # that wait in it
    arrived: float


@dataclass(frozen=True)
class EngineSample:
    """One look at one engine's metrics, `at` the time when it was asked.

    `prompt_tokens`, `generation_tokens` and `finished` (requests) are counters since the engine started, and so is
    `token_seconds`: what all tokens but first ones took since the one before, that is seconds times the sequences that
    decode. None where the engine does not say.
    """

    at: float
    running: float
    waiting: float
    prompt_tokens: float
    generation_tokens: float
    finished: float
    token_seconds: float | None = None


@dataclass(frozen=True)
class Signals:
    """The newest sample of each pod that is Ready and whose answer could be read, by the pod's UID.

    A pod that does not answer keeps its last sample, which ages. `problem` says in a few words why one of them is
    missing or old.
    """

    gateways: Mapping[str, GatewaySample] = field(default_factory=dict)
    gateways_expected: int = 0  # Ready gateways; 0 where there is no gateway and engines are the only signal
    engines: Mapping[str, EngineSample] = field(default_factory=dict)
    engines_expected: int = 0  # Ready engines
    problem: str | None = None


@dataclass(frozen=True)
class Fleet:
    """The engines as they are."""

    replicas: int  # the Deployment's spec.replicas
    ready: int
    starting: tuple[float, ...] = ()  # seconds since the creation of each pod that has a node and is not Ready yet
    unplaced: int = 0  # pods that found no node
    has_served: bool = True  # whether any engine of this resource was ever Ready


@dataclass(frozen=True)
class Config:
    """What the spec asks for, and what is known of the engine and the cluster."""

    min_replicas: int
    max_replicas: int
    target: float = 0.7  # share of an engine's capacity that should be in use
    window: float = 600.0  # seconds for which load must stay low before replicas are removed
    zero_after: float = 1800.0  # seconds without a request until the last replica is removed
    per_engine: int = 256  # sequences that one engine takes at a time
    cold_start: float | None = None  # seconds, as last measured
    gpus: int | None = None  # replicas that all compatible nodes together can hold; None where that is not known
    gateway: bool = True  # whether requests come through a gateway, which holds them while no engine is ready
    paused: str | None = None  # why the number must not change now, such as a rollout, in words


class Limit(StrEnum):
    """What keeps the number from what load asks for."""

    MIN_REPLICAS = "minReplicas"
    MAX_REPLICAS = "maxReplicas"
    CAPACITY = "capacity"  # GPUs
    WINDOW = "scaleDownWindow"
    ROLLOUT = "rollout"
    METRICS = "metrics"  # too little is known to remove anything


@dataclass(frozen=True)
class Decision:
    """How many engines there should be.

    `reason` is a sentence for people. `unknown` is a reason and a sentence where nothing is known of the load and the
    number is frozen. `signal` says what was looked at, in words that stay the same while the same things are read.
    """

    replicas: int
    reason: str
    signal: str
    limited_by: Limit | None = None
    unknown: tuple[Reason, str] | None = None
    demand: float | None = None  # engines' worth of work, before targets and bounds; None where it is not known
    doubtful: bool = False  # there may be more load than usual: a look soon would tell
