"""The same counts in Redis, shared by all workers: one script, one round trip for a whole request.

Time is the server's, so that clocks of workers need not agree. All keys carry one hash tag: on a cluster they
live on one node, because a script may only touch one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from stanchion.core.errors import UnavailableError
from stanchion.files.references import Secret
from stanchion.gateway.ledger import CONCURRENCY_RETRY_S, Charge, Refusal, retry_after
from stanchion.gateway.redis_driver import redis_driver

PREFIX = "{stanchion}:limits:"

# KEYS: one a charge.
# ARGV: now in s (-1: of the server), hold id, lease in s, then most, amount, window_s of each charge.
_HOLD = """
local now = tonumber(ARGV[1])
if now < 0 then local t = redis.call('TIME'); now = tonumber(t[1]) + tonumber(t[2]) / 1000000 end
local lease, seen = tonumber(ARGV[3]), {}
for i, key in ipairs(KEYS) do
  local most, amount, window = tonumber(ARGV[3*i+1]), tonumber(ARGV[3*i+2]), tonumber(ARGV[3*i+3])
  if window == 0 then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if redis.call('ZCARD', key) >= most then return {i, '0', '0', '0', '0'} end
    seen[i] = {0, 0, 0}
  else
    local slot, row = math.floor(now / window), redis.call('HMGET', key, 's', 'b', 'c', 'l')
    local old, before, current = tonumber(row[1]), tonumber(row[2]) or 0, tonumber(row[3]) or 0
    if old ~= nil and slot > old then
      if slot == old + 1 then before, current = current, 0 else before, current = 0, 0 end
    elseif old ~= nil and slot < old then slot = old end
    local ago = now - (tonumber(row[4]) or now)
    if ago >= window then before, current = 0, 0 end
    local elapsed = now - slot * window
    if before * (1.0 - elapsed / window) + current + amount > most then
      local since = {string.format('%.6f', elapsed), string.format('%.6f', ago)}
      return {i, tostring(before), tostring(current), since[1], since[2]}
    end
    local last = amount > 0 and string.format('%.6f', now) or row[4] or ''
    seen[i] = {slot, before, current + amount, last}
  end
end
local slots = {0}
for i, key in ipairs(KEYS) do
  local window = tonumber(ARGV[3*i+3])
  if window == 0 then
    redis.call('ZADD', key, now + lease, ARGV[2])
    redis.call('PEXPIRE', key, math.ceil(lease * 1000) + 1000)
  else
    redis.call('HSET', key, 's', seen[i][1], 'b', seen[i][2], 'c', seen[i][3], 'l', seen[i][4])
    redis.call('PEXPIRE', key, window * 2000 + 1000)
  end
  slots[i + 1] = seen[i][1]
end
return slots
"""

# ARGV: now, hold id, unused, then slot, difference, window_s a charge.
_SETTLE = """
local now = tonumber(ARGV[1])
if now < 0 then local t = redis.call('TIME'); now = tonumber(t[1]) + tonumber(t[2]) / 1000000 end
for i, key in ipairs(KEYS) do
  local slot, more, window = tonumber(ARGV[3*i+1]), tonumber(ARGV[3*i+2]), tonumber(ARGV[3*i+3])
  if window == 0 then
    redis.call('ZREM', key, ARGV[2])
  elseif more ~= 0 then
    local row = redis.call('HMGET', key, 's', 'b', 'c')
    local old = tonumber(row[1])
    if old ~= nil then
      local field = (slot == old and 'c') or (slot == old - 1 and 'b') or nil
      if field then
        local was = tonumber(field == 'c' and row[3] or row[2]) or 0
        redis.call('HSET', key, field, math.max(0, was + more))
      end
    end
  end
end
return 1
"""

# ARGV: now, unused, lease in s, then the hold id a key.
_RENEW = """
local now = tonumber(ARGV[1])
if now < 0 then local t = redis.call('TIME'); now = tonumber(t[1]) + tonumber(t[2]) / 1000000 end
local lease = tonumber(ARGV[3])
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, now + lease, ARGV[3 + i])
  redis.call('PEXPIRE', key, math.ceil(lease * 1000) + 1000)
end
return 1
"""


def connect(url: Secret, *, timeout_s: float) -> Any:
    """A client of `redis.asyncio`; connects on first use.

    Raises:
        MissingExtraError: without the driver.
    """
    return redis_driver().asyncio.Redis.from_url(
        url.reveal(), socket_timeout=timeout_s, socket_connect_timeout=timeout_s, decode_responses=True
    )


class RedisLedger:
    """Counts that all workers share. `now_s` fixes the time, for tests that compare with memory."""

    def __init__(self, client: Any, *, timeout_s: float, now_s: float | None = None) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self.now_s = now_s
        self._hold = client.register_script(_HOLD)
        self._settle = client.register_script(_SETTLE)
        self._renew = client.register_script(_RENEW)

    async def hold(
        self, charges: Sequence[Charge], *, hold_id: str, lease_s: float
    ) -> Refusal | tuple[int, ...]:
        """See `Ledger.hold`."""
        rows = [(c.most, c.amount, c.window_s) for c in charges]
        answer = await self._run(self._hold, [c.key for c in charges], rows, head=(hold_id, lease_s))
        if int(answer[0]) == 0:
            return tuple(int(slot) for slot in answer[1:])
        index = int(answer[0]) - 1
        if charges[index].window_s == 0:
            return Refusal(index, CONCURRENCY_RETRY_S)
        before, current = int(float(answer[1])), int(float(answer[2]))
        elapsed, ago = float(answer[3]), float(answer[4])
        after = retry_after(before, current, charges[index], elapsed_s=elapsed, charged_ago_s=ago)
        return Refusal(index, after)

    async def settle(
        self, charges: Sequence[Charge], slots: Sequence[int], actual: Sequence[int], *, hold_id: str
    ) -> None:
        """See `Ledger.settle`."""
        rows = [
            (slot, used - c.amount, c.window_s) for c, slot, used in zip(charges, slots, actual, strict=True)
        ]
        await self._run(self._settle, [c.key for c in charges], rows, head=(hold_id, 0.0))

    async def renew(self, keys: Sequence[tuple[str, str]], *, lease_s: float) -> None:
        """See `Ledger.renew`."""
        if keys:
            rows = [(hold_id,) for _, hold_id in keys]
            await self._run(self._renew, [key for key, _ in keys], rows, head=("", lease_s))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _run(
        self,
        script: Any,
        keys: Sequence[str],
        rows: Sequence[tuple[Any, ...]],
        *,
        head: tuple[str, float],
    ) -> Any:
        arguments = [-1 if self.now_s is None else self.now_s, *head]
        call: Awaitable[Any] = script(
            keys=[PREFIX + key for key in keys], args=[*arguments, *(value for row in rows for value in row)]
        )
        return await guarded(call, timeout_s=self._timeout_s)


async def guarded(call: Awaitable[Any], *, timeout_s: float) -> Any:
    """The answer of Redis within the time.

    Raises:
        UnavailableError: when it does not answer as it must; the message holds no address.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await call
    except (redis_driver().RedisError, OSError, TimeoutError) as error:
        raise UnavailableError(
            f"Redis did not answer within {timeout_s:g} s ({type(error).__name__}).",
            hint="Check that the server runs and can be reached.",
        ) from None  # the cause may print the address
