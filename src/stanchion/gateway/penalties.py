"""Progressive penalties: a caller who is blocked again and again is slowed, then blocked for a while.

Blocked requests are counted with the `limits` library, in memory or in Redis, and who is slowed is kept where
they are counted. The block list holds for every gateway, with or without penalties; it is in the database and
in memory: nothing is read from outside while a request waits, but the turn of a caller who is slowed. Every
block by hand and every unblocking is an entry of the audit log.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from stanchion.core.clock import Clock
from stanchion.gateway.limits_file import PenaltySection
from stanchion.gateway.ports import Outcome, Refused, RequestFacts
from stanchion.gateway.slowed import SlowedHere
from stanchion.store.audit_chain import NewEntry
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import Database
from stanchion.store.times import from_us, to_us

BLAMED = frozenset({Outcome.BLOCKED, Outcome.REPLACED})


class Blocked(msgspec.Struct, frozen=True, kw_only=True):
    """One caller on the block list; `blocks` counts how often it was put there."""

    subject: str
    until_us: int
    blocks: int
    reason: str
    set_by: str
    at_us: int


class BlockList:
    """The block list of the database, with the copy that requests are held against."""

    def __init__(self, database: Database, *, clock: Clock, log: AuditLog | None = None) -> None:
        self._database = database
        self._clock = clock
        self._log = log or AuditLog(database, clock=clock)
        self._blocked: dict[str, Blocked] = {}

    def find(self, subject: str) -> Blocked | None:
        """The entry that holds now, from memory."""
        found = self._blocked.get(subject) if self._blocked else None
        return found if found is not None and found.until_us > to_us(self._clock.now()) else None

    def check(self, facts: RequestFacts) -> None:
        """Raise Refused for a caller who is on the list by key, user or tenant; no I/O."""
        if self._blocked:
            for subject in (f"key:{facts.key_id}", f"user:{facts.user_key}", f"tenant:{facts.tenant}"):
                self.refuse(subject)

    def refuse(self, subject: str) -> None:
        """Raise Refused when the subject is on the list."""
        blocked = self.find(subject)
        if blocked is not None:
            wait = (from_us(blocked.until_us) - self._clock.now()).total_seconds()
            raise Refused(
                Outcome.DENIED,
                status=403,
                code="caller_blocked",
                message="this caller is blocked for a while.",
                hint="Ask the operator of the service.",
                retry_after_s=max(0.0, wait),
            )

    def load(self) -> None:
        """Read the list; called every second or so by the gateway."""
        self._blocked = {one.subject: one for one in self.entries()}

    def entries(self) -> list[Blocked]:
        """Who is blocked now, by the database; the next to come free first."""
        import sqlalchemy as sa

        from stanchion.store.tables import caller_penalties as t

        now = to_us(self._clock.now())
        with self._database.read() as connection:
            rows = connection.execute(sa.select(t).where(t.c.until_us > now).order_by(t.c.until_us)).all()
        return [Blocked(**row._mapping) for row in rows]

    def block(self, subject: str, *, seconds: float, reason: str, by: str, most_s: float = 0.0) -> Blocked:
        """Put a caller on the list. With `most_s`, each block lasts twice as long as the one before.

        With `most_s`, a caller who is on the list stays there as it is: several workers may have counted the
        last requests of the same caller at once.
        """
        import sqlalchemy as sa

        from stanchion.store.tables import caller_penalties as t
        from stanchion.store.tables import insert_if_new

        now = to_us(self._clock.now())
        with self._database.write() as connection:
            row = connection.execute(sa.select(t).where(t.c.subject == subject).with_for_update()).first()
            if row is not None and most_s and row.until_us > now:
                self._blocked[subject] = entry = Blocked(**row._mapping)
                return entry
            blocks = 1 if row is None else row.blocks + 1
            lasts = min(seconds * 2 ** min(blocks - 1, 40), most_s) if most_s else seconds
            entry = Blocked(
                subject=subject,
                until_us=now + round(lasts * 1e6),
                blocks=blocks,
                reason=reason,
                set_by=by,
                at_us=now,
            )
            values = msgspec.structs.asdict(entry)
            connection.execute(insert_if_new(connection, t).values(values))
            connection.execute(t.update().where(t.c.subject == subject).values(values))
            payload = {"subject": subject, "seconds": round(lasts), "blocks": blocks, "reason": reason}
            self._log.append_within(
                connection, [NewEntry(kind="limits.caller_blocked", payload=payload, actor=by)]
            )
        self._blocked[subject] = entry
        return entry

    def unblock(self, subject: str, *, by: str, reason: str) -> bool:
        """Take a caller off the list; False when it was not on it. The count of blocks starts anew."""
        from stanchion.store.tables import caller_penalties as t

        now = to_us(self._clock.now())
        with self._database.write() as connection:
            gone = connection.execute(
                t.update()
                .where(t.c.subject == subject, t.c.until_us > now)
                .values(until_us=now, blocks=0, set_by=by, at_us=now)
            ).rowcount
            if gone:
                payload = {"subject": subject, "reason": reason}
                self._log.append_within(
                    connection, [NewEntry(kind="limits.caller_unblocked", payload=payload, actor=by)]
                )
        self._blocked.pop(subject, None)
        return bool(gone)


class Penalties:
    """Who is slowed or blocked, and who becomes so."""

    def __init__(
        self,
        section: PenaltySection,
        blocks: BlockList,
        *,
        clock: Clock,
        storage: Any = None,
        slowed: SlowedHere | None = None,
        pool: Any = None,
    ) -> None:
        """`storage` is an asyncio storage of `limits` on `pool`, `slowed` beside it; None: this process."""
        from limits import RateLimitItemPerSecond
        from limits.aio.storage import MemoryStorage
        from limits.aio.strategies import MovingWindowRateLimiter

        self.section = section
        self.blocks = blocks
        self.slowed = slowed or SlowedHere(interval_s=section.slow_interval_s, clock=clock)
        self._pool = pool
        self._strikes = MovingWindowRateLimiter(storage or MemoryStorage())
        self._slow_item = RateLimitItemPerSecond(section.slow_after, section.window_s, "strike")
        self._block_item = RateLimitItemPerSecond(section.block_after, section.window_s, "strikes")

    async def load(self) -> None:
        """Learn who was slowed by other workers; called every second or so.

        Raises:
            UnavailableError: when the store that they share does not answer.
        """
        await self.slowed.load()

    async def close(self) -> None:
        """Close the connections of the storage."""
        if self._pool is not None:
            await self._pool.disconnect()

    def subject(self, facts: RequestFacts) -> str:
        """Whom a request counts against: `user:...`; the key where the user is not known."""
        wanted = {"user": facts.user_key, "tenant": facts.tenant}.get(self.section.per, "")
        return f"{self.section.per}:{wanted}" if wanted else f"key:{facts.key_id}"

    async def check(self, facts: RequestFacts) -> None:
        """Raise Refused for a caller who is blocked, or slowed and back too early; no I/O for others."""
        subject = self.subject(facts)
        self.blocks.refuse(subject)
        if not self.slowed.is_slowed(subject):
            return
        wait_s = await self.slowed.take_turn(subject)
        if wait_s > 0:
            raise Refused(
                Outcome.LIMITED,
                status=429,
                code="caller_slowed",
                message="this caller is slowed down for a while.",
                hint="Several requests were stopped by the policy.",
                retry_after_s=wait_s,
            )

    async def observe(self, facts: RequestFacts, outcome: Outcome) -> None:
        """Count a request that the policy stopped.

        Raises:
            UnavailableError: when a block cannot be written or other workers cannot be told; what was decided
                then holds in this process only.
        """
        if outcome not in BLAMED:
            return
        subject, section = self.subject(facts), self.section
        is_under_block = await self._strikes.hit(self._block_item, subject)
        is_under_slow = await self._strikes.hit(self._slow_item, subject)
        count_is_at_most = await self._strikes.get_window_stats(self._block_item, subject)
        if not is_under_block or count_is_at_most.remaining == 0:
            await self._strikes.clear(self._block_item, subject)
            await asyncio.to_thread(
                self.blocks.block,
                subject,
                seconds=section.block_s,
                reason=f"{section.block_after} requests stopped within {section.window_s} s",
                by="system",
                most_s=section.block_most_s,
            )
        elif not is_under_slow or await self._is_full(subject):
            await self.slowed.slow(subject, for_s=section.window_s)

    async def _is_full(self, subject: str) -> bool:
        return (await self._strikes.get_window_stats(self._slow_item, subject)).remaining == 0
