"""One timer ends what is late: requests, and tries at a provider; nothing ends early or twice."""

import asyncio

import pytest
from gateway_server import Records, live, scripted_models

from stanchion.gateway.deadlines import LOOK_S, Deadlines, within
from stanchion.gateway.exchange import Exchange, Interrupt
from stanchion.gateway.ports import ApiSurface


@pytest.fixture
def make(guard):
    configuration = live(scripted_models({"default": {"text": "x"}}), {"main": guard}, Records())

    def exchange():
        one = Exchange(id="req", surface=ApiSurface.OPENAI_CHAT, live=configuration, headers={}, started_ns=0)
        one.task = asyncio.current_task()
        one.is_looked_at = True
        return one

    return exchange


async def test_a_try_that_takes_too_long_is_cancelled_and_the_request_goes_on(make) -> None:
    exchange, seen = make(), []

    async def hang():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    Deadlines([exchange]).watch(asyncio.get_running_loop())
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await within(exchange, 0.05, hang())
    took = asyncio.get_running_loop().time() - began
    assert seen == ["cancelled"]
    assert 0.05 <= took < 0.05 + 20 * LOOK_S
    assert asyncio.current_task().cancelling() == 0
    assert await within(exchange, 5.0, asyncio.sleep(0, "answered")) == "answered"
    await asyncio.sleep(3 * LOOK_S)  # the try is over: its deadline ends nothing any more


async def test_the_end_of_the_request_goes_before_the_end_of_a_try(make) -> None:
    exchange = make()
    Deadlines([exchange]).watch(asyncio.get_running_loop())
    exchange.within(0.01)
    with pytest.raises(asyncio.CancelledError):
        await within(exchange, 0.01, asyncio.sleep(60))
    assert exchange.interrupted_by is Interrupt.DEADLINE
    asyncio.current_task().uncancel()
    await asyncio.sleep(3 * LOOK_S)  # it is ended once


async def test_a_request_that_nobody_looks_at_has_a_timer_of_its_own(make) -> None:
    exchange = make()
    exchange.is_looked_at = False
    with pytest.raises(TimeoutError):
        await within(exchange, 0.01, asyncio.sleep(60))


async def test_one_request_that_fails_keeps_no_other_from_its_end(make) -> None:
    class Broken:
        id, ends_at = "req_broken", 0.0

        def look(self, now):
            raise RuntimeError("broken")

    exchange = make()
    Deadlines([Broken(), exchange]).watch(asyncio.get_running_loop())
    with pytest.raises(TimeoutError):
        await within(exchange, 0.01, asyncio.sleep(60))


def test_a_second_event_loop_has_its_own_timer(make) -> None:
    running: list[Exchange] = []
    deadlines = Deadlines(running)

    async def late():
        running[:] = [make()]
        deadlines.watch(asyncio.get_running_loop())
        with pytest.raises(TimeoutError):
            await within(running[0], 0.01, asyncio.sleep(60))

    asyncio.run(late())
    asyncio.run(late())


async def test_nothing_is_looked_at_while_nothing_runs(make) -> None:
    running = [make()]
    deadlines = Deadlines(running)
    deadlines.watch(asyncio.get_running_loop())
    running.clear()
    await asyncio.sleep(4 * LOOK_S)
    assert deadlines._timer is None
    running.append(make())
    deadlines.watch(asyncio.get_running_loop())
    with pytest.raises(TimeoutError):
        await within(running[0], 0.01, asyncio.sleep(60))
