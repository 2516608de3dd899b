"""Clients that wait for a person are told by another process, over a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import time

from stanchion.gateway.approval_notices import FleetNotices, RedisNotices


async def _told(url: str, *, ticket: str, seconds: float) -> float:
    """How long a waiter of one process waited, while another process tells of `ticket_1`."""
    notices, elsewhere = FleetNotices(redis_url=url), RedisNotices(url)
    listening = asyncio.create_task(notices.run())

    async def tell() -> None:
        while True:  # the listener may still be connecting
            await asyncio.to_thread(elsewhere.tell, "ticket_1")
            await asyncio.sleep(0.05)

    telling = asyncio.create_task(tell())
    began = time.monotonic()
    await notices.wait(ticket, seconds=seconds)
    for task in (telling, listening):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return time.monotonic() - began


def test_a_waiter_hears_over_redis_of_its_ticket_and_of_no_other(redis_url):
    assert asyncio.run(_told(redis_url, ticket="ticket_1", seconds=30)) < 15
    assert asyncio.run(_told(redis_url, ticket="ticket_2", seconds=1.0)) >= 1.0


def test_a_redis_that_is_away_harms_nobody():
    async def try_it() -> None:
        notices = FleetNotices(redis_url="redis://127.0.0.1:1")
        listening = asyncio.create_task(notices.run())
        waiting = asyncio.create_task(notices.wait("ticket_1", seconds=30))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(notices.tell, "ticket_1")
        await asyncio.wait_for(waiting, 5)
        assert not listening.done()
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening

    asyncio.run(try_it())
