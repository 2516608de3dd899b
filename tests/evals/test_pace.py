import asyncio

import pytest

from stanchion.core.clock import ManualClock, SystemClock
from stanchion.evals.pace import Pace, PaceSettings, RetryBudget


async def test_no_more_are_let_in_than_the_limit_says() -> None:
    pace = Pace(PaceSettings(start=2, most=2), SystemClock())
    await pace.enter()
    await pace.enter()
    third = asyncio.create_task(pace.enter())
    await asyncio.sleep(0.01)
    assert not third.done()
    pace.leave()
    await asyncio.wait_for(third, 1)


async def test_a_cancelled_waiter_does_not_take_the_turn_with_it() -> None:
    pace = Pace(PaceSettings(start=1, most=1), SystemClock())
    await pace.enter()
    first, second = asyncio.create_task(pace.enter()), asyncio.create_task(pace.enter())
    await asyncio.sleep(0)
    first.cancel()
    pace.leave()
    await asyncio.wait_for(second, 1)


async def test_a_turn_given_to_a_waiter_that_is_cancelled_at_that_moment_goes_on() -> None:
    pace = Pace(PaceSettings(start=1, most=1), SystemClock())
    await pace.enter()
    first, second = asyncio.create_task(pace.enter()), asyncio.create_task(pace.enter())
    await asyncio.sleep(0)
    pace.leave()
    first.cancel()
    await asyncio.wait_for(second, 1)


async def fill(pace: Pace) -> int:
    count = 0
    while count < pace.limit:
        await pace.enter()
        count += 1
    return count


async def test_it_grows_by_about_one_per_round_of_successes() -> None:
    pace = Pace(PaceSettings(start=4, most=64), ManualClock())
    for _ in range(3):
        count = await fill(pace)
        for _ in range(count):
            pace.answered(5.0)
        for _ in range(count):
            pace.leave()
    assert 6 <= pace.limit <= 8


async def test_it_does_not_grow_while_the_target_is_not_used_to_the_limit() -> None:
    pace = Pace(PaceSettings(start=8, most=64), ManualClock())
    for _ in range(100):
        await pace.enter()
        pace.answered(5.0)
        pace.leave()
    assert pace.limit == 8


def test_it_halves_once_per_burst_and_never_below_one() -> None:
    clock = ManualClock()
    pace = Pace(PaceSettings(start=16, most=64), clock)
    for _ in range(10):
        pace.was_busy()
    assert pace.limit == 8
    for _ in range(20):
        clock.advance(10)
        pace.was_busy()
    assert pace.limit == 1


def test_it_backs_off_when_answers_get_three_times_slower() -> None:
    clock = ManualClock()
    pace = Pace(PaceSettings(start=32, most=64), clock)
    for _ in range(50):
        pace.answered(50.0)
    before = pace.limit
    for _ in range(60):
        clock.advance(1)
        pace.answered(400.0)
    assert pace.limit < before / 2


def test_jitter_of_a_fast_target_is_no_reason_to_back_off() -> None:
    clock = ManualClock()
    pace = Pace(PaceSettings(start=32, most=64), clock)
    for number in range(200):
        clock.advance(1)
        pace.answered(0.1 if number % 2 else 8.0)
    assert pace.limit >= 32


async def test_the_rate_cap_holds() -> None:
    pace = Pace(PaceSettings(start=10, most=10, max_per_s=200.0), SystemClock())
    clock = SystemClock()
    begin = clock.monotonic_ns()
    for _ in range(21):
        await pace.enter()
        pace.leave()
    assert (clock.monotonic_ns() - begin) / 1e9 >= 20 / 200 * 0.95


async def test_nothing_starts_before_the_time_that_the_target_asked_for() -> None:
    clock = SystemClock()
    pace = Pace(PaceSettings(start=4, most=4), clock)
    begin = clock.monotonic_ns()
    pace.was_busy(retry_after_s=0.1)
    await pace.enter()
    assert (clock.monotonic_ns() - begin) / 1e9 >= 0.095


@pytest.mark.parametrize(("requests", "most"), [(0, 10), (100, 30), (1000, 210)])
def test_retries_stay_a_share_of_requests(requests: int, most: int) -> None:
    budget = RetryBudget(share=0.2, reserve=10)
    for _ in range(requests):
        budget.earn()
        budget.spend()
    while budget.spend():
        pass
    assert budget.used <= most
