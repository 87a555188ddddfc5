import asyncio

import pytest

from falcon_operator.runtime.queue import Priority, WorkQueue
from falcon_operator.telemetry.metrics import Metrics

A, B, C = ("ns", "a"), ("ns", "b"), ("ns", "c")


@pytest.fixture
def queue() -> WorkQueue:
    return WorkQueue(Metrics(), base_seconds=0.01, jitter=lambda: 0.5)


async def drain(queue: WorkQueue) -> list[tuple[str, str]]:
    taken = []
    while len(queue):
        key = await queue.get()
        taken.append(key)
        queue.done(key)
    return taken


async def test_a_key_that_waits_is_not_queued_twice(queue: WorkQueue) -> None:
    for _ in range(3):
        queue.add(A)
    queue.add(B)
    assert await drain(queue) == [A, B]


async def test_the_urgent_goes_first_and_each_priority_keeps_its_order(queue: WorkQueue) -> None:
    queue.add(A)
    queue.add(B, Priority.FIRST)
    queue.add(C, Priority.FIRST)
    assert await drain(queue) == [B, C, A]


async def test_a_key_that_becomes_urgent_moves_up_and_is_taken_once(queue: WorkQueue) -> None:
    queue.add(A)
    queue.add(B)
    queue.add(B, Priority.FIRST)
    assert await drain(queue) == [B, A]


async def test_an_urgent_key_stays_urgent(queue: WorkQueue) -> None:
    queue.add(A, Priority.FIRST)
    queue.add(A, Priority.NORMAL)
    queue.add(B, Priority.FIRST)
    assert await drain(queue) == [A, B]


async def test_a_key_in_work_is_handed_out_again_only_when_done(queue: WorkQueue) -> None:
    queue.add(A)
    assert await queue.get() == A
    queue.add(A)
    queue.add(A)
    assert len(queue) == 0
    queue.done(A)
    assert await drain(queue) == [A]


async def test_of_several_later_times_the_earliest_holds(queue: WorkQueue) -> None:
    queue.add_after(A, 60)
    queue.add_after(A, 0.01)
    queue.add_after(A, 30)
    assert await asyncio.wait_for(queue.get(), 5) == A


async def test_patience_grows_with_failures_and_ends_with_success(queue: WorkQueue) -> None:
    assert [queue.retry(A) for _ in range(4)] == [0.01, 0.02, 0.04, 0.08]
    assert queue.retry(B) == 0.01
    queue.succeeded(A)
    assert queue.retry(A) == 0.01


async def test_patience_has_a_limit_and_the_server_may_ask_for_more(queue: WorkQueue) -> None:
    for _ in range(100):
        queue.retry(A, at_most=2)
    assert queue.retry(A, at_most=2) == 2
    assert queue.retry(B, at_least=7) == 7


async def test_what_is_forgotten_does_not_come_back(queue: WorkQueue) -> None:
    queue.retry(A)
    queue.forget(A)
    queue.add_after(B, 0.05)
    assert await asyncio.wait_for(queue.get(), 5) == B
    assert len(queue) == 0
    assert queue.retry(A) == 0.01


async def test_each_waiting_worker_gets_a_key_of_its_own(queue: WorkQueue) -> None:
    getters = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in (A, B, C):
        queue.add(key)
    assert sorted(await asyncio.gather(*getters)) == [A, B, C]


async def test_a_worker_that_is_cancelled_passes_its_turn_on(queue: WorkQueue) -> None:
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(A)  # wakes the first
    first.cancel()
    assert await asyncio.wait_for(second, 5) == A
    assert first.cancelled() or (await asyncio.gather(first, return_exceptions=True))


async def test_ages_are_those_of_work_in_progress(queue: WorkQueue) -> None:
    queue.add(A)
    assert queue.ages() == []
    await queue.get()
    assert len(queue.ages()) == 1
    assert queue.ages()[0] >= 0
    queue.done(A)
    assert queue.ages() == []
