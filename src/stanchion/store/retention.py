"""Retention: records go when their time is over, or when a person asks; a tombstone and a valid chain stay.

Every batch is one transaction: the audit entry that says what goes, the deletion, the tombstones. A crash
between two batches leaves some records for the next run, never a deletion without its entry. Legal holds stop
every deletion. A dry run counts and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.errors import UsageError
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import Database
from stanchion.store.deletion import Batch, Gone, Why, count
from stanchion.store.identity import check_keyed, check_plain
from stanchion.store.times import to_us

if TYPE_CHECKING:
    import sqlalchemy as sa

    Condition = sa.ColumnElement[bool]


class RetentionRule(msgspec.Struct, frozen=True, kw_only=True):
    """How long records and texts of a feature are kept; None is for ever. `*`: any feature without a rule."""

    feature: str = "*"
    keep_records_days: float | None = None
    keep_text_hours: float | None = None


class RetentionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Rules by feature, and how long payloads of the audit log are kept; its entries stay for ever."""

    rules: tuple[RetentionRule, ...]
    keep_audit_payload_days: float | None = None

    def __post_init__(self) -> None:
        names = [rule.feature for rule in self.rules]
        if len(set(names)) < len(names):
            raise UsageError("two retention rules are for the same feature.", hint="Keep one of them.")
        times = [rule.keep_records_days for rule in self.rules] + [
            rule.keep_text_hours for rule in self.rules
        ]
        for value in (*times, self.keep_audit_payload_days):
            if value is not None and not 0 <= value < 1e6:
                raise UsageError(f"a retention time cannot be {value!r}.")


class RetentionResult(msgspec.Struct, frozen=True, kw_only=True):
    """What went, or would go in a dry run, and what a legal hold kept."""

    records: int = 0
    texts: int = 0
    payloads: int = 0
    held_records: int = 0
    held_payloads: int = 0
    is_dry_run: bool = False


class Retention:
    """Applies retention to one database."""

    def __init__(self, database: Database, *, clock: Clock, batch_size: int = 500) -> None:
        self._database = database
        self._clock = clock
        self._batch_size = batch_size
        self._log = AuditLog(database, clock=clock)

    def apply(self, policy: RetentionPolicy, *, actor: str, dry_run: bool = False) -> RetentionResult:
        """Delete what is older than the policy keeps."""
        import sqlalchemy as sa

        now = self._clock.now()
        times = [(rule.feature, rule.keep_records_days) for rule in policy.rules]
        records = _aged(
            [(name, None if days is None else now - timedelta(days=days)) for name, days in times]
        )
        hours = [(rule.feature, rule.keep_text_hours) for rule in policy.rules]
        texts = _aged([(name, None if h is None else now - timedelta(hours=h)) for name, h in hours])
        keep_days = policy.keep_audit_payload_days
        payloads = sa.false() if keep_days is None else _payloads_before(now - timedelta(days=keep_days))
        return self._run(records, texts, payloads, why=Why(reason="age", actor=actor), dry_run=dry_run)

    def erase_subject(
        self, subject_key: str, *, actor: str, request: str, dry_run: bool = False
    ) -> RetentionResult:
        """Delete every record of a person and erase every audit payload about them.

        `request` is the id of the request, for the audit entry. The keyed id stays in that entry as proof.

        Raises:
            UsageError: for an empty or unkeyed subject, or a request that is not an id.
        """
        import sqlalchemy as sa

        from stanchion.store.tables import audit_payloads, interactions, is_unusual

        if not subject_key:
            raise UsageError("an erasure needs the keyed id of a person.", hint="Make one with IdKeys.key.")
        check_keyed("the subject of the erasure", subject_key)
        check_plain("the request of the erasure", request)
        why = Why(reason="erasure", actor=actor, subject_key=subject_key, request=request)
        records = is_unusual(interactions.c.subject_key, subject_key)
        payloads = audit_payloads.c.subject_key == subject_key
        return self._run(records, sa.false(), payloads, why=why, dry_run=dry_run)

    def _run(
        self, records: Condition, texts: Condition, payloads: Condition, *, why: Why, dry_run: bool
    ) -> RetentionResult:
        with self._database.read() as connection:
            counted = count(connection, records=records, texts=texts, payloads=payloads)
        if dry_run:
            return RetentionResult(is_dry_run=True, **msgspec.structs.asdict(counted))
        texts_gone = self._until_done(lambda batch: batch.delete_texts(texts, why=why))
        records_gone = self._until_done(lambda batch: batch.delete_records(records, why=why))
        payloads_gone = self._until_done(lambda batch: batch.erase_payloads(payloads, why=why))
        self._database.forget_deleted()
        return RetentionResult(
            records=records_gone.rows,
            texts=texts_gone.texts + records_gone.texts,
            payloads=payloads_gone.rows,
            held_records=counted.held_records,
            held_payloads=counted.held_payloads,
        )

    def _until_done(self, step: Callable[[Batch], Gone]) -> Gone:
        rows = texts = 0
        while True:
            with self._database.write() as connection:
                at_us = to_us(self._clock.now())
                gone = step(Batch(connection, log=self._log, at_us=at_us, limit=self._batch_size))
            rows, texts = rows + gone.rows, texts + gone.texts
            if gone.rows < self._batch_size:
                return Gone(rows, texts)


def _aged(cutoffs: Sequence[tuple[str, datetime | None]]) -> Condition:
    """Records older than their feature's cutoff; `*` is for features without one of their own."""
    import sqlalchemy as sa

    from stanchion.store.tables import interactions as t

    named = [feature for feature, _ in cutoffs if feature != "*"]
    parts: list[Condition] = [sa.false()]
    for feature, cutoff in cutoffs:
        if cutoff is not None:
            covers = t.c.feature.not_in(named) if feature == "*" else t.c.feature == feature
            parts.append(covers & (t.c.at_us < to_us(cutoff)))
    return sa.or_(*parts)


def _payloads_before(cutoff: datetime) -> Condition:
    import sqlalchemy as sa

    from stanchion.store.tables import audit_entries, audit_payloads

    old = sa.select(audit_entries.c.sequence).where(audit_entries.c.at_us < to_us(cutoff))
    return audit_payloads.c.sequence.in_(old)
