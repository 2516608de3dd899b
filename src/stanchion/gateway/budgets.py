"""Budgets of a day or a month, kept in the database and spent from slices without I/O.

A worker takes a slice of a budget in one transaction and spends it in memory; only the next slice asks the
database again. What a slice holds counts as spent for everybody else, so all workers together never set aside
more than the budget. A worker reports what it has used and gives back the rest; when it was killed, its slice
runs out, what it had reported stays spent, and the rest goes back. So a crash can cost at most what was used
from that slice after the last report: never more than one slice for each budget and crash. Usage above its
reservation is taken from the next slice.

Amounts are whole numbers: tokens, requests, millionths of a dollar. Periods are UTC.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from stanchion.core.clock import Clock, Ids, SortableIds
from stanchion.store.database import Database
from stanchion.store.times import to_us

if TYPE_CHECKING:
    import sqlalchemy as sa

_REFUSED_S = 1.0  # so long the same refusal is given without asking the database again
_NEAR_THE_END = 4  # a slice is at most a quarter of what is left, so that others find some


class BudgetKey(msgspec.Struct, frozen=True):
    """One budget in one period: the rule, whose it is, and `2026-11-23` or `2026-11`."""

    name: str
    scope: str
    period: str


class BudgetUse(msgspec.Struct, frozen=True, kw_only=True):
    """What the database knows of a budget; `granted` is in slices that are still out."""

    key: BudgetKey
    spent: int
    granted: int


class _Slice:
    """`used` is what was set aside from it; `refused` is an amount that the database just had not left."""

    __slots__ = ("amount", "expires_s", "id", "lock", "refused", "refused_until_s", "reported", "used")

    def __init__(self) -> None:
        self.id, self.amount, self.used, self.reported, self.expires_s = "", 0, 0, 0, 0.0
        self.refused, self.refused_until_s = 0, 0.0
        self.lock = asyncio.Lock()

    def begin(self, slice_id: str, amount: int, *, closed_with: int) -> None:
        """A new slice; what came in between (settled requests) goes on with it."""
        self.id, self.amount, self.reported = slice_id, amount, 0
        self.used -= closed_with


def period_of(moment: datetime, period: str) -> tuple[str, datetime]:
    """The name of the UTC day or month, and the moment it ends."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return day.strftime("%Y-%m-%d"), day + timedelta(days=1)
    first = day.replace(day=1)
    return day.strftime("%Y-%m"), (first + timedelta(days=32)).replace(day=1)


class Budgets:
    """The slices of this process. One asyncio loop uses it."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        ids: Ids | None = None,
        slice_share: float = 0.01,
        lease_s: float = 60.0,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids or SortableIds(clock)
        self.slice_share = slice_share
        self._lease_s = lease_s
        self._slices: dict[BudgetKey, _Slice] = {}

    async def take(self, key: BudgetKey, *, amount: int, most: int) -> bool:
        """Set an amount aside; False when the budget has not so much left.

        Raises:
            UnavailableError: when a new slice is needed and the database cannot be reached.
        """
        held = self._slices.get(key)
        if held is None:
            held = self._slices[key] = _Slice()
        if self._fits(held, amount):
            held.used += amount
            return True
        async with held.lock:
            if not self._fits(held, amount):
                if amount >= held.refused and self._clock.monotonic_ns() / 1e9 < held.refused_until_s:
                    return False
                got = await asyncio.to_thread(self._exchange, key, held, amount, most=most)
                if not got:
                    return False
            held.used += amount
            return True

    def give(self, key: BudgetKey, amount: int) -> None:
        """Put an amount back that was set aside and not used; negative when more was used."""
        held = self._slices.get(key)
        if held is not None:
            held.used -= amount

    async def report(self, *, is_last: bool = False) -> None:
        """Tell the database what was used; with `is_last`, and for periods that are over, give slices back.

        Raises:
            UnavailableError: when it cannot be told; nothing is lost, the next report tells it.
        """
        for key, held in list(self._slices.items()):
            async with held.lock:
                is_over = is_last or self._is_over(key)
                is_news = (
                    held.used != held.reported
                )  # without a slice: what was given back since it was closed
                if is_news or (held.id and (is_over or self._is_near_end(held))):
                    await asyncio.to_thread(self._tell, key, held, is_last=is_over)
                if is_over:
                    self._slices.pop(key, None)

    def use(self, key: BudgetKey) -> BudgetUse:
        """What the database knows."""
        import sqlalchemy as sa

        from stanchion.store.tables import budget_periods as p

        with self._database.read() as connection:
            row = connection.execute(
                sa.select(p.c.spent, p.c.granted).where(
                    p.c.name == key.name, p.c.scope == key.scope, p.c.period == key.period
                )
            ).first()
        return BudgetUse(
            key=key, spent=0 if row is None else row.spent, granted=0 if row is None else row.granted
        )

    def _fits(self, held: _Slice, amount: int) -> bool:
        return held.used + amount <= held.amount and self._clock.monotonic_ns() / 1e9 < held.expires_s

    def _is_over(self, key: BudgetKey) -> bool:
        period = "day" if len(key.period) == len("2026-11-23") else "month"
        return period_of(self._clock.now(), period)[0] != key.period

    def _is_near_end(self, held: _Slice) -> bool:
        return self._clock.monotonic_ns() / 1e9 > held.expires_s - self._lease_s / 2

    def _exchange(self, key: BudgetKey, held: _Slice, amount: int, *, most: int) -> bool:
        """Close the slice in hand and take a new one, in one transaction."""
        held.expires_s = 0.0  # nobody takes from it meanwhile
        used = held.used
        with self._database.write() as connection:
            row = _lock_period(connection, key)
            spent, granted = _reclaim(connection, key, row, now_us=to_us(self._clock.now()))
            spent, granted = self._close(connection, held, used, (spent, granted))
            left = most - spent - granted
            wanted = max(amount, min(round(most * self.slice_share), left // _NEAR_THE_END))
            is_enough = amount <= left
            new_id = self._ids.new("slice") if is_enough else ""
            if is_enough:
                self._insert(connection, key, new_id, wanted)
                granted += wanted
            _write_period(connection, key, spent, granted)
        now_s = self._clock.monotonic_ns() / 1e9
        held.begin(new_id, wanted if is_enough else 0, closed_with=used)
        held.expires_s = now_s + self._lease_s
        if not is_enough:
            held.refused, held.refused_until_s = amount, now_s + _REFUSED_S
        return is_enough

    def _close(
        self, connection: sa.Connection, held: _Slice, used: int, totals: tuple[int, int]
    ) -> tuple[int, int]:
        """The totals after the slice in hand is given back; one that ran out is on the books already."""
        from stanchion.store.tables import budget_slices as s

        spent, granted = totals
        if not held.id:
            return spent + used, granted
        gone = connection.execute(s.delete().where(s.c.id == held.id)).rowcount
        if gone:
            return spent + used, granted - held.amount
        return spent + used - held.reported, granted

    def _tell(self, key: BudgetKey, held: _Slice, *, is_last: bool) -> None:
        from stanchion.store.tables import budget_slices as s

        if is_last:
            held.expires_s = 0.0
        used, told = held.used, 0
        with self._database.write() as connection:
            row = _lock_period(connection, key)
            if is_last:
                totals = self._close(connection, held, used, (row.spent, row.granted))
                _write_period(connection, key, *totals)
            else:
                told = connection.execute(
                    s.update().where(s.c.id == held.id).values(spent=used, expires_at_us=self._expiry_us())
                ).rowcount
                if not told:  # it ran out: what had not been told is spent all the same
                    _write_period(connection, key, row.spent + used - held.reported, row.granted)
        if told:
            held.reported = used
            held.expires_s = self._clock.monotonic_ns() / 1e9 + self._lease_s
        else:
            held.begin("", 0, closed_with=used)

    def _insert(self, connection: sa.Connection, key: BudgetKey, slice_id: str, amount: int) -> None:
        from stanchion.store.tables import budget_slices

        connection.execute(
            budget_slices.insert().values(
                id=slice_id,
                amount=amount,
                spent=0,
                expires_at_us=self._expiry_us(),
                **msgspec.structs.asdict(key),
            )
        )

    def _expiry_us(self) -> int:
        """Later by a lease than the worker stops using it, so that nobody else reclaims a slice in use."""
        return to_us(self._clock.now()) + round(2 * self._lease_s * 1e6)


def _lock_period(connection: sa.Connection, key: BudgetKey) -> Any:
    """The row of a budget, made when absent, ours until the transaction ends."""
    import sqlalchemy as sa

    from stanchion.store.tables import budget_periods as p
    from stanchion.store.tables import insert_if_new

    connection.execute(insert_if_new(connection, p).values(spent=0, granted=0, **msgspec.structs.asdict(key)))
    return connection.execute(
        sa.select(p.c.spent, p.c.granted)
        .where(p.c.name == key.name, p.c.scope == key.scope, p.c.period == key.period)
        .with_for_update()
    ).one()


def _reclaim(connection: sa.Connection, key: BudgetKey, row: Any, *, now_us: int) -> tuple[int, int]:
    """The totals after slices of dead workers are taken back."""
    import sqlalchemy as sa

    from stanchion.store.tables import budget_slices as s

    is_lost = sa.and_(
        s.c.name == key.name, s.c.scope == key.scope, s.c.period == key.period, s.c.expires_at_us < now_us
    )
    lost = connection.execute(sa.select(s.c.id, s.c.amount, s.c.spent).where(is_lost)).all()
    if lost:
        connection.execute(s.delete().where(s.c.id.in_([one.id for one in lost])))
    return row.spent + sum(one.spent for one in lost), row.granted - sum(one.amount for one in lost)


def _write_period(connection: sa.Connection, key: BudgetKey, spent: int, granted: int) -> None:
    from stanchion.store.tables import budget_periods as p

    connection.execute(
        p.update()
        .where(p.c.name == key.name, p.c.scope == key.scope, p.c.period == key.period)
        .values(spent=spent, granted=granted)
    )
