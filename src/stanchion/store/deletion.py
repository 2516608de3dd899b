"""One batch of a deletion, inside one transaction: what goes, its audit entry, what is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from stanchion.store.audit_chain import ERASED_KIND, NewEntry
from stanchion.store.audit_log import AuditLog
from stanchion.store.holds import active_holds, interactions_under, payloads_under

if TYPE_CHECKING:
    import sqlalchemy as sa

    Condition = sa.ColumnElement[bool]


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """What the audit entry of a deletion says about its cause."""

    reason: Literal["age", "erasure"]
    actor: str
    subject_key: str = ""
    request: str = ""

    def entry(self, kind: str, **facts: Any) -> NewEntry:
        """The entry for a batch; `facts` are what the batch did."""
        cause = {"reason": self.reason, "subject_key": self.subject_key, "request": self.request}
        payload = {name: value for name, value in cause.items() if value} | facts
        return NewEntry(kind=kind, payload=payload, actor=self.actor)


class Gone(msgspec.Struct, frozen=True):
    """How much one batch took: rows of its own kind, and texts."""

    rows: int
    texts: int = 0


class Batch:
    """One transaction's worth of deletion; other appends and holds wait until it ends."""

    def __init__(self, connection: sa.Connection, *, log: AuditLog, at_us: int, limit: int) -> None:
        log.hold_appends(connection)  # a hold is an append too: from here on none can slip in
        self._connection = connection
        self._log = log
        self._at_us = at_us
        self._limit = limit
        self._holds = active_holds(connection)

    def delete_records(self, condition: Condition, *, why: Why) -> Gone:
        """Records and their texts go, tombstones stay."""
        from stanchion.store.tables import (
            exchanges,
            insert_if_new,
            interaction_texts,
            interaction_tombstones,
            interactions,
        )

        ids = self._interaction_ids(condition)
        if not ids:
            return Gone(0)
        entry = self._append(why.entry("retention.records_deleted", count=len(ids)))
        texts = self._connection.execute(
            interaction_texts.delete().where(interaction_texts.c.interaction_id.in_(ids))
        ).rowcount
        self._connection.execute(exchanges.delete().where(exchanges.c.id.in_(ids)))
        self._connection.execute(interactions.delete().where(interactions.c.id.in_(ids)))
        self._connection.execute(
            insert_if_new(self._connection, interaction_tombstones),
            [{"id": i, "erased_at_us": self._at_us, "reason": why.reason, "erased_by": entry} for i in ids],
        )
        return Gone(len(ids), texts)

    def delete_texts(self, condition: Condition, *, why: Why) -> Gone:
        """Texts go, their records stay and say that they cannot be replayed."""
        from stanchion.store.tables import interaction_texts, interactions

        ids = self._interaction_ids(condition & _has_text())
        if not ids:
            return Gone(0)
        self._append(why.entry("retention.texts_deleted", count=len(ids)))
        self._connection.execute(
            interaction_texts.delete().where(interaction_texts.c.interaction_id.in_(ids))
        )
        self._connection.execute(
            interactions.update()
            .where(interactions.c.id.in_(ids))
            .values(is_replayable=False, replay_note="its text was deleted by retention")
        )
        return Gone(len(ids), len(ids))

    def erase_payloads(self, condition: Condition, *, why: Why) -> Gone:
        """Payloads of the audit log go; the entry that names them keeps the chain verifiable."""
        import sqlalchemy as sa

        from stanchion.store.tables import audit_erasures
        from stanchion.store.tables import audit_payloads as t

        statement = sa.select(t.c.sequence).where(
            condition, _is_erasable(), sa.not_(payloads_under(self._holds))
        )
        rows = self._connection.execute(statement.order_by(t.c.sequence).limit(self._limit))
        sequences = list(rows.scalars())
        if not sequences:
            return Gone(0)
        entry = self._append(why.entry(ERASED_KIND, sequences=sequences))
        self._connection.execute(
            audit_erasures.insert(), [{"sequence": number, "erased_by": entry} for number in sequences]
        )
        self._connection.execute(t.delete().where(t.c.sequence.in_(sequences)))
        return Gone(len(sequences))

    def _interaction_ids(self, condition: Condition) -> list[str]:
        import sqlalchemy as sa

        from stanchion.store.tables import interactions as t

        statement = sa.select(t.c.id).where(condition, sa.not_(interactions_under(self._holds)))
        return list(
            self._connection.execute(statement.order_by(t.c.at_us, t.c.id).limit(self._limit)).scalars()
        )

    def _append(self, entry: NewEntry) -> int:
        return self._log.append_within(self._connection, [entry])[0].sequence


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What would go now, and what a hold keeps."""

    records: int
    texts: int
    payloads: int
    held_records: int
    held_payloads: int


def count(connection: sa.Connection, *, records: Condition, texts: Condition, payloads: Condition) -> Counts:
    """How much a deletion by these conditions would take."""
    import sqlalchemy as sa

    from stanchion.store.tables import audit_payloads, interactions

    holds = active_holds(connection)
    held, held_payload = interactions_under(holds), payloads_under(holds)

    def rows(table: sa.Table, *conditions: Condition) -> int:
        return connection.execute(
            sa.select(sa.func.count()).select_from(table).where(*conditions)
        ).scalar_one()

    return Counts(
        records=rows(interactions, records, sa.not_(held)),
        texts=rows(interactions, records | texts, _has_text(), sa.not_(held)),
        payloads=rows(audit_payloads, payloads, _is_erasable(), sa.not_(held_payload)),
        held_records=rows(interactions, records, held),
        held_payloads=rows(audit_payloads, payloads, _is_erasable(), held_payload),
    )


def _has_text() -> Condition:
    import sqlalchemy as sa

    from stanchion.store.tables import interaction_texts, interactions

    return interactions.c.id.in_(sa.select(interaction_texts.c.interaction_id))


def _is_erasable() -> Condition:
    """The log of what was deleted is never deleted."""
    import sqlalchemy as sa

    from stanchion.store.tables import audit_entries, audit_payloads

    own = sa.select(audit_entries.c.sequence).where(audit_entries.c.kind.like("retention.%"))
    return audit_payloads.c.sequence.not_in(own)
