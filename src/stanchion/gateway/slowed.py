"""Callers who are slowed: one turn in so many seconds, in this process or for all workers together.

Nothing is read from outside for anybody else: who is slowed is known from memory, and only a caller who is
slowed takes a turn in Redis. There the time is the server's.
"""

from __future__ import annotations

from typing import Any

from stanchion.core.clock import Clock
from stanchion.core.errors import UnavailableError
from stanchion.gateway.ledger_redis import PREFIX, guarded

_MOST = 100_000
_KEYS = (PREFIX + "slowed", PREFIX + "slowed-change")

_NOW = """
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
"""

# KEYS: who is slowed with the end of it, when that changed, the caller's turn.
# ARGV: the caller, how long in s, pause in ms, most callers.
_SLOW = (
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZSCORE', KEYS[1], ARGV[1]) or redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[4]) then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
  redis.call('SET', KEYS[3], '1', 'PX', ARGV[3])
end
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[2])) + 1)
redis.call('SET', KEYS[2], string.format('%.6f', now))
return 1
"""
)

# ARGV: the change that was read last. Nothing new: that alone.
_READ = (
    _NOW
    + """
local change = redis.call('GET', KEYS[2]) or '-'
if change == ARGV[1] then return {change} end
local rows = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES')
for i = 2, #rows, 2 do rows[i] = string.format('%.6f', tonumber(rows[i]) - now) end
return {change, rows}
"""
)

# KEYS: the caller's turn. ARGV: pause in ms. 0: the turn is taken; else how long to wait in ms.
_TURN = """
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then return 0 end
return math.max(1, redis.call('PTTL', KEYS[1]))
"""


class SlowedHere:
    """Who is slowed in this process; `interval_s` lies between two turns of a caller."""

    def __init__(self, *, interval_s: float, clock: Clock) -> None:
        self.interval_s = interval_s
        self._clock = clock
        self._until_s: dict[str, float] = {}
        self._free_at_s: dict[str, float] = {}

    def is_slowed(self, subject: str) -> bool:
        """Whether the caller has to take turns; from memory."""
        until_s = self._until_s.get(subject) if self._until_s else None
        if until_s is None:
            return False
        if self._now_s() < until_s:
            return True
        self._forget(subject)
        return False

    async def slow(self, subject: str, *, for_s: float) -> None:
        """Slow a caller from now on, for so long."""
        self._note(subject, for_s=for_s)
        if subject in self._until_s:
            self._free_at_s[subject] = self._now_s() + self.interval_s

    async def take_turn(self, subject: str) -> float:
        """0.0 when it is the caller's turn, which is then taken; else for how many seconds to wait."""
        now_s = self._now_s()
        wait_s = self._free_at_s.get(subject, 0.0) - now_s
        if wait_s > 0:
            return wait_s
        self._free_at_s[subject] = now_s + self.interval_s
        return 0.0

    async def load(self) -> None:
        """Learn who was slowed elsewhere: nobody."""

    def _note(self, subject: str, *, for_s: float) -> None:
        if len(self._until_s) >= _MOST:
            now_s = self._now_s()
            for over in [each for each, until_s in self._until_s.items() if until_s <= now_s]:
                self._forget(over)
        if subject in self._until_s or len(self._until_s) < _MOST:
            self._until_s[subject] = self._now_s() + for_s

    def _forget(self, subject: str) -> None:
        self._until_s.pop(subject, None)
        self._free_at_s.pop(subject, None)

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9


class SlowedTogether(SlowedHere):
    """Who is slowed by any worker, and turns that all workers give together.

    While Redis cannot be reached, this process goes on with those it knows, and counts their turns alone.
    """

    def __init__(self, client: Any, *, timeout_s: float, interval_s: float, clock: Clock) -> None:
        """`client` is one of `redis.asyncio`, for others to close."""
        super().__init__(interval_s=interval_s, clock=clock)
        self._timeout_s = timeout_s
        self._pause_ms = max(1, round(interval_s * 1000))
        self._seen = ""
        self._slow = client.register_script(_SLOW)
        self._read = client.register_script(_READ)
        self._turn = client.register_script(_TURN)

    async def slow(self, subject: str, *, for_s: float) -> None:
        """Slow a caller in every worker.

        Raises:
            UnavailableError: when Redis cannot be told; the caller is then slowed in this process only.
        """
        await super().slow(subject, for_s=for_s)
        call = self._slow(keys=[*_KEYS, _turn_key(subject)], args=[subject, for_s, self._pause_ms, _MOST])
        await guarded(call, timeout_s=self._timeout_s)

    async def take_turn(self, subject: str) -> float:
        """See `SlowedHere.take_turn`; the turn is one of all workers."""
        try:
            call = self._turn(keys=[_turn_key(subject)], args=[self._pause_ms])
            wait_ms = int(await guarded(call, timeout_s=self._timeout_s))
        except UnavailableError:  # `load` tells of it within a second
            return await super().take_turn(subject)
        if wait_ms == 0:
            self._free_at_s[subject] = self._now_s() + self.interval_s
        return wait_ms / 1000

    async def load(self) -> None:
        """Learn who was slowed elsewhere; called every second or so.

        Raises:
            UnavailableError: when Redis does not answer.
        """
        found = await guarded(self._read(keys=_KEYS, args=[self._seen]), timeout_s=self._timeout_s)
        if len(found) == 1:
            return
        self._seen, rows = found
        for subject, left_s in zip(rows[::2], rows[1::2], strict=True):
            self._note(subject, for_s=float(left_s))


def _turn_key(subject: str) -> str:
    return f"{PREFIX}turn:{subject}"
