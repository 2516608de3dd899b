"""Verifying the audit log: one pass in order, in flat memory, up to the first entry that does not hold."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from stanchion.store.audit_chain import (
    ERASED_KIND,
    GENESIS,
    Head,
    entry_digest,
    entry_rows,
    payload_digest,
)
from stanchion.store.database import Database

if TYPE_CHECKING:
    import sqlalchemy as sa

_PAGE = 1000


class BrokenEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The first place where the log does not hold, and why."""

    sequence: int
    reason: str


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found: how many `entries` hold, and how many of them had their payload erased."""

    entries: int
    erased: int
    head: Head
    broken: BrokenEntry | None = None

    @property
    def is_intact(self) -> bool:
        """Whether every entry holds, and the expected head was met if one was given."""
        return self.broken is None


class _Pass:
    """The state of one pass over the log: the last entry that holds, and counts."""

    def __init__(self, connection: sa.Connection, expected_head: Head | None) -> None:
        self.head = Head(0, GENESIS)
        self.erased = 0
        self._expected_head = expected_head
        self._connection = connection
        self._erased_by = lru_cache(maxsize=64)(self._read_erasure)

    def reason_broken(self, row: Any) -> str | None:
        """Why the next row does not hold; None when it does, and then it is the new head."""
        if row.sequence != self.head.sequence + 1:
            return f"is missing: the next entry is number {row.sequence}"
        if row.previous != self.head.digest:
            return "does not follow the entry before it: an entry was removed, replaced or moved"
        expected = entry_digest(
            sequence=row.sequence,
            at_us=row.at_us,
            kind=row.kind,
            actor=row.actor,
            payload_digest=row.payload_digest,
            previous=row.previous,
        )
        if row.digest != expected:
            return "was changed: its digest does not match its fields"
        known = self._expected_head
        if known is not None and row.sequence == known.sequence and row.digest != known.digest:
            return "is not the expected head: the log was written anew"
        reason = self._payload_reason(row)
        if reason is None:
            self.head = Head(row.sequence, row.digest)
        return reason

    def _payload_reason(self, row: Any) -> str | None:
        if row.payload is not None:
            is_same = payload_digest(row.salt, row.payload) == row.payload_digest
            return None if is_same else "its payload was changed"
        if row.erased_by is None:
            return "its payload was removed without an erasure"
        if row.erased_by <= row.sequence or row.sequence not in self._erased_by(row.erased_by):
            return f"its payload is missing, and entry {row.erased_by} does not say that it was erased"
        self.erased += 1
        return None

    def _read_erasure(self, sequence: int) -> frozenset[int]:
        """The numbers an erasing entry names; its own place is checked when the pass reaches it."""
        from stanchion.store.tables import audit_entries

        row = self._connection.execute(entry_rows().where(audit_entries.c.sequence == sequence)).first()
        if row is None or row.kind != ERASED_KIND or row.payload is None:
            return frozenset()
        named = msgspec.json.decode(row.payload).get("sequences")
        return frozenset(named) if isinstance(named, list) else frozenset()


def verify(database: Database, *, expected_head: Head | None = None) -> Verification:
    """Check the whole log; entries appended meanwhile may or may not be part of it.

    Finds an edit, a deletion, a changed order and a silently removed payload; with `expected_head` also a cut
    at the end and a log that was written anew.

    Raises:
        UnavailableError: when the database cannot be read.
        IntegrityError: when its file is damaged.
    """
    with database.read() as connection:
        state = _Pass(connection, expected_head)
        broken = _first_broken(connection, state)
    if broken is None and expected_head is not None and state.head.sequence < expected_head.sequence:
        reason = f"is missing: the log was known to reach entry {expected_head.sequence}"
        broken = BrokenEntry(sequence=state.head.sequence + 1, reason=reason)
    return Verification(entries=state.head.sequence, erased=state.erased, head=state.head, broken=broken)


def _first_broken(connection: sa.Connection, state: _Pass) -> BrokenEntry | None:
    from stanchion.store.tables import audit_entries

    last_seen = -(2**63)  # a negative number would be a forgery, and must be seen
    while True:
        statement = entry_rows().where(audit_entries.c.sequence > last_seen).limit(_PAGE)
        rows = connection.execute(statement).all()
        for row in rows:
            reason = state.reason_broken(row)
            if reason is not None:
                return BrokenEntry(sequence=state.head.sequence + 1, reason=reason)
            last_seen = row.sequence
        if len(rows) < _PAGE:
            return None
