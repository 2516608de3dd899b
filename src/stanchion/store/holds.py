"""Legal holds: what must not be deleted, whatever a retention time or an erasure says."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.clock import Clock, Ids
from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.store.audit_chain import NewEntry
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import Database
from stanchion.store.identity import check_keyed, check_plain
from stanchion.store.times import from_us, to_us

if TYPE_CHECKING:
    import sqlalchemy as sa


class HoldScope(StrEnum):
    """What a hold covers; `tenant` and `subject` take keyed ids, `everything` takes no value."""

    EVERYTHING = "everything"
    FEATURE = "feature"
    TENANT = "tenant"
    SUBJECT = "subject"
    SESSION = "session"
    INTERACTION = "interaction"


_COLUMN = {
    HoldScope.FEATURE: "feature",
    HoldScope.TENANT: "tenant_key",
    HoldScope.SUBJECT: "subject_key",
    HoldScope.SESSION: "session_id",
    HoldScope.INTERACTION: "id",
}


class LegalHold(msgspec.Struct, frozen=True, kw_only=True):
    """A hold; in force until `released_at`."""

    id: str
    scope: HoldScope
    value: str
    placed_at: datetime
    released_at: datetime | None = None


class LegalHolds:
    """Places, releases and lists holds; each change is an entry of the audit log."""

    def __init__(self, database: Database, *, clock: Clock, ids: Ids) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._log = AuditLog(database, clock=clock)

    def place(self, scope: HoldScope, value: str = "", *, actor: str, matter: str) -> LegalHold:
        """Put a hold in force; `matter` is the id of the case it is for.

        Raises:
            UsageError: for a value that does not fit the scope, or a matter that is not an id.
        """
        from stanchion.store.tables import legal_holds

        if (scope is HoldScope.EVERYTHING) is bool(value):
            raise UsageError(f"a hold on {scope.value} takes {'no' if value else 'a'} value.")
        check = check_keyed if scope in (HoldScope.TENANT, HoldScope.SUBJECT) else check_plain
        check(f"the {scope.value} of the hold", value)
        check_plain("the matter of the hold", matter)
        hold = LegalHold(id=self._ids.new("hold"), scope=scope, value=value, placed_at=self._clock.now())
        payload = {"hold": hold.id, "scope": scope.value, "value": value, "matter": matter}
        with self._database.write() as connection:
            entry = NewEntry(kind="retention.hold_placed", payload=payload, actor=actor)
            placed = self._log.append_within(connection, [entry])[0]
            connection.execute(
                legal_holds.insert().values(
                    id=hold.id,
                    scope=scope.value,
                    value=value,
                    placed_at_us=to_us(hold.placed_at),
                    placed_by=placed.sequence,
                )
            )
        return hold

    def release(self, hold_id: str, *, actor: str) -> LegalHold:
        """End a hold.

        Raises:
            UnknownNameError: when no hold in force has this id.
        """
        from stanchion.store.tables import legal_holds as t

        now = self._clock.now()
        with self._database.write() as connection:
            self._log.hold_appends(connection)
            in_force = {hold.id: hold for hold in active_holds(connection)}
            if hold_id not in in_force:
                raise UnknownNameError("legal hold in force", hold_id, in_force)
            entry = NewEntry(kind="retention.hold_released", payload={"hold": hold_id}, actor=actor)
            released = self._log.append_within(connection, [entry])[0]
            connection.execute(
                t.update()
                .where(t.c.id == hold_id)
                .values(released_at_us=to_us(now), released_by=released.sequence)
            )
        return msgspec.structs.replace(in_force[hold_id], released_at=now)

    def in_force(self) -> list[LegalHold]:
        """The holds in force, oldest first."""
        with self._database.read() as connection:
            return active_holds(connection)


def active_holds(connection: sa.Connection) -> list[LegalHold]:
    """The holds in force, oldest first, as this transaction sees them."""
    import sqlalchemy as sa

    from stanchion.store.tables import legal_holds as t

    rows = connection.execute(
        sa.select(t).where(t.c.released_at_us.is_(None)).order_by(t.c.placed_at_us, t.c.id)
    )
    return [
        LegalHold(id=row.id, scope=HoldScope(row.scope), value=row.value, placed_at=from_us(row.placed_at_us))
        for row in rows
    ]


def interactions_under(holds: list[LegalHold]) -> sa.ColumnElement[bool]:
    """The condition that an interaction is covered by one of the holds."""
    import sqlalchemy as sa

    from stanchion.store.tables import interactions

    if any(hold.scope is HoldScope.EVERYTHING for hold in holds):
        return sa.true()
    return sa.or_(sa.false(), *(interactions.c[_COLUMN[hold.scope]] == hold.value for hold in holds))


def payloads_under(holds: list[LegalHold]) -> sa.ColumnElement[bool]:
    """The condition that an audit payload is covered; it knows only its subject: a wider hold covers all."""
    import sqlalchemy as sa

    from stanchion.store.tables import audit_payloads

    subjects = [hold.value for hold in holds if hold.scope is HoldScope.SUBJECT]
    if len(subjects) < len(holds):
        return sa.true()
    return audit_payloads.c.subject_key.in_(subjects)
