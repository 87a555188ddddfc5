"""What the autoscaler learns of engines and arrivals, against a world whose truth is known."""

import random
from dataclasses import replace

import pytest

from falcon_operator.decide.autoscale.arrivals import Arrivals
from falcon_operator.decide.autoscale.engine_law import DEFAULT, Engine, Law, Learned
from falcon_operator.decide.autoscale.learning import Evidence, learn
from falcon_operator.decide.autoscale.types import EngineSample

# Seconds until an engine serves.
START = 60.0


def watched(
    truth: Law, prompt: float, answer: float, seconds: float, noise: random.Random, every: float = 5.0
) -> Learned:
    """What is learned from an engine of that law whose sequences vary."""
    evidence, learned = Evidence(), Learned()
    sample, sequences = EngineSample(0.0, 20.0, 0.0, 20.0 * prompt, 0.0, 0.0), 20.0
    evidence, learned = learn(evidence, learned, {"e": sample})
    while sample.at < seconds:
        # In this time: what a prompt, and its share of the steps that a token of each sequence takes, cost.
        each = prompt / truth.prompt_rate + answer * (truth.step / sequences + truth.each)
        requests = every / each * noise.uniform(0.97, 1.03)
        later = min(max(sequences + min(requests, 3) * noise.uniform(-0.5, 0.5), 6.0), 90.0)
        sample = EngineSample(
            sample.at + every,
            later,
            0.0,
            sample.prompt_tokens + (requests + later - sequences) * prompt,
            sample.generation_tokens + requests * answer,
            sample.finished + requests,
        )
        sequences = later
        evidence, learned = learn(evidence, learned, {"e": sample})
    return learned


@pytest.mark.parametrize("slower", [0.5, 1.0, 2.0, 7.0])
@pytest.mark.parametrize(("prompt", "answer"), [(1155.0, 211.0), (300.0, 3000.0), (6000.0, 60.0)])
def test_a_faster_or_slower_engine_is_known_within_five_minutes(slower: float, prompt: float, answer: float) -> None:
    truth = DEFAULT.scaled(slower, slower, slower)
    learned = watched(truth, prompt, answer, 300, random.Random(1))
    assert learned.prompt == pytest.approx(prompt, rel=0.1)
    assert learned.answer == pytest.approx(answer, rel=0.1)
    true, found = Engine.of(truth, prompt, answer, 256), learned.engine(256)
    assert found is not None
    assert found.rate == pytest.approx(true.rate, rel=0.12)


def wavering(truth: Law, prompt: float, answer: int, rate: float, seconds: float, every: float, tells: bool) -> Learned:
    """What is learned of an engine that makes turns, to which requests come by chance, and which has few at a time."""
    chance, evidence, learned = random.Random(7), Evidence(), Learned()
    now, coming, look = 0.0, 0.0, 0.0
    left: list[int] = []
    prompts, tokens, finished, between = 0.0, 0, 0, 0.0
    while now < seconds:
        begun = 0
        while coming <= now:
            begun += 1
            coming += chance.expovariate(rate)
        if not left and not begun:
            now = coming
            continue
        turn = truth.step + truth.each * len(left) + begun * prompt / truth.prompt_rate
        now, between = now + turn, between + turn * len(left)
        left = [tokens - 1 for tokens in left] + [answer - 1] * begun
        prompts, tokens = prompts + begun * prompt, tokens + len(left)
        finished += left.count(0)
        left = [one for one in left if one]
        if now >= look:
            look += every
            sample = EngineSample(now, len(left), 0.0, prompts, tokens, finished, between if tells else None)
            evidence, learned = learn(evidence, learned, {"e": sample})
    return learned


def test_few_looks_at_an_engine_with_few_sequences_are_enough_where_it_tells_how_many_it_had_in_between() -> None:
    truth = Law(prompt_rate=16_000.0, step=0.02, each=0.001)
    true = Engine.of(truth, 100.0, 20, 12).rate

    def found(tells: bool) -> float:
        engine = wavering(truth, 100.0, 20, 9.0, 60.0, 10.0, tells).engine(12)
        assert engine is not None
        return engine.rate

    assert found(tells=True) == pytest.approx(true, rel=0.1)
    assert abs(found(tells=False) - true) > 2 * abs(found(tells=True) - true), (
        "two moments say little of the time between"
    )


@pytest.mark.parametrize("slower", [1 / 3, 1.0, 4.0])
@pytest.mark.parametrize("requests", [0.3, 1.0, 3.0])
def test_an_engine_that_is_idle_at_times_is_known_by_how_long_its_tokens_took(slower: float, requests: float) -> None:
    truth, prompt, answer = DEFAULT.scaled(slower, slower, slower), 200.0, 100
    alone = answer * (truth.step + truth.each)
    learned = wavering(truth, prompt, answer, requests / alone, 900, 10.0, tells=True)
    true, found = Engine.of(truth, prompt, answer, 64), learned.engine(64)
    assert found is not None
    assert found.rate == pytest.approx(true.rate, rel=0.15)


def test_while_a_long_prompt_is_computed_nothing_is_decoded_and_no_step_is_made_up_for_it() -> None:
    evidence, learned = Evidence(), Learned()
    for n in range(6):  # nine seconds of prompt, then one of tokens, for the one of two that has begun
        sample = EngineSample(n * 10.0, 2.0, 0.0, n * 153_000.0, n * 180.0, float(n), n * 1.0)
        evidence, learned = learn(evidence, learned, {"e": sample})
    assert learned.law.step == pytest.approx(DEFAULT.step, rel=0.1)


def test_an_engine_with_other_proportions_is_known_where_it_works() -> None:
    truth = Law(prompt_rate=40_000.0, step=0.0054, each=0.0003)
    learned = watched(truth, 1155.0, 211.0, 900, random.Random(2))
    true, found = Engine.of(truth, 1155.0, 211.0, 256), learned.engine(256)
    assert found is not None
    assert found.rate == pytest.approx(true.rate, rel=0.2)


def test_an_idle_engine_teaches_nothing_of_the_law() -> None:
    evidence, learned = Evidence(), Learned()
    for n in range(100):
        sample = EngineSample(n * 5.0, n % 2 * 1.0, 0.0, n * 100.0, n * 50.0, float(n))
        evidence, learned = learn(evidence, learned, {"e": sample})
    assert learned.law == DEFAULT
    assert learned.prompt == pytest.approx(100, rel=0.1)
    assert learned.answer == pytest.approx(50, rel=0.1)


def test_a_restarted_engine_is_not_taken_for_one_that_ran_backwards() -> None:
    evidence, learned = Evidence(), Learned()
    for sample in (EngineSample(0, 9, 0, 1e6, 1e6, 1e3), EngineSample(5, 9, 0, 10, 10, 0)):
        evidence, learned = learn(evidence, learned, {"e": sample})
    assert learned == Learned()


def test_the_law_has_bounds() -> None:
    learned = watched(DEFAULT.scaled(500, 500, 500), 1000.0, 200.0, 300, random.Random(3))
    assert learned.law.step <= DEFAULT.step * 20.001


def test_what_is_learned_survives_being_written_down() -> None:
    learned = watched(DEFAULT.scaled(2, 2, 2), 1155.0, 211.0, 300, random.Random(4))
    again = Learned.from_status(learned.manifest())
    first, second = learned.engine(256), again.engine(256)
    assert first is not None
    assert second is not None
    assert second.rate == pytest.approx(first.rate, rel=0.02)
    assert Learned.from_status(None) == Learned()
    assert Learned.from_status({}) == Learned()


def test_an_engine_is_full_where_tokens_become_slow_or_sequences_end() -> None:
    slow = Engine.of(DEFAULT, 1155.0, 211.0, 256)
    assert slow.step + slow.slope * slow.most == pytest.approx(0.05)
    assert Engine.of(DEFAULT, 10.0, 3000.0, 256).most == 256
    assert slow.use(slow.most) == pytest.approx(1)
    assert slow.use(2 * slow.most) == pytest.approx(2)
    assert slow.use(0) == 0


def after(counts: list[tuple[float, float]]) -> Arrivals:
    """One gateway's counter at these times."""
    arrivals = Arrivals()
    for at, count in counts:
        arrivals = arrivals.seen({"a": (at, count)}, at, START)
    return arrivals


def test_a_counter_seen_for_the_first_time_says_nothing() -> None:
    assert after([(0, 1e6)]).pace(0).rate == 0
    assert after([(0, 1e6), (1, 1e6 + 4)]).total == 4


def test_a_counter_that_begins_anew_counts_from_nothing() -> None:
    assert after([(0, 100), (1, 110), (2, 3)]).total == 13


def test_a_steady_rate_is_the_mean() -> None:
    noise = random.Random(5)
    counts, count = [], 0.0
    for n in range(240):
        count += sum(noise.random() < 0.05 for _ in range(100))  # 5 in half a second
        counts.append((n * 0.5, count))
    assert after(counts).pace(119.5).rate == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize("rate", [2.0, 8.0, 60.0])
def test_a_step_is_seen_in_three_seconds(rate: float) -> None:
    counts, count = [], 0.0
    for n in range(246):
        count += rate * (0.5 if n < 240 else 4.0)
        counts.append((n * 0.5, count))
    assert after(counts).pace(122.5).rate == pytest.approx(8 * rate, rel=0.4)


def test_chance_is_no_step() -> None:
    noise, highest = random.Random(6), 0.0
    arrivals, count = Arrivals(), 0.0
    for n in range(2400):
        count += sum(noise.random() < 0.1 for _ in range(100))  # 10 in half a second
        arrivals = arrivals.seen({"a": (n * 0.5, count)}, n * 0.5, START)
        if n > 240:
            highest = max(highest, arrivals.pace(n * 0.5).rate)
    assert highest < 1.5 * 20


def test_a_little_more_than_usual_is_doubtful_and_much_more_is_not() -> None:
    steady = [(n * 0.5, 5.0 * n) for n in range(240)]
    now = steady[-1][0] + 0.3
    more = {n: after([*steady, (now, steady[-1][1] + n)]) for n in (3, 12, 40)}
    assert [more[n].pace(now).doubtful for n in more] == [False, True, False]
    assert more[12].pace(now).rate == pytest.approx(10, rel=0.05)
    assert more[40].pace(now).rate > 20
    begun = after([(n * 0.5, 5.0 * n) for n in range(20)] + [(9.8, 107.0)])
    assert not begun.pace(9.8).doubtful, "what is usual is not known yet"


def test_gateways_that_are_gone_are_forgotten_and_their_requests_are_not() -> None:
    arrivals = Arrivals().seen({"a": (0, 0), "b": (0, 0)}, 0, START)
    arrivals = arrivals.seen({"a": (1, 10), "b": (1, 10)}, 1, START).keep({"b"})
    assert set(arrivals.last) == {"b"}
    assert arrivals.total == 20


def test_only_the_last_two_minutes_are_kept() -> None:
    arrivals = after([(n * 0.5, float(n)) for n in range(2000)])
    assert len(arrivals.looks["a"].totals) < 250
    assert not arrivals.keep(set()).seen({}, 1200.0, START).looks
    assert arrivals.pace(999.5).rate == pytest.approx(2)


def test_equal_samples_teach_once() -> None:
    sample = EngineSample(5.0, 9, 0, 1000, 1000, 5)
    evidence, learned = learn(Evidence(), Learned(), {"e": replace(sample, at=0.0, finished=0)})
    evidence, learned = learn(evidence, learned, {"e": sample})
    assert learn(evidence, learned, {"e": sample}) == (evidence, learned)
