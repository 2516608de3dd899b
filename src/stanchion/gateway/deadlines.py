"""Ends requests that take too long: one timer looks at all of them, so that none needs timers of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Collection
from typing import TypeVar

from stanchion.gateway.exchange import NEVER, Exchange

LOOK_S = 0.02
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Deadlines:
    """Looks every `LOOK_S` at the requests that run, while there are any; so late an end may be, never early.

    Args:
        running: the requests, as they are at each look.
    """

    def __init__(self, running: Collection[Exchange]) -> None:
        self._running = running
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look from now on, on the running loop; called whenever a request begins."""
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._timer = loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # the requests of a loop before this one are not ours to end
            return
        self._timer = loop.call_later(LOOK_S, self._look) if self._running else None
        now = loop.time()
        for exchange in tuple(self._running):
            try:
                if now >= exchange.ends_at or now >= exchange.try_ends_at:
                    exchange.look(now)
            except Exception as error:  # one request's failure must not keep the others running
                _log.error("%s at the deadline of request %s", type(error).__name__, exchange.id)


async def within(exchange: Exchange, seconds: float, awaited: Awaitable[_T]) -> _T:
    """What is awaited, when it comes within so many seconds; else it is cancelled.

    Raises:
        TimeoutError: when it took longer.
    """
    if not exchange.is_looked_at:
        async with asyncio.timeout(seconds):
            return await awaited
    loop = exchange.loop or asyncio.get_running_loop()
    exchange.try_ends_at = loop.time() + seconds
    try:
        return await awaited
    except asyncio.CancelledError:
        if exchange.try_ended and exchange.interrupted_by is None:
            raise TimeoutError from None
        raise
    finally:
        exchange.try_ends_at = NEVER
        if exchange.try_ended:
            exchange.try_ended = False
            if exchange.task is not None:
                exchange.task.uncancel()
