"""The peers' scaling rules against steps worked out by hand from their documents."""

from __future__ import annotations

import pytest
from benchmarks.autoscale.peers import PEERS
from benchmarks.autoscale.peers.aibrix_apa import recommended
from benchmarks.autoscale.peers.dynamo import Line
from benchmarks.autoscale.peers.hpa import Behavior, Hpa, Step, external, per_pod
from benchmarks.autoscale.peers.llmd_wva import change
from benchmarks.autoscale.peers.timing import Every
from benchmarks.autoscale.policy import View
from tests.unit.fleets import Fleet, Look, Steps, alike, alone, engine, none_ready, peer, queue, spread, steps, view


class TestLoops:
    def test_a_loop_runs_at_its_times_and_makes_up_once_for_those_missed(self) -> None:
        loop = Every(15, 7.5)
        assert [now for now in (0, 7.4, 7.5, 8, 22.4999999, 23, 100, 101, 112.5) if loop.due(now)] == [
            7.5,
            22.4999999,
            100,
            112.5,
        ]


class TestHpa:
    def test_a_metric_of_20_at_a_target_of_5_wants_4_replicas_whatever_there_are(self) -> None:
        # KEDA's ScaledObject specification, metricType AverageValue
        assert external(20, 5, 3) == 4
        assert external(20, 5, 30) == 4

    @pytest.mark.parametrize(("total", "wanted"), [(9.1, 2), (10.9, 2), (11.5, 3), (8.5, 2), (4, 1), (0, 0)])
    def test_within_a_tenth_of_the_target_nothing_changes(self, total: float, wanted: int) -> None:
        assert external(total, 5, 2) == wanted

    @pytest.mark.parametrize(
        ("values", "missing", "wanted"),
        [
            ([200, 200], 0, 4),  # the examples of kubernetes.io, target 100
            ([50, 50], 0, 1),
            ([105, 105], 0, 2),
            ([200, 200], 1, 4),  # missing: 0 when the others ask for more
            ([200], 1, 2),  # so 2 x 100: as many as there are
            ([50, 50], 1, 2),  # missing: 100 when they ask for less
            ([99, 60], 2, 4),  # 359 of 400 is just outside the tolerance, but needs all four
        ],
    )
    def test_pods_that_do_not_report_damp_both_ways(self, values: list[float], missing: int, wanted: int) -> None:
        assert per_pod(values, missing, len(values) + missing, 100) == wanted

    def test_less_per_pod_never_adds_replicas(self) -> None:
        # 280 of 400 would need three, of which one is going already.
        assert per_pod([60, 60, 60], 1, 2, 100) == 2

    def test_no_pod_that_reports_is_no_answer(self) -> None:
        assert per_pod([], 2, 2, 100) is None

    def test_one_period_allows_four_pods_or_double(self) -> None:
        hpa = Hpa(1, 100)
        assert hpa.sync(0, 1, 90) == 5
        assert hpa.sync(5, 5, 90) == 5  # four were added within 15 s
        assert hpa.sync(15, 5, 90) == 10
        assert hpa.sync(30, 10, 90) == 20

    def test_scale_down_waits_for_the_highest_of_300_s(self) -> None:
        hpa = Hpa(1, 100)
        assert hpa.sync(0, 8, 8) == 8
        assert hpa.sync(15, 8, 2) == 8
        assert hpa.sync(150, 8, 5) == 8
        assert hpa.sync(299, 8, 2) == 8
        assert hpa.sync(301, 8, 2) == 5
        assert hpa.sync(451, 5, 2) == 2

    def test_a_window_for_scaling_up_waits_for_the_lowest(self) -> None:
        hpa = Hpa(1, 100, Behavior((Step(15, percent=100),), (Step(15, percent=100),), 60.0, 60.0))
        assert hpa.sync(0, 2, 4) == 2
        assert hpa.sync(30, 2, 3) == 2
        assert hpa.sync(60, 2, 4) == 3
        assert hpa.sync(90, 3, 4) == 4

    def test_down_by_two_pods_a_minute(self) -> None:
        hpa = Hpa(1, 100, Behavior(down=(Step(60, pods=2),), down_window=0))
        assert hpa.sync(0, 9, 1) == 7
        assert hpa.sync(30, 7, 1) == 7
        assert hpa.sync(60, 7, 1) == 5

    def test_its_bounds_come_before_metrics_and_zero_is_left_alone(self) -> None:
        assert Hpa(2, 8).sync(0, 12, None) == 8
        assert Hpa(2, 8).sync(0, 1, None) == 2
        assert Hpa(2, 8).sync(0, 4, None) == 4
        assert Hpa(0, 8).sync(0, 0, 5) == 0
        assert Hpa(0, 8).sync(301, 1, 0) == 1


class TestHpaWaiting:
    def test_a_queue_of_100_reaches_20_replicas_at_the_third_sync(self) -> None:
        assert steps(peer("hpa-waiting"), 1, 300, queue(lambda now: 100)) == [(7.5, 5), (22.5, 10), (37.5, 20)]

    def test_what_comes_after_a_scrape_is_seen_after_the_next(self) -> None:
        assert steps(peer("hpa-waiting"), 1, 30, queue(lambda now: 100 if now >= 1 else 0)) == [(22.5, 5)]

    def test_an_empty_queue_removes_all_but_one_after_300_s(self) -> None:
        # The last sync that wants 4 is at 97.5 s.
        assert steps(peer("hpa-waiting"), 4, 500, queue(lambda now: 20 if now < 100 else 0)) == [(397.5, 1)]

    def test_without_engines_and_held_requests_there_is_no_metric(self) -> None:
        assert steps(peer("hpa-waiting"), 4, 900, none_ready()) == []

    def test_held_requests_wait(self) -> None:
        assert steps(peer("hpa-waiting"), 1, 60, none_ready(held=15)) == [(7.5, 3)]


class TestHpaInFlight:
    def test_the_target_is_70_of_100_sequences(self) -> None:
        look = alone(lambda now: engine(100, 41))
        # 141 / 70 is over 2; then one pod at 141 and two that report nothing yet are under the target: no answer.
        assert steps(peer("hpa-in-flight"), 1, 200, look) == [(7.5, 3)]

    def test_less_load_removes_replicas_after_300_s(self) -> None:
        look = spread(lambda now: 280 if now < 100 else 70)
        assert steps(peer("hpa-in-flight"), 4, 450, look) == [(397.5, 1)]

    def test_held_requests_count(self) -> None:
        assert steps(peer("hpa-in-flight"), 1, 10, alike(lambda now: engine(70), held=70)) == [(7.5, 2)]


class TestKeda:
    def test_between_one_and_the_maximum_it_is_an_hpa(self) -> None:
        assert steps(peer("keda"), 1, 300, queue(lambda now: 100)) == [(7.5, 5), (22.5, 10), (37.5, 20)]

    def test_a_missing_series_counts_as_zero(self) -> None:
        # The HPA's first recommendation, what there was, is 300 s old at 307.5 s.
        found = steps(peer("keda"), 4, 900, none_ready())
        assert found == [(307.5, 1)]

    def test_to_zero_300_s_after_the_last_poll_that_saw_requests_and_back_at_a_poll(self) -> None:
        def look(now: float, replicas: int) -> View:
            # One request a second for a minute, of which the first waits; one more at 430 s.
            arrived = int(min(now, 60)) + (now >= 430)
            engines = [engine(waiting=int(now == 0))] * replicas
            return view(now, replicas, engines, held=int(now >= 430 and not replicas), arrived=arrived)

        # Scrapes see arrivals of the last minute until 105 s, polls are at 7.5, 37.5, ...: the last active one is at
        # 97.5 s. More than 300 s later is the poll at 427.5 s. The scrape at 435 s shows the request to the poll at
        # 457.5 s.
        assert steps(peer("keda", minimum=0), 1, 470, look) == [(427.5, 0), (457.5, 1)]


class TestKnativeKpa:
    def test_a_concurrency_of_10_aims_at_7(self) -> None:
        # Knative's own example of container-concurrency-target-percentage
        look = spread(lambda now: 70)
        assert steps(peer("knative-kpa", sequences=10), 1, 10, look) == [(0.0, 10)]

    def test_a_burst_is_seen_in_the_panic_window(self) -> None:
        look = alone(lambda now: engine(700 if now >= 60 else 0))
        # Means of 6 s: 700 x 1, 3, 5, 6 sixths, over 70
        assert steps(peer("knative-kpa"), 1, 80, look) == [(60, 2), (62, 5), (64, 9), (66, 10)]

    def test_no_replica_goes_within_60_s_of_panic_and_then_half_a_tick(self) -> None:
        found = steps(peer("knative-kpa"), 1, 200, spread(lambda now: 700 if 60 <= now < 70 else 0))
        # At 62 s the mean asks for 5 of 2 ready, at 64 s for 9 of 5: the last time over 200 % is 62 s.
        assert found == [(60, 2), (62, 5), (64, 9), (66, 10), (124, 5), (126, 2), (128, 1)]

    def test_less_than_double_waits_for_the_stable_window(self) -> None:
        found = steps(peer("knative-kpa"), 2, 400, spread(lambda now: 140 if now < 200 else 210))
        # The mean of 60 s is over 140 with the look at 200 s already.
        assert found == [(200, 3)]

    def test_more_than_one_pod_at_the_start_is_panic(self) -> None:
        assert steps(peer("knative-kpa"), 4, 100, spread(lambda now: 0)) == [(62, 2), (64, 1)]

    def test_to_zero_after_the_grace_period_and_back_at_the_next_tick(self) -> None:
        found = steps(peer("knative-kpa", minimum=0), 1, 45, spread(lambda now: int(now >= 39)))
        assert found == [(30, 0), (40, 1)]


class TestKubeAI:
    def test_a_step_needs_the_whole_window(self) -> None:
        # ceil(5 n / 60) after n looks, the first at 0 s
        found = steps(peer("kubeai"), 1, 1000, spread(lambda now: 500))
        assert found == [(120, 2), (240, 3), (360, 4), (480, 5)]

    def test_the_fourth_look_in_a_row_removes_replicas(self) -> None:
        assert steps(peer("kubeai"), 3, 100, spread(lambda now: 0)) == [(30, 1)]

    def test_a_look_that_wants_them_starts_the_count_anew(self) -> None:
        # 9000 at 20 s is a mean of 150 while it is in the window, until the look at 620 s.
        found = steps(peer("kubeai"), 2, 700, spread(lambda now: 9000 if now == 20 else 0))
        assert found == [(650, 1)]

    def test_the_proxy_wakes_a_model_at_zero_at_once(self) -> None:
        assert steps(peer("kubeai", minimum=0), 0, 20, spread(lambda now: int(now >= 3))) == [(3, 1)]

    def test_a_small_engine_has_a_small_target(self) -> None:
        assert steps(peer("kubeai", sequences=10), 1, 0, spread(lambda now: 900)) == [(0, 2)]


class TestAibrixApa:
    @pytest.mark.parametrize(
        ("replicas", "value", "wanted"),
        [(2, 0.75, 3), (2, 0.55, 2), (2, 0.46, 2), (2, 0.56, 3), (4, 0.375, 3), (2, 2.0, 4), (4, 0.05, 2), (5, 0.0, 2)],
    )
    def test_the_ratio_with_its_tolerance_and_rates(self, replicas: int, value: float, wanted: int) -> None:
        assert recommended(replicas, value, 0.5) == wanted

    def test_doubles_every_ten_seconds(self) -> None:
        look = alike(lambda now: engine(kv=1.0))
        assert steps(peer("aibrix-apa"), 1, 60, look) == [(0, 2), (10, 4), (20, 8), (30, 16), (40, 32)]

    def test_starting_pods_count_as_idle(self) -> None:
        look = alone(lambda now: engine(kv=0.75))
        # 0.75 wants 2; then the mean of 0.75 and 0.375 asks for ceil(2 x 0.5625 / 0.5) = 3 with the two there are, ...
        assert steps(peer("aibrix-apa"), 1, 10, look) == [(0, 2), (10, 3)]

    def test_waiting_requests_can_ask_for_more(self) -> None:
        look = alike(lambda now: engine(waiting=112, kv=0.5))
        assert steps(peer("aibrix-apa"), 2, 0, look) == [(0, 3)]

    @pytest.mark.parametrize(("name", "first"), [("aibrix-apa", (430, 3)), ("aibrix-apa-code", (140, 3))])
    def test_the_cooldown_of_scale_down(self, name: str, first: tuple[float, int]) -> None:
        look = alike(lambda now: engine(kv=0.5 if now <= 100 else 0))
        # The mean of all looks asks for fewer than 4 from 140 s on: ceil(4 x (11 x 0.5 / 15) / 0.5) = 3.
        assert steps(peer(name), 4, 500, look)[0] == first

    def test_the_code_falls_back_to_the_lowest_of_300_s(self) -> None:
        look = alike(lambda now: engine(kv=0.5 if now <= 100 else 5.0 if now <= 110 else 0.0))
        found = steps(peer("aibrix-apa-code"), 1, 400, look)
        assert found[:2] == [(110, 2), (120, 4)]
        assert found[-1][1] == 1
        assert found[-1][0] < 300


class TestLlmdWva:
    @pytest.mark.parametrize(
        ("peaks", "wanted"),
        [
            ([(0.65, 0), (0.72, 0)], 0),  # the example of docs/saturation-scaling-config.md: spare 0.115
            ([(0.65, 0), (0.76, 0)], 1),  # 0.095
            ([(0.1, 3)], 1),  # 2 of a queue of 5 are left
            ([(0.1, 2)], 0),
            ([(0.85, 0), (0.1, 7)], 1),  # all saturated: nothing is spare
            ([(0.85, 0), (0.1, 0)], 0),  # the other one has room, but is alone
            ([(0.3, 0), (0.3, 0)], -1),  # one would have 0.6: spare 0.2
            ([(0.36, 0), (0.36, 0)], 0),  # one would have 0.72: spare 0.08
            ([(0.1, 1.2), (0.1, 1.2)], 0),  # one would have a queue of 2.4: spare 2.6
            ([(0.1, 0)], 0),
        ],
    )
    def test_spare_of_those_not_saturated(self, peaks: list[tuple[float, float]], wanted: int) -> None:
        assert change(peaks) == wanted

    def test_a_queue_adds_one_at_a_time_and_waits_for_the_hpa(self) -> None:
        look = alike(lambda now: engine(waiting=10))
        # Loop 7.5, scrape 15, sync 22.5; what there was stays in the window until 127.5. The loop at 157.5 sees two
        # pods and wants three; the last sync that wanted two was at 157.5.
        assert steps(peer("llmd-wva"), 1, 300, look) == [(127.5, 2), (277.5, 3)]

    def test_nothing_is_decided_while_a_pod_starts(self) -> None:
        look = alone(lambda now: engine(waiting=10))
        assert steps(peer("llmd-wva"), 1, 900, look) == [(127.5, 2)]

    def test_a_peak_of_the_last_minute_counts(self) -> None:
        look = alike(lambda now: engine(waiting=10 if now == 15 else 0))
        # The loop at 37.5 s still sees the peak of 15 s and wants two: that reaches the HPA at 52.5 s, and from 157.5 s
        # on the window holds nothing less.
        assert steps(peer("llmd-wva"), 1, 400, look)[0] == (157.5, 2)

    def test_what_is_less_than_a_minute_old_keeps_replicas(self) -> None:
        look = alike(lambda now: engine(kv=0.36 if now <= 15 else 0.0))
        # The loop at 67.5 s sees the scrape at 15 s, that at 97.5 s does not. The last sync that wants two is then.
        assert steps(peer("llmd-wva"), 2, 300, look) == [(217.5, 1)]

    def test_idle_replicas_go_one_by_one_even_from_ten_on(self) -> None:
        look = alike(lambda now: engine())
        found = steps(peer("llmd-wva"), 12, 4000, look)
        assert [count for _, count in found] == list(range(11, 0, -1))


class TestDynamo:
    def test_a_line_through_what_was_seen(self) -> None:
        line = Line()
        for count in (10, 20, 30, 40):
            line.add(count, 0.002 + 0.0001 * count)
            assert line.fitted() is None
        line.add(50, 0.007)
        assert line.fitted() == pytest.approx((0.002, 0.0001))

    def test_hours_at_one_load_do_not_push_out_the_others(self) -> None:
        line = Line()
        for count in [10, 20, 30, 40, *[50] * 1000]:
            line.add(count, 0.002 + 0.0001 * count)
        assert line.fitted() == pytest.approx((0.002, 0.0001))

    def test_slow_tokens_in_all_engines_add_one_after_five_samples(self) -> None:
        look = alone(lambda now: engine(90, ttft=0.1, itl=0.06))
        assert steps(peer("dynamo"), 1, 100, look) == [(20, 2)]  # and no more, while the second one starts

    def test_one_slow_engine_of_two_is_not_enough(self) -> None:
        engines = [engine(90, ttft=0.1, itl=0.06), engine(10, ttft=0.1, itl=0.01)]
        assert steps(peer("dynamo"), 2, 100, lambda now, replicas: view(now, replicas, engines)) == []

    def test_a_queue_that_will_take_more_than_two_seconds_adds_one(self) -> None:
        look = alone(lambda now: engine(50, int(now), ttft=0.1 + 0.02 * int(now), itl=0.01))
        assert steps(peer("dynamo"), 1, 120, look) == [(100, 2)]

    @pytest.mark.parametrize(("running", "wanted"), [(50, [(10, 1)]), (200, [])])
    def test_one_less_must_leave_a_fifth_of_the_target(self, running: int, wanted: Steps) -> None:
        def look(now: float, replicas: int) -> View:
            counts = [running - int(now) % 3, running + int(now) % 3][:replicas]
            return view(now, replicas, [engine(count, ttft=0.1, itl=0.002 + 0.0001 * count) for count in counts])

        # 0.012 s at 101 requests, 0.042 s at 401; 0.04 s may be. Two samples at 0 s, six at 10 s.
        assert steps(peer("dynamo"), 2, 60, look) == wanted

    def test_one_less_must_hold_the_kv_cache_of_all(self) -> None:
        full = alike(lambda now: engine(50, kv=0.5, ttft=0.1, itl=0.005))
        assert steps(peer("dynamo"), 2, 60, full) == []
        assert steps(peer("dynamo"), 2, 60, alike(lambda now: engine(50, kv=0.49, ttft=0.1, itl=0.005))) == [(10, 1)]

    def test_throughput_counts_the_queue_as_kv_use(self) -> None:
        def full(waiting: int) -> Look:
            # A running request has 100 tokens of its prompt and half of 200: 1 % of the cache. A prompt is half of it.
            return alone(lambda now: engine(90, waiting, 0.9, finished=10, prompted=1000, generated=2000))

        assert steps(peer("dynamo-throughput"), 1, 60, full(19)) == []
        assert steps(peer("dynamo-throughput"), 1, 60, full(21)) == [(0, 2)]

    @pytest.mark.parametrize(("kv", "wanted"), [(0.59, [(0, 2), (5, 1)]), (0.6, [])])
    def test_throughput_removes_one_under_60_percent(self, kv: float, wanted: Steps) -> None:
        look = alike(lambda now: engine(10, kv=kv))
        assert steps(peer("dynamo-throughput"), 3, 60, look) == wanted


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("cold", [6.0, 180.0])
def test_every_rule_adds_replicas_under_load_and_removes_them_without(name: str, cold: float) -> None:
    policy = peer(name, minimum=1, maximum=6)
    fleet = Fleet(1, cold, lambda now: 500 if 600 <= now < 3000 else 0)
    found = steps(policy, 1, 7200, fleet.look)
    assert policy.name == name
    assert all(1 <= count <= 6 for _, count in found)
    assert max(count for at, count in found if at < 3000) >= 3
    assert found[-1][1] == 1


@pytest.mark.parametrize("name", PEERS)
def test_rules_share_nothing(name: str) -> None:
    look = Fleet(1, 30.0, lambda now: 500).look
    first = steps(peer(name), 1, 1200, look)
    assert first
    assert steps(peer(name), 1, 1200, Fleet(1, 30.0, lambda now: 500).look) == first
