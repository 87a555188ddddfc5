"""From an answer of a gateway or an engine to one sample of the load. Times are seconds of one monotonic clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from falcon_engine import profiles
from falcon_operator.decide.autoscale.types import EngineSample, GatewaySample
from falcon_operator.observe.figures import totals
from falcon_operator.observe.http import Http, Unreadable

ENGINE_BYTES = 1024 * 1024
ENGINE_SECONDS = 2.0

Names = Mapping[str, Sequence[str]]

_GATEWAY: Names = {
    "in_flight": ("falcon_gateway_in_flight_requests",),
    "held": ("falcon_gateway_held_requests",),
    "arrived": ("falcon_gateway_arrived_requests_total",),
    "waited": ("falcon_gateway_waited_seconds",),
}
_ENGINE = ("running", "waiting", "prompt_tokens", "generation_tokens", "request_success")
# The sum of a histogram, which an engine need not have.
_TOKEN_SECONDS = "token_seconds"


def gateway_sample(body: bytes, asked: float, answered: float) -> GatewaySample:
    """What a gateway says; an answer that waited for news is of the end of that wait. Raises `Unreadable`."""
    found = totals(body, _GATEWAY)
    at = min(asked + found["waited"], answered)
    return GatewaySample(at, found["in_flight"], found["held"], found["arrived"])


def engine_names(version: str | None) -> Names:
    """What the metrics of this version of vLLM are called; those of the nearest one that is known."""
    record = profiles.select(version)[0].facts.get("metrics") or {}
    known: Names = record.get("value") or {}
    histograms = known.get("inter_token_latency") or ()
    return {key: known.get(key) or () for key in _ENGINE} | {_TOKEN_SECONDS: [f"{name}_sum" for name in histograms]}


def engine_sample(body: bytes, asked: float, names: Names) -> EngineSample:
    """What an engine says. Raises `Unreadable`."""
    tells = any(b"\n" + name.encode() in body for name in names[_TOKEN_SECONDS])
    found = totals(body, names if tells else {key: names[key] for key in _ENGINE})
    return EngineSample(
        at=asked,
        running=found["running"],
        waiting=found["waiting"],
        prompt_tokens=found["prompt_tokens"],
        generation_tokens=found["generation_tokens"],
        finished=found["request_success"],
        token_seconds=found.get(_TOKEN_SECONDS),
    )


async def read_engine(http: Http, url: str, names: Names, clock: Callable[[], float]) -> EngineSample:
    """Ask one engine. Raises `Unreadable`."""
    asked = clock()
    body = await http.get(url, at_most=ENGINE_BYTES, seconds=ENGINE_SECONDS)
    try:
        return engine_sample(body, asked, names)
    except Unreadable as problem:
        raise Unreadable(f"{url} {problem}") from None
