"""Learns an engine's law and its requests' lengths from the counters of engines, looked at every few seconds.

While sequences run, an engine is busy, and the time between two looks is what its prompts, steps and tokens took: a
line in three unknowns. They are sought near the known law, all of it faster or slower, since traffic that never changes
its mix says little of the parts alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from falcon_operator.decide.autoscale.engine_law import DEFAULT, Law, Learned
from falcon_operator.decide.autoscale.types import EngineSample

# An engine with fewer sequences than these may have had none in between, and then was not busy all the time.
_BUSY = 4.0
# What was seen so many engine-seconds ago counts half.
_HALF_LIFE = 1200.0
# The parts stay near the common factor unless so many engine-seconds of evidence say otherwise.
_RIDGE = 60.0
# No engine is so much faster or slower than the one that was measured.
_LEAST, _MOST = 1 / 20, 20.0
# Before that many engine-seconds the law is not touched.
_ENOUGH = 10.0
# Requests' lengths: what was so many requests ago of one engine, and so many seconds, counts half.
_REQUESTS, _SECONDS = 400.0, 300.0
# Until as many have ended as run, most tokens are of answers that have not: their lengths are not known yet.
_FEW = 3.0
# Between two looks at an engine.
_LOOK = 10.0
_NOTHING = EngineSample(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

Row = tuple[float, float, float]


@dataclass(frozen=True)
class Evidence:
    """Sums of what was seen, older looks counting less."""

    seconds: float = 0.0
    products: tuple[Row, Row, Row] = ((0.0,) * 3, (0.0,) * 3, (0.0,) * 3)
    results: Row = (0.0, 0.0, 0.0)
    prompts: float = 0.0  # tokens
    begun: float = 0.0  # requests
    answers: float = 0.0  # tokens
    ended: float = 0.0  # requests
    last: dict[str, EngineSample] = field(default_factory=dict)


def learn(evidence: Evidence, learned: Learned, engines: dict[str, EngineSample]) -> tuple[Evidence, Learned]:
    """Take new samples in; those that are known already say nothing new."""
    found = replace(evidence, last=dict(engines)) if evidence.last != engines else evidence
    fresh = False
    for uid, now in engines.items():
        before = evidence.last.get(uid)
        if before is None and now.finished == 0:
            # It has just started: all that it has counted came since.
            found = _lengths(found, replace(_NOTHING, at=now.at - _LOOK), now)
        if before is None or now.at <= before.at or _restarted(before, now):
            continue
        fresh = True
        found = _timing(_lengths(found, before, now), before, now)
    if not fresh:
        return found, learned
    law = _law(found) or learned.law
    if found.ended < max(_FEW, sum(sample.running for sample in engines.values())) or found.begun < 1:
        return found, replace(learned, law=law)
    return found, Learned(law, found.prompts / found.begun, found.answers / found.ended)


def _restarted(before: EngineSample, now: EngineSample) -> bool:
    return (
        now.prompt_tokens < before.prompt_tokens
        or now.generation_tokens < before.generation_tokens
        or now.finished < before.finished
    )


def _lengths(evidence: Evidence, before: EngineSample, now: EngineSample) -> Evidence:
    ended = now.finished - before.finished
    begun = ended + now.running + now.waiting - before.running - before.waiting
    fade = 0.5 ** min(max(begun, ended, 0.0) / _REQUESTS, (now.at - before.at) / _SECONDS)
    return replace(
        evidence,
        prompts=evidence.prompts * fade + now.prompt_tokens - before.prompt_tokens,
        begun=evidence.begun * fade + begun,
        answers=evidence.answers * fade + now.generation_tokens - before.generation_tokens,
        ended=evidence.ended * fade + ended,
    )


def _timing(evidence: Evidence, before: EngineSample, now: EngineSample) -> Evidence:
    # Where fewer have ended than ran, one of them ran all the time.
    stayed = now.finished - before.finished < before.running and now.running >= 1
    seconds = now.at - before.at
    decoded = _decoding(before, now) / seconds
    prompts = now.prompt_tokens - before.prompt_tokens
    tokens = now.generation_tokens - before.generation_tokens
    if (decoded or min(before.running, now.running)) >= _BUSY or stayed:
        # Without what engines say of all of the time: what they were at both ends of it. A step has one sequence at
        # least; the mean has less where prompts are computed and nothing is decoded.
        sequences = max(decoded, 1.0) if decoded else (before.running + now.running) / 2
    elif decoded and tokens > 0:
        # It was idle at times. But each sequence knows how long it decoded, beside as many others as there are in the
        # mean of all the time where they come independently, and kept up by these others' prompts.
        sequences = decoded + 1
        prompts *= decoded / sequences
        seconds *= decoded / sequences
    else:
        return evidence
    row = (prompts / DEFAULT.prompt_rate, tokens / sequences * DEFAULT.step, tokens * DEFAULT.each)
    fade = 0.5 ** (seconds / _HALF_LIFE)
    products = tuple(
        _row(known * fade + row[i] * row[j] / seconds for j, known in enumerate(line))
        for i, line in enumerate(evidence.products)
    )
    return replace(
        evidence,
        seconds=evidence.seconds * fade + seconds,
        products=(products[0], products[1], products[2]),
        results=_row(known * fade + x for known, x in zip(evidence.results, row, strict=True)),
    )


def _decoding(before: EngineSample, now: EngineSample) -> float:
    """Seconds times sequences; 0 where that is not known."""
    if before.token_seconds is None or now.token_seconds is None:
        return 0.0
    return max(now.token_seconds - before.token_seconds, 0.0)


def _row(values: Iterable[float]) -> Row:
    first, second, third = values
    return first, second, third


def _law(evidence: Evidence) -> Law | None:
    """The law that explains the time best; None where too little was seen."""
    if evidence.seconds < _ENOUGH:
        return None
    total = sum(map(sum, evidence.products))
    if total <= 0:
        return None
    common = min(max(sum(evidence.results) / total, _LEAST), _MOST)
    # (A + ridge) x = b + ridge * common, the ridge in the units of A: engine-seconds.
    a = [[x + (_RIDGE if i == j else 0.0) for j, x in enumerate(line)] for i, line in enumerate(evidence.products)]
    b = [x + _RIDGE * common for x in evidence.results]
    prompts, steps, sequences = (min(max(x, common / 4, _LEAST), common * 4, _MOST) for x in _solved(a, b))
    return DEFAULT.scaled(prompts, steps, sequences)


def _solved(a: list[list[float]], b: list[float]) -> list[float]:
    """Three equations; the ridge keeps them from being singular."""
    size = len(b)
    for i in range(size):
        for k in range(i + 1, size):
            factor = a[k][i] / a[i][i]
            a[k] = [x - factor * y for x, y in zip(a[k], a[i], strict=True)]
            b[k] -= factor * b[i]
    found = [0.0] * size
    for i in reversed(range(size)):
        found[i] = (b[i] - sum(a[i][j] * found[j] for j in range(i + 1, size))) / a[i][i]
    return found
