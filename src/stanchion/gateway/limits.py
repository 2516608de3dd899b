"""Limits of a request: all of them hold together, or nothing is taken.

In order: the block list and penalties (memory), windows and requests in flight (one step in memory, one round
trip in Redis), budgets of a day or month (memory, until a slice of the budget is spent). A limit above 1 is
never exceeded by what is set aside; an answer that takes more than was set aside is charged in full when it
is settled, so the most that a window can show above its limit is the sum of those surpluses.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from stanchion.core.clock import Clock, Ids
from stanchion.core.decision import OnFailure
from stanchion.core.errors import StanchionError, UnavailableError, UsageError
from stanchion.core.interaction import Usage
from stanchion.gateway.budgets import BudgetKey, Budgets, period_of
from stanchion.gateway.ledger import Charge, Ledger, MemoryLedger, Refusal
from stanchion.gateway.limits_file import LimitRule, LimitsSection
from stanchion.gateway.penalties import Penalties
from stanchion.gateway.ports import Outcome, Refused, RequestFacts
from stanchion.gateway.redis_driver import redis_driver

_RETRY_STORE_S = 1.0
_MOST_TOKENS = 10**9
_FIELDS = {"key": "key_id", "tenant": "tenant", "user": "user_key", "feature": "feature", "model": "model"}


class LimitsHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How counting goes: `state` is ok, closed, open or degraded; `failures` since the process began.

    `lost_reports` counts settlements that could not be told; their reservations stay until they run out.
    """

    state: str
    failures: int = 0
    lost_reports: int = 0
    reason: str = ""


class _Rule(msgspec.Struct, frozen=True):
    """A rule with what is asked of it for every request."""

    rule: LimitRule
    kind: str
    most: int
    window_s: int
    period: str


class _Bound(msgspec.Struct, frozen=True):
    """A charge of a rule for one request; `budget` is set for days and months."""

    rule: LimitRule
    kind: str
    charge: Charge
    budget: BudgetKey | None = None


class _Held(msgspec.Struct):
    """Where the parts of a reservation are."""

    hold_id: str
    windows: list[_Bound]
    slots: tuple[int, ...]
    ledger: Ledger | None
    budgets: list[_Bound]


class LimitReservation:
    """What one request has set aside; see `ports.Reservation`. A second settling does nothing."""

    __slots__ = ("_facts", "_input", "_is_done", "_output", "_owner", "_requests", "held")

    def __init__(
        self, owner: Limiter, held: _Held, facts: RequestFacts, *, tokens: tuple[int, int], requests: int = 1
    ) -> None:
        self._owner, self.held, self._facts = owner, held, facts
        self._input, self._output = tokens
        self._requests = requests
        self._is_done = False

    async def settle(self, usage: Usage) -> None:
        """Charge what was used; a count that is not known is charged as reserved."""
        given = usage.input_tokens, usage.output_tokens
        tokens_in = self._input if given[0] is None else min(max(0, given[0]), _MOST_TOKENS)
        tokens_out = self._output if given[1] is None else min(max(0, given[1]), _MOST_TOKENS)
        micro = self._owner.cost(self._facts.model, tokens_in, tokens_out)
        if usage.cost_usd is not None:
            micro = math.ceil(max(0.0, usage.cost_usd) * 1e6)
        await self._end({"requests": self._requests, "tokens": tokens_in + tokens_out, "usd": micro})

    async def release(self) -> None:
        """Nothing was used: everything goes back, the request itself too."""
        await self._end({"requests": 0, "tokens": 0, "usd": 0})

    async def _end(self, used: dict[str, int]) -> None:
        if not self._is_done:
            self._is_done = True
            await self._owner.finish(self.held, used)


class Limiter:
    """Requests, concurrency, tokens and money; see `ports.Limits`. Made by `make_limits`."""

    def __init__(
        self,
        section: LimitsSection,
        *,
        clock: Clock,
        ids: Ids,
        ledger: Ledger | None = None,
        budgets: Budgets | None = None,
        penalties: Penalties | None = None,
    ) -> None:
        if budgets is None and any(rule.window.period for rule in section.rules):
            raise UsageError("a limit by day or month needs a database.", hint="Set `store_url`.")
        self.section = section
        self._clock = clock
        self._holds = ids.new("hold")  # unique for the process; a count makes it so for each reservation
        self._held = 0
        self._rules = [
            _Rule(rule, rule.kind, rule.most, rule.window.seconds, rule.window.period)
            for rule in section.rules
        ]
        self._local = MemoryLedger(clock)
        self._ledger: Ledger = ledger or self._local
        self._budgets = budgets
        self.penalties = penalties
        self._in_flight: dict[str, tuple[tuple[str, ...], float]] = {}
        self._failures = self._lost = 0
        self._reason = ""
        self._store_off_until_s = 0.0
        self._is_failing = False

    @property
    def health(self) -> LimitsHealth:
        """What is shown in readiness and metrics."""
        state = "ok"
        if self._is_failing:
            state = {"degrade": "degraded"}.get(self.section.on_failure.value, self.section.on_failure.value)
        return LimitsHealth(
            state=state, failures=self._failures, lost_reports=self._lost, reason=self._reason
        )

    async def reserve(
        self, facts: RequestFacts, *, input_tokens: int, max_output_tokens: int | None, requests: int = 1
    ) -> LimitReservation:
        """See `ports.Limits.reserve`."""
        if self.penalties is not None:
            await self.penalties.check(facts)
        tokens_in = min(max(0, input_tokens), _MOST_TOKENS)
        named = self.section.default_output_tokens if max_output_tokens is None else max_output_tokens
        tokens_out = min(max(0, named), _MOST_TOKENS)
        windows, budgets = self._bind(facts, (tokens_in, tokens_out), requests)
        self._held += 1
        held = _Held(f"{self._holds}.{self._held}", windows, (), None, [])
        if windows:
            await self._hold_windows(held)
        try:
            for one in budgets:
                await self._take_budget(one, held)
        except BaseException:
            await self.finish(held, {"requests": 0, "tokens": 0, "usd": 0})
            raise
        return LimitReservation(self, held, facts, tokens=(tokens_in, tokens_out), requests=requests)

    async def observe(self, facts: RequestFacts, outcome: Outcome) -> None:
        """See `ports.Limits.observe`; a failing store is counted and never harms the request."""
        if self.penalties is None:
            return
        try:
            await self.penalties.observe(facts, outcome)
        except Exception as error:  # limits' storages raise their drivers' errors
            self._note(f"penalties: {type(error).__name__}")

    def cost(self, model: str, tokens_in: int, tokens_out: int) -> int:
        """Millionths of a dollar, rounded up; 0 without a price."""
        price = self.section.price(model)
        if price is None:
            return 0
        return math.ceil(tokens_in * price.input_usd_per_million + tokens_out * price.output_usd_per_million)

    async def finish(self, held: _Held, used: dict[str, int]) -> None:
        """Settle all parts of a reservation."""
        for one in held.budgets:
            if self._budgets is not None and one.budget is not None:
                self._budgets.give(one.budget, one.charge.amount - used[one.kind])
        self._in_flight.pop(held.hold_id, None)
        if held.ledger is None:
            return
        charges = [one.charge for one in held.windows]
        actual = [used.get(one.kind, 1) for one in held.windows]
        try:
            await held.ledger.settle(charges, held.slots, actual, hold_id=held.hold_id)
        except UnavailableError as error:
            self._lost += 1
            self._note(error.message)

    async def tick(self) -> None:
        """What is done every second or so: leases renewed, slowed callers read, budgets reported."""
        await self._renew()
        if self.penalties is not None:
            try:
                await self.penalties.load()
            except UnavailableError as error:
                self._note(error.message)
        if self._budgets is not None:
            with contextlib.suppress(StanchionError):
                await self._budgets.report()

    async def run(self) -> None:
        """`tick` until cancelled; the gateway runs it beside its requests."""
        pause = min(1.0, self.section.lease_s / 3)
        while True:
            await self.tick()
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Give back what is left of budgets and close connections."""
        if self._budgets is not None:
            with contextlib.suppress(StanchionError):
                await self._budgets.report(is_last=True)
        if self.penalties is not None:
            await self.penalties.close()
        await self._ledger.close()

    # --- parts of a reservation -----------------------------------------------------------------------------

    def _bind(
        self, facts: RequestFacts, tokens: tuple[int, int], requests: int
    ) -> tuple[list[_Bound], list[_Bound]]:
        windows: list[_Bound] = []
        budgets: list[_Bound] = []
        for one in self._rules:
            rule = one.rule
            if not _applies(rule, facts):
                continue
            amount = requests if one.kind == "requests" else 1
            if one.kind == "tokens":
                amount = sum(tokens)
            elif one.kind == "usd":
                amount = self.cost(facts.model, *tokens)
            scope = _scope(rule, facts)
            charge = Charge(f"{rule.id}|{scope}", one.most, amount, one.window_s)
            if one.period:
                period, _ = period_of(self._clock.now(), one.period)
                budgets.append(_Bound(rule, one.kind, charge, BudgetKey(rule.id, scope, period)))
            else:
                windows.append(_Bound(rule, one.kind, charge))
        return windows, budgets

    async def _hold_windows(self, held: _Held) -> None:
        charges = [one.charge for one in held.windows]
        answer: Refusal | tuple[int, ...]
        if self._ledger is self._local:
            answer = await self._local.hold(charges, hold_id=held.hold_id, lease_s=self.section.max_request_s)
            held.ledger = self._local
        else:
            answer = await self._hold_shared(held, charges)
        if isinstance(answer, Refusal):
            held.ledger = None
            raise limit_reached(held.windows[answer.index].rule, answer.retry_after_s)
        held.slots = answer

    async def _hold_shared(self, held: _Held, charges: Sequence[Charge]) -> Refusal | tuple[int, ...]:
        now = self._clock.monotonic_ns() / 1e9
        if now >= self._store_off_until_s:
            try:
                answer = await self._ledger.hold(charges, hold_id=held.hold_id, lease_s=self.section.lease_s)
            except UnavailableError as error:
                self._note(error.message)
                self._is_failing = True
                self._store_off_until_s = now + _RETRY_STORE_S
            else:
                self._is_failing = False
                held.ledger = self._ledger
                keys = tuple(charge.key for charge in charges if charge.window_s == 0)
                if keys and not isinstance(answer, Refusal):
                    self._in_flight[held.hold_id] = (keys, now + self.section.max_request_s)
                return answer
        return await self._hold_alone(held, charges)

    async def _hold_alone(self, held: _Held, charges: Sequence[Charge]) -> Refusal | tuple[int, ...]:
        """The declared outcome while the shared counts cannot be reached."""
        match self.section.on_failure:
            case OnFailure.OPEN:
                return (0,) * len(charges)
            case OnFailure.CLOSED:
                raise _unavailable()
            case OnFailure.DEGRADE:
                share = self.section.degrade_share
                local = [msgspec.structs.replace(c, most=max(1, math.floor(c.most * share))) for c in charges]
                held.ledger = self._local
                lease_s = self.section.max_request_s
                return await self._local.hold(local, hold_id=held.hold_id, lease_s=lease_s)

    async def _take_budget(self, one: _Bound, held: _Held) -> None:
        if self._budgets is None or one.budget is None:
            raise _unavailable()
        try:
            is_taken = await self._budgets.take(one.budget, amount=one.charge.amount, most=one.charge.most)
        except StanchionError as error:
            self._note(error.message)
            if self.section.on_failure is OnFailure.OPEN:
                return
            raise _unavailable() from None
        if not is_taken:
            _, end = period_of(self._clock.now(), one.rule.window.period)
            raise limit_reached(one.rule, (end - self._clock.now()).total_seconds())
        held.budgets.append(one)

    async def _renew(self) -> None:
        now = self._clock.monotonic_ns() / 1e9
        for hold_id in [h for h, (_, until) in self._in_flight.items() if until <= now]:
            del self._in_flight[hold_id]
        pairs = [(key, hold_id) for hold_id, (keys, _) in self._in_flight.items() for key in keys]
        if pairs and now >= self._store_off_until_s:
            try:
                await self._ledger.renew(pairs, lease_s=self.section.lease_s)
            except UnavailableError as error:
                self._note(error.message)

    def _note(self, reason: str) -> None:
        self._failures += 1
        self._reason = reason


def make_limits(
    section: LimitsSection, *, clock: Clock, ids: Ids, budgets: Budgets | None = None, blocks: Any = None
) -> Limiter:
    """The limits of a section. `blocks` is the `BlockList`, needed when the section has penalties.

    Raises:
        UsageError: for budgets or penalties without a database.
        MissingExtraError: for Redis without its driver.
    """
    ledger: Ledger | None = None
    penalties = None
    shared: dict[str, Any] = {}
    if section.storage == "redis" and section.redis_url is not None:
        from stanchion.gateway.ledger_redis import RedisLedger, connect

        timeout_s = section.timeout_ms / 1000
        client = connect(section.redis_url, timeout_s=timeout_s)
        ledger = RedisLedger(client, timeout_s=timeout_s)
        shared = {} if section.penalties is None else _shared_strikes(section, client, clock=clock)
    if section.penalties is not None:
        if blocks is None:
            raise UsageError("penalties need a database for the block list.", hint="Set `store_url`.")
        penalties = Penalties(section.penalties, blocks, clock=clock, **shared)
    if budgets is not None:
        budgets.slice_share = section.budget_slice
    return Limiter(section, clock=clock, ids=ids, ledger=ledger, budgets=budgets, penalties=penalties)


def _shared_strikes(section: LimitsSection, client: Any, *, clock: Clock) -> dict[str, Any]:
    """Strikes and slowed callers in the same Redis; the connections of `limits` are ours to close."""
    from limits.storage import storage_from_string

    from stanchion.gateway.slowed import SlowedTogether

    if section.redis_url is None or section.penalties is None:
        raise UsageError("storage redis needs `redis_url`.")
    url = section.redis_url.reveal()
    scheme, _, rest = url.partition("://")
    scheme = "redis+unix" if scheme == "unix" else scheme
    timeout_s = section.timeout_ms / 1000
    pool: Any = redis_driver().asyncio.ConnectionPool.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
    )
    address = f"async+{scheme}://{rest}"
    interval_s = section.penalties.slow_interval_s
    return {
        "storage": storage_from_string(address, implementation="redispy", connection_pool=pool),
        "slowed": SlowedTogether(client, timeout_s=timeout_s, interval_s=interval_s, clock=clock),
        "pool": pool,
    }


def _applies(rule: LimitRule, facts: RequestFacts) -> bool:
    return (
        (not rule.features or facts.feature in rule.features)
        and (not rule.tenants or facts.tenant in rule.tenants)
        and (not rule.models or facts.model in rule.models)
    )


def _scope(rule: LimitRule, facts: RequestFacts) -> str:
    """Whose count it is; who is not known shares one count with everybody not known."""
    if not rule.per:
        return ""
    values = [str(getattr(facts, _FIELDS[name])) for name in rule.per]
    return "|".join([f"{len(value)}:{value}" for value in values])


def limit_reached(rule: LimitRule, retry_after_s: float | None) -> Refused:
    """The refusal of a request that a limit has no room for; without a time it never fits."""
    what = {"requests": "requests", "concurrency": "requests at the same time"}.get(rule.kind, rule.kind)
    if retry_after_s is None:
        hint = "This request alone asks for more than the limit: ask for a shorter answer, or send less text."
    else:
        hint = "Wait for the time in Retry-After, or send less at a time."
    return Refused(
        Outcome.LIMITED,
        status=429,
        code="rate_limit_exceeded",
        message=f"the limit {rule.id!r} on {what} is reached.",
        hint=hint,
        retry_after_s=retry_after_s,
    )


def _unavailable() -> Refused:
    return Refused(
        Outcome.LIMITED,
        status=503,
        code="limits_unavailable",
        message="limits cannot be counted now, and requests are refused until they can.",
        hint="Try again soon.",
        retry_after_s=_RETRY_STORE_S,
    )
