"""How many requests a target gets at once, and how fast: additive increase, multiplicative decrease.

The limit grows by one per round of successes and is cut when the target says it is busy, times out, or
answers much slower than it can. Cuts are at least one round trip apart, because the answers of one burst tell
one thing. Source of the rule: D. Chiu and R. Jain, Computer Networks and ISDN Systems 17 (1989) 1-14.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from stanchion.core.clock import Clock

_CUT_BUSY = 0.5
_CUT_SLOW = 0.85
_SLOW_FACTOR = 3.0
_SLOW_FLOOR_MS = 20.0  # below this, latency is the machine's own jitter
_SMOOTHING = 0.1


class PaceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the pace. `max_per_s` None means no cap on the rate."""

    start: int = 8
    most: int = 64
    max_per_s: float | None = None


class Pace:
    """A gate that workers pass before each request, and report to after it."""

    def __init__(self, settings: PaceSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._limit = float(min(settings.start, settings.most))
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._fastest_ms = float("inf")
        self._smoothed_ms = 0.0
        self._next_cut_ns = 0
        self._resume_ns = 0
        self._next_start_ns = 0
        self.cuts = 0

    @property
    def limit(self) -> int:
        """How many requests may be in flight now; at least one."""
        return max(1, int(self._limit))

    async def enter(self) -> None:
        """Wait until one more request may start."""
        while self._in_flight >= self.limit:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake()
                raise
        self._in_flight += 1
        if self._resume_ns or self._settings.max_per_s is not None:
            try:
                await self._wait_for_time()
            except asyncio.CancelledError:
                self.leave()
                raise

    def leave(self) -> None:
        """One request is over, whatever came of it."""
        self._in_flight -= 1
        self._wake()

    def answered(self, latency_ms: float) -> None:
        """A request went well."""
        self._fastest_ms = min(self._fastest_ms * 1.001, latency_ms)
        self._smoothed_ms += _SMOOTHING * (latency_ms - self._smoothed_ms)
        slow = self._smoothed_ms > max(_SLOW_FLOOR_MS, _SLOW_FACTOR * self._fastest_ms)
        if slow and self._limit > 1:
            self._cut(_CUT_SLOW)
        elif self._limit < self._settings.most and self._in_flight >= self.limit:
            self._limit = min(self._limit + 1.0 / self._limit, float(self._settings.most))
            self._wake()

    def was_busy(self, *, retry_after_s: float | None = None) -> None:
        """The target asked for less (429, 503, a timeout); nothing starts before `retry_after_s` is over."""
        self._cut(_CUT_BUSY)
        if retry_after_s:
            until = self._clock.monotonic_ns() + int(min(retry_after_s, 300.0) * 1e9)
            self._resume_ns = max(self._resume_ns, until)

    def _cut(self, factor: float) -> None:
        now = self._clock.monotonic_ns()
        if now < self._next_cut_ns:
            return
        self._limit = max(1.0, self._limit * factor)
        self._next_cut_ns = now + int(max(self._smoothed_ms, 1.0) * 1e6)
        self.cuts += 1

    def _wake(self) -> None:
        room = self.limit - self._in_flight
        while room > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                room -= 1

    async def _wait_for_time(self) -> None:
        now = self._clock.monotonic_ns()
        start = max(now, self._resume_ns)
        if self._settings.max_per_s is not None:
            start = max(start, self._next_start_ns)
            self._next_start_ns = start + int(1e9 / self._settings.max_per_s)
        if self._resume_ns <= now:
            self._resume_ns = 0
        if start > now:
            await asyncio.sleep((start - now) / 1e9)


class RetryBudget:
    """Retries as a share of requests, so that a failing target is not asked twice as often.

    Every request puts `share` of a retry in; `reserve` are there from the start.
    """

    def __init__(self, *, share: float = 0.2, reserve: float = 10.0) -> None:
        self._share = share
        self._most = reserve
        self._left = reserve
        self.used = 0

    def earn(self) -> None:
        """A first attempt was made."""
        self._left = min(self._left + self._share, self._most)

    def spend(self) -> bool:
        """Whether one more retry is affordable; takes it if so."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        self.used += 1
        return True
