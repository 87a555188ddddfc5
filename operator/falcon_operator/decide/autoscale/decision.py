"""How many engines there should be."""

from __future__ import annotations

import math
from dataclasses import replace

from falcon_operator.api.reasons import Reason
from falcon_operator.decide.autoscale import headroom, words
from falcon_operator.decide.autoscale.demand import Demand, cold_start, demand, used
from falcon_operator.decide.autoscale.history import History
from falcon_operator.decide.autoscale.learning import learn
from falcon_operator.decide.autoscale.sight import Sight, look
from falcon_operator.decide.autoscale.state import State
from falcon_operator.decide.autoscale.types import Config, Decision, Fleet, Limit, Signals

# After a pause in which nothing was seen, what was seen before says nothing: an operator slept, or its clock jumped.
_GAP_SECONDS = 60.0
# The use of engines is averaged over so many seconds, since a crowd of requests is not load that stays; over less while
# it is all that is known: where no answer has ended yet, requests only become more.
_MEAN_SECONDS, _UNKNOWN_SECONDS = 60.0, 10.0
# At most such a part of the engines is removed at once. Whether that was right is then looked at for as long as it
# would take to have them back, between these seconds.
_DOWN_SHARE = 0.5
_DOWN_SOONEST, _DOWN_LATEST = 15.0, 60.0
_ALMOST = 1e-6


def decide(signals: Signals, fleet: Fleet, config: Config, state: State, now: float) -> tuple[Decision, State]:
    """One look; the same inputs give the same answer. The state is to be passed to the next look."""
    sight = look(signals, config, now)
    bounded = min(max(fleet.replicas, config.min_replicas), config.max_replicas)
    if sight.blind:
        unknown = (Reason.METRICS_UNKNOWN, words.unknown(sight, signals.problem, bounded))
        return Decision(bounded, words.frozen(bounded), sight.words, Limit.METRICS, unknown), state
    state = _moved(_observed(sight, signals, fleet, config, state, now), fleet, now)
    pace = state.arrivals.pace(now)
    load = demand(sight, fleet, config, state, pace.rate)
    history = state.history.seen(load.steady, now, state.looked)
    state = replace(state, history=history, looked=now)
    if config.paused is not None and bounded == fleet.replicas > 0:
        return Decision(bounded, words.paused(config.paused), sight.words, Limit.ROLLOUT, demand=load.both), state
    if bounded != fleet.replicas:
        return Decision(bounded, words.bounds(config), sight.words, _bound(bounded, config), demand=load.both), state
    decision = _decision(sight, load, fleet, config, state, pace.changed, now)
    return replace(decision, doubtful=True) if pace.doubtful else decision, state


def _observed(sight: Sight, signals: Signals, fleet: Fleet, config: Config, state: State, now: float) -> State:
    """The state with this look's counts."""
    if state.looked is not None and not 0 <= now - state.looked <= _GAP_SECONDS:
        state = State(since=now, learned=state.learned)
    window = window_of(config)
    history, since = state.history, state.since
    if history.window != window:
        fresh = History.over(window)
        # Slices of another width say nothing: the window begins anew. What a start takes changes a little each time.
        history, since = (fresh, now) if history.width != fresh.width else (replace(history, window=window), since)
    evidence, learned = learn(state.evidence, state.learned, dict(signals.engines))
    passed = now - state.looked if state.looked is not None else math.inf
    share = 1 - math.exp(-passed / _MEAN_SECONDS)
    known = learned.engine(config.per_engine) is not None
    of_use = share if known else 1 - math.exp(-passed / _UNKNOWN_SECONDS)
    arrivals = state.arrivals.seen(sight.counters, now, cold_start(config))
    came = arrivals.total > state.arrivals.total or sight.in_flight + sight.held > 0 or not fleet.has_served
    return replace(
        state,
        since=since,
        learned=learned,
        evidence=evidence,
        arrivals=arrivals.keep(set(signals.gateways if config.gateway else signals.engines)),
        history=history,
        used=state.used + of_use * (used(sight, fleet, config, learned) - state.used),
        in_flight=state.in_flight + share * (sight.in_flight - state.in_flight),
        requested=now if came or state.requested is None else state.requested,
    )


def _moved(state: State, fleet: Fleet, now: float) -> State:
    """The state with the change of the number since the last look: what is decided may not come to be."""
    before = state.replicas if state.replicas is not None else fleet.replicas
    if state.replicas == fleet.replicas:
        return state
    added = now if fleet.replicas > before else state.added
    removed = now if fleet.replicas < before else state.removed
    return replace(state, replicas=fleet.replicas, added=added, removed=removed)


def window_of(config: Config) -> float:
    """Seconds for which demand must be low before engines are removed: a start must be worth its while."""
    return max(config.window, 3 * config.cold_start) if config.cold_start else config.window


def _decision(
    sight: Sight, load: Demand, fleet: Fleet, config: Config, state: State, changed: bool, now: float
) -> Decision:
    use = headroom.limit(config, state, load.steady)
    # What is known of a change already leaves luck out; an average may be off to both sides.
    crowded = use if changed else headroom.too_much(use)
    up, down = _up(sight, load, fleet, use, crowded), _down(load, fleet, config, state, use)
    limit: Limit | None = None
    if up > fleet.replicas:
        wanted, limit = _within_capacity(up, fleet, config)
        reason = words.up(load, sight, use) if wanted > fleet.replicas else words.held_back(up, limit, fleet, config)
        return Decision(wanted, reason, sight.words, limit, demand=load.both)
    if _idle(fleet, config, state, now) and not sight.half:
        return Decision(0, words.idle(config), sight.words, demand=load.both)
    if down == fleet.replicas:
        return Decision(down, words.enough(load, use), sight.words, _bound(down, config), demand=load.both)
    if sight.half:
        return Decision(fleet.replicas, words.half(sight), sight.words, Limit.METRICS, demand=load.both)
    rest = min(max(cold_start(config), _DOWN_SOONEST), _DOWN_LATEST)
    waited = state.removed is None or now - state.removed >= rest
    if now - max(state.since, state.added or state.since) < window_of(config) or not waited:
        reason = words.window(window_of(config))
        return Decision(fleet.replicas, reason, sight.words, Limit.WINDOW, demand=load.both)
    at_most = max(1, math.floor(fleet.replicas * _DOWN_SHARE))
    wanted = max(down, fleet.replicas - at_most)
    return Decision(wanted, words.down(load, use, window_of(config)), sight.words, demand=load.both)


def _up(sight: Sight, load: Demand, fleet: Fleet, use: float, crowded: float) -> int:
    """How many engines are to be there at least; more than there are only where these are used more than `crowded`."""
    if fleet.replicas == 0:
        awake = sight.held + sight.in_flight > 0
        return max(1, _engines(load, use)) if awake else 0
    if not fleet.has_served:
        return fleet.replicas  # more of what has never worked would not work either
    enough = max(load.steady / crowded, load.both) <= fleet.replicas + _ALMOST
    return fleet.replicas if enough else max(fleet.replicas, _engines(load, use))


def _engines(load: Demand, use: float) -> int:
    """What waits is a crowd, for which engines have room."""
    return math.ceil(max(load.steady / use, load.both) - _ALMOST)


def _down(load: Demand, fleet: Fleet, config: Config, state: State, use: float) -> int:
    """How many engines would be enough for what was seen in the window, and for peaks of the last hour."""
    if fleet.replicas <= config.min_replicas:
        return fleet.replicas
    seen = state.history.summary
    # A short peak may use engines all of their time.
    kept = max(seen.busiest / headroom.enough(use), seen.peak, seen.again, load.both / use)
    whole = math.ceil(kept - _ALMOST)
    return min(fleet.replicas, max(whole, 1, config.min_replicas))


def _idle(fleet: Fleet, config: Config, state: State, now: float) -> bool:
    """Whether the last engines may go. Until one has served, requests may still come that nobody could answer yet."""
    if config.min_replicas > 0 or fleet.replicas == 0 or state.requested is None:
        return False
    return now - state.requested >= config.zero_after


def _within_capacity(wanted: int, fleet: Fleet, config: Config) -> tuple[int, Limit | None]:
    """As many as bounds and GPUs let be."""
    limit: Limit | None = None
    if wanted > config.max_replicas:
        wanted, limit = config.max_replicas, Limit.MAX_REPLICAS
    room = fleet.replicas if fleet.unplaced else config.gpus
    if room is not None and wanted > max(room, fleet.replicas):
        wanted, limit = max(room, fleet.replicas), Limit.CAPACITY
    return wanted, limit


def _bound(replicas: int, config: Config) -> Limit | None:
    if replicas >= config.max_replicas:
        return Limit.MAX_REPLICAS
    return Limit.MIN_REPLICAS if replicas <= config.min_replicas else None
