"""The engine's virtual time against a loop that goes through every step and token."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import pytest
from benchmarks.autoscale.engine import ENGINES, Engine, EngineLaw
from hypothesis import given
from hypothesis import strategies as st

SMALL = EngineLaw(prompt_rate=1000.0, step=0.01, each=0.002, chunk=64, most=3)

Request = tuple[float, int, int]  # arrival, prompt, answer


@dataclass
class _Sequence:
    request: int
    left: int  # of the prompt
    answer: int  # tokens still to come
    began: bool = field(default=False)


def naive(law: EngineLaw, requests: list[Request]) -> tuple[dict[int, float], dict[int, float]]:
    """Times of first and last tokens, step by step."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    coming = deque(enumerate(requests))
    queue: deque[_Sequence] = deque()
    batch: list[_Sequence] = []
    now, boundary = 0.0, False
    while coming or queue or batch:
        # What comes a hair after a step's end has come with it: the engine's rounding.
        while boundary and coming and coming[0][1][0] <= now + 1e-9:
            number, (_, prompt, answer) = coming.popleft()
            queue.append(_Sequence(number, prompt, answer))
        if not queue and not batch:
            # An idle engine begins with the first that comes.
            number, (at, prompt, answer) = coming.popleft()
            now = max(now, at)
            queue.append(_Sequence(number, prompt, answer))
        while queue and len(batch) < law.most:
            batch.append(queue.popleft())
        decoding = [s for s in batch if s.began]
        room, complete = law.chunk, []
        for sequence in batch:
            if sequence.began:
                continue
            taken = min(room, sequence.left)
            sequence.left -= taken
            room -= taken
            if sequence.left:
                break
            complete.append(sequence)
        now += law.step + law.each * len(decoding) + (law.chunk - room) / law.prompt_rate
        boundary = True
        for sequence in complete:
            sequence.began = True
            first[sequence.request] = now
        for sequence in (*decoding, *complete):
            sequence.answer -= 1
            if not sequence.answer:
                last[sequence.request] = now
                batch.remove(sequence)
    return first, last


def virtual(law: EngineLaw, requests: list[Request]) -> tuple[dict[int, float], dict[int, float], Engine]:
    """The same by events."""
    engine = Engine(law)
    first: dict[int, float] = {}
    last: dict[int, float] = {}

    def turn() -> None:
        at = engine.next_at
        begun, ended = engine.turn()
        first.update(dict.fromkeys(begun, at))
        last.update(dict.fromkeys(ended, at))

    for number, (at, prompt, answer) in enumerate(requests):
        while engine.next_at <= at - 1e-9:
            turn()
        engine.put(number, prompt, answer, at)
    while engine.next_at < math.inf:
        turn()
    return first, last, engine


requests = st.lists(
    st.tuples(st.integers(0, 2000).map(lambda ms: ms / 1000 + 1e-5), st.integers(0, 200), st.integers(1, 40)),
    min_size=1,
    max_size=12,
).map(sorted)


@given(requests)
def test_virtual_time_gives_each_token_when_a_loop_over_all_steps_does(requests: list[Request]) -> None:
    first, last = naive(SMALL, requests)
    found_first, found_last, engine = virtual(SMALL, requests)
    assert found_first == pytest.approx(first, abs=1e-6)
    assert found_last == pytest.approx(last, abs=1e-6)
    assert engine.generated == sum(answer for _, _, answer in requests)
    assert engine.prompted == sum(prompt for _, prompt, _ in requests)
    assert engine.finished == len(requests)
    assert engine.load == engine.running == engine.waiting == 0


def test_one_request_alone_takes_its_prompt_and_a_step_for_each_token() -> None:
    first, last, _ = virtual(SMALL, [(1.0, 100, 3)])
    # 64 and then 36 of the prompt's tokens, each in a step; then two steps of one sequence.
    assert first[0] == pytest.approx(1.0 + 2 * 0.01 + 0.1)
    assert last[0] == pytest.approx(first[0] + 2 * 0.012)


def test_a_full_h200_gives_tokens_as_fast_as_was_measured() -> None:
    law = ENGINES["h200"]
    first, last, _ = virtual(law, [(0.0, 0, 1025)] * 256)
    token = (last[0] - first[0]) / 1024
    assert token == pytest.approx(0.0431, rel=0.05)  # vllm bench serve at 256 sequences


def test_beyond_the_batch_requests_wait_in_the_engine() -> None:
    engine = Engine(SMALL)
    for number in range(5):
        engine.put(number, 10, 10, 0.0)
    engine.turn()
    assert (engine.running, engine.waiting, engine.load) == (3, 2, 5)
    assert sorted(engine.requests()) == [0, 1, 2, 3, 4]


def test_counters_go_up_within_a_stretch_of_steps() -> None:
    engine = Engine(SMALL)
    engine.put(0, 0, 101, 0.0)
    engine.turn()
    begun = 0.01
    assert engine.counters(begun) == (1, 0, 0.0)
    generated, tokens, seconds = engine.counters(begun + 50.5 * 0.012)
    assert (generated, tokens) == (51, 50)
    assert seconds == pytest.approx(50 * 0.012)
