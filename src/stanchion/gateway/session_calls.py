"""How often each session called the tools whose calls a policy limits: by the gateway's own count.

The history that a client sends says what the client likes. What was released is counted here, for the session
that is bound to the caller's key: in this process, or in Redis for all workers. A call is counted before it
is decided about, in one step, so that two answers at the same time cannot both be the last one allowed.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.errors import UnavailableError
from stanchion.files.references import Secret
from stanchion.gateway.ledger_redis import PREFIX, connect, guarded
from stanchion.gateway.limits_file import LimitsSection

TTL_S = 24 * 3600
MOST = 200_000
TIMEOUT_S = 0.25

# KEYS: one a tool. ARGV: lifetime in s, then how many more a tool. The counts before; a count is never < 0.
_ADD = """
local before = {}
for i, key in ipairs(KEYS) do
  local was = tonumber(redis.call('GET', key)) or 0
  before[i] = was
  redis.call('SET', key, math.max(0, was + tonumber(ARGV[i + 1])), 'EX', ARGV[1])
end
return before
"""


class SessionCalls(Protocol):
    """The counts. An empty session has none."""

    async def add(self, session_id: str, calls: Mapping[str, int]) -> Mapping[str, int | None]:
        """Count so many more calls of each tool (or fewer, below 0); how many there were before.

        None where that is not known: there is no session, or the counts cannot be reached.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class CallsHere:
    """The counts of this process. Sessions that are not used are forgotten after a day, and beyond `most`."""

    def __init__(self, *, clock: Clock, most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._counts: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    async def add(self, session_id: str, calls: Mapping[str, int]) -> Mapping[str, int | None]:
        """See `SessionCalls.add`."""
        if not session_id:
            return dict.fromkeys(calls)
        now_s = self._clock.monotonic_ns() / 1e9
        found: dict[str, int | None] = {}
        for name, more in calls.items():
            count, used_s = self._counts.pop((session_id, name), (0, now_s))
            before = found[name] = count if now_s - used_s < TTL_S else 0
            self._counts[session_id, name] = (max(0, before + more), now_s)
        while self._counts:
            (_, used_s) = next(iter(self._counts.values()))
            if len(self._counts) <= self._most and now_s - used_s < TTL_S:
                break
            self._counts.popitem(last=False)
        return found

    async def close(self) -> None:
        """Nothing to close."""


class CallsTogether:
    """The counts of all workers, in Redis, under digests. While it does not answer, nothing is known."""

    def __init__(self, client: Any, *, timeout_s: float) -> None:
        """`client` is one of `redis.asyncio`, and closed with this."""
        self._client = client
        self._timeout_s = timeout_s
        self._add = client.register_script(_ADD)

    async def add(self, session_id: str, calls: Mapping[str, int]) -> Mapping[str, int | None]:
        """See `SessionCalls.add`."""
        if not session_id:
            return dict.fromkeys(calls)
        keys = [_key(session_id, name) for name in calls]
        try:
            asked = self._add(keys=keys, args=[TTL_S, *calls.values()])
            before = await guarded(asked, timeout_s=self._timeout_s)
        except UnavailableError:
            return dict.fromkeys(calls)
        return {name: int(count) for name, count in zip(calls, before, strict=True)}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class SessionCounter(msgspec.Struct, frozen=True, kw_only=True):
    """Implements `guard.exchange.CallCounter` for the session of one request."""

    counts: SessionCalls
    session_id: str

    async def take(self, calls: Mapping[str, int]) -> Mapping[str, int | None]:
        """Count calls that are about to be decided on; how many there were before."""
        return await self.counts.add(self.session_id, calls)

    async def give_back(self, calls: Mapping[str, int]) -> None:
        """They were stopped."""
        await self.counts.add(self.session_id, {name: -count for name, count in calls.items()})


def kept_calls(
    kept: dict[str, tuple[Any, Any]], section: LimitsSection | None, fleet: Secret | None, *, clock: Clock
) -> Any:
    """The counts: in the Redis of the limits, else in the fleet's, else here; those in `kept` while it is so.

    Raises:
        MissingExtraError: for Redis without its driver.
    """
    is_shared = section is not None and section.storage == "redis"
    url = section.redis_url if section is not None and is_shared else fleet
    timeout_s = section.timeout_ms / 1000 if section is not None else TIMEOUT_S
    where = None if url is None else (url.reveal(), timeout_s)
    if "calls" not in kept or kept["calls"][0] != where:
        made: SessionCalls = CallsHere(clock=clock)
        if url is not None:
            made = CallsTogether(connect(url, timeout_s=timeout_s), timeout_s=timeout_s)
        kept["calls"] = (where, made)
    return kept["calls"][1]


def _key(session_id: str, name: str) -> str:
    said = f"{len(session_id)}:{session_id}{name}".encode("utf-8", "surrogatepass")
    return f"{PREFIX}calls:{hashlib.sha256(said).hexdigest()}"
