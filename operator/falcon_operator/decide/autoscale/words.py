"""The sentences of a decision."""

from __future__ import annotations

from falcon_operator.decide.autoscale.demand import Demand
from falcon_operator.decide.autoscale.sight import Sight
from falcon_operator.decide.autoscale.types import Config, Fleet, Limit


def unknown(sight: Sight, problem: str | None, replicas: int) -> str:
    """Nothing is known of the load."""
    why = f": {problem}" if problem else ""
    if sight.expected == 0:
        why = f": no {sight.kind} is ready"
    return f"The load is not known{why}. The number of engines stays at {replicas} until it is."


def frozen(replicas: int) -> str:
    """The number stays since nothing is known."""
    return f"Kept at {replicas}, since the load is not known."


def paused(why: str) -> str:
    """The number stays for a while."""
    return f"Kept while {why}."


def bounds(config: Config) -> str:
    """The number was out of its bounds."""
    return f"Brought between minReplicas {config.min_replicas} and maxReplicas {config.max_replicas}."


def up(load: Demand, sight: Sight, use: float) -> str:
    """More engines are needed."""
    waiting = f", {sight.held:.0f} requests wait" if sight.held >= 1 else ""
    return f"The load needs {load.steady:.1f} engines at full use{waiting}; {_limit(use)}."


def held_back(wanted: int, limit: Limit | None, fleet: Fleet, config: Config) -> str:
    """More engines are needed and cannot be had."""
    if limit is Limit.MAX_REPLICAS:
        return f"The load needs {wanted} engines, and maxReplicas is {config.max_replicas}."
    if fleet.unplaced:
        return f"The load needs {wanted} engines, and {fleet.unplaced} of {fleet.replicas} pods find no GPU."
    return f"The load needs {wanted} engines, and the compatible nodes hold {config.gpus}."


def enough(load: Demand, use: float) -> str:
    """The number is right."""
    return f"The load needs {load.steady:.1f} engines at full use; {_limit(use)}."


def half(sight: Sight) -> str:
    """Too little is known to remove engines."""
    return f"Nothing is removed while only {sight.words} can be read."


def window(seconds: float) -> str:
    """Load has not been low for long enough."""
    return f"Fewer engines would do, and are removed when that was so for {seconds:.0f} s."


def idle(config: Config) -> str:
    """The last engine may go."""
    return f"There was no request for {config.zero_after:.0f} s."


def down(load: Demand, use: float, seconds: float) -> str:
    """Fewer engines are needed."""
    return f"For {seconds:.0f} s the load needed fewer engines, now {load.steady:.1f} at full use; {_limit(use)}."


def _limit(use: float) -> str:
    return f"by targetUtilization, and how requests come in crowds, each is to be used at {100 * use:.0f} %"
