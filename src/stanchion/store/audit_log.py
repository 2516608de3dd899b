"""The audit log: append-only, hash-chained, verifiable in flat memory.

Each entry's digest covers its number, time, kind, actor, the digest of its payload and the digest of the
entry before it. So an edit, a deletion or a new order breaks the chain at a place that `verify` names. What a
chain alone cannot show is a cut at its end; for that, keep a head somewhere else and pass it as
`expected_head`.

The chain commits to `sha256(salt, payload)` and not to the payload, which is stored beside it: an erasure
removes salt and payload, leaves the chain valid, and is itself an entry that names what it erased. Without
the salt the digest says nothing about a payload that could be guessed.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.codec import canonical_json
from stanchion.core.errors import UsageError
from stanchion.store.audit_chain import (
    GENESIS,
    AuditEntry,
    Head,
    NewEntry,
    entry_digest,
    entry_from_row,
    entry_rows,
    payload_digest,
)
from stanchion.store.audit_verify import Verification, verify
from stanchion.store.database import Database
from stanchion.store.times import from_us, to_us

if TYPE_CHECKING:
    import sqlalchemy as sa

_KIND = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*", re.ASCII)
_APPEND_LOCK = 0x5354_4E02  # any constant of ours; held for the transaction
_PAGE = 1000
_MAX_ACTOR = 200


class AuditLog:
    """Appends and reads; several processes may append to one database at once."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def append(
        self, kind: str, payload: Mapping[str, Any], *, actor: str = "system", subject_key: str = ""
    ) -> AuditEntry:
        """Write one entry, durable when this returns.

        `payload` holds ids, digests, categories and counts; never raw text.

        Raises:
            UsageError: for a kind that is not dotted lower-case words, or a payload without canonical JSON.
            UnavailableError: when the database cannot be written; nothing was.
        """
        return self.append_all([NewEntry(kind=kind, payload=payload, actor=actor, subject_key=subject_key)])[
            0
        ]

    def append_all(self, entries: Sequence[NewEntry]) -> list[AuditEntry]:
        """Write several entries in one transaction: all or none."""
        with self._database.write() as connection:
            return self.append_within(connection, entries)

    def append_within(self, connection: sa.Connection, entries: Sequence[NewEntry]) -> list[AuditEntry]:
        """Write entries inside the caller's `Database.write()` transaction, with whatever else it writes."""
        for entry in entries:
            _check(entry)
        self.hold_appends(connection)
        return _insert(connection, entries, at_us=to_us(self._clock.now()))

    def hold_appends(self, connection: sa.Connection) -> None:
        """Make this transaction the only one that appends, until it ends."""
        import sqlalchemy as sa

        if connection.dialect.name == "postgresql":  # SQLite's BEGIN IMMEDIATE already did
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_APPEND_LOCK)))

    def head(self) -> Head:
        """The last entry's number and digest; number 0 for an empty log."""
        with self._database.read() as connection:
            return _read_head(connection)

    def entries(self, *, after: int = 0, kind: str | None = None, limit: int = 1000) -> list[AuditEntry]:
        """Entries in order, from the one after `after`; for the next page pass the last one's number."""
        from stanchion.store.tables import audit_entries

        statement = entry_rows().where(audit_entries.c.sequence > after).limit(limit)
        if kind is not None:
            statement = statement.where(audit_entries.c.kind == kind)
        with self._database.read() as connection:
            return [entry_from_row(row) for row in connection.execute(statement)]

    def newest(self, *, kinds: Sequence[str], limit: int) -> list[AuditEntry]:
        """The last entries of some kinds, the newest first."""
        from stanchion.store.tables import audit_entries as e

        statement = (
            entry_rows().where(e.c.kind.in_(kinds)).order_by(None).order_by(e.c.sequence.desc()).limit(limit)
        )
        with self._database.read() as connection:
            return [entry_from_row(row) for row in connection.execute(statement)]

    def verify(self, *, expected_head: Head | None = None) -> Verification:
        """Check the whole log; see `audit_verify.verify`."""
        return verify(self._database, expected_head=expected_head)

    def stream(self) -> Iterator[AuditEntry]:
        """Every entry in order, one page in memory at a time."""
        after = 0
        while page := self.entries(after=after, limit=_PAGE):
            yield from page
            after = page[-1].sequence


def _check(entry: NewEntry) -> None:
    if not _KIND.fullmatch(entry.kind):
        raise UsageError(
            f"the audit kind {entry.kind!r} is not valid.",
            hint="Use lower-case words joined by dots, such as gate.verdict.",
        )
    if not (entry.actor.isprintable() and 0 < len(entry.actor) <= _MAX_ACTOR):
        raise UsageError(f"an audit actor is a printable name of 1 to {_MAX_ACTOR} characters.")


def _insert(connection: sa.Connection, entries: Sequence[NewEntry], *, at_us: int) -> list[AuditEntry]:
    from stanchion.store.tables import audit_entries, audit_payloads

    head = _read_head(connection)
    rows: list[dict[str, Any]] = []
    payloads: list[dict[str, Any]] = []
    for entry in entries:
        salt = secrets.token_hex(16)
        text = canonical_json(dict(entry.payload)).decode("utf-8")
        row: dict[str, Any] = {
            "sequence": head.sequence + 1,
            "at_us": at_us,
            "kind": entry.kind,
            "actor": entry.actor,
            "payload_digest": payload_digest(salt, text),
            "previous": head.digest,
        }
        head = Head(head.sequence + 1, entry_digest(**row))
        rows.append({**row, "digest": head.digest})
        payloads.append(
            {"sequence": head.sequence, "salt": salt, "payload": text, "subject_key": entry.subject_key}
        )
    if rows:
        connection.execute(audit_entries.insert(), rows)
        connection.execute(audit_payloads.insert(), payloads)
    return [_entry(row, payload["payload"]) for row, payload in zip(rows, payloads, strict=True)]


def _entry(row: dict[str, Any], text: str) -> AuditEntry:
    fields = {name: value for name, value in row.items() if name != "at_us"}
    return AuditEntry(at=from_us(row["at_us"]), payload=msgspec.json.decode(text), **fields)


def _read_head(connection: sa.Connection) -> Head:
    import sqlalchemy as sa

    from stanchion.store.tables import audit_entries as e

    last = connection.execute(
        sa.select(e.c.sequence, e.c.digest).order_by(e.c.sequence.desc()).limit(1)
    ).first()
    return Head(0, GENESIS) if last is None else Head(last.sequence, last.digest)
