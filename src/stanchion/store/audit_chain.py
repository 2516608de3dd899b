"""The chain of the audit log: its records, its digests, and the statement that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from stanchion.core.codec import DIGEST_PREFIX, Digest, digest, is_digest
from stanchion.core.errors import UsageError
from stanchion.store.times import from_us

if TYPE_CHECKING:
    import sqlalchemy as sa

GENESIS: Digest = DIGEST_PREFIX + "0" * 64
ERASED_KIND = "retention.payloads_erased"


class Head(msgspec.Struct, frozen=True):
    """The last entry: keep it outside the database, and a cut at the end can be seen."""

    sequence: int
    digest: Digest

    def __str__(self) -> str:
        return f"{self.sequence}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """The head that was printed as `12:sha256:...`.

        Raises:
            UsageError: when the text is no head.
        """
        number, _, value = text.strip().partition(":")
        if not (number.isascii() and number.isdigit() and is_digest(value)):
            raise UsageError(
                f"{text!r} is not a head of an audit log.", hint="Write it as NUMBER:sha256:HEX."
            )
        return cls(int(number), value)


class NewEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What to append. `subject_key` is the keyed id of the person the payload is about, if there is one."""

    kind: str
    payload: Mapping[str, Any]
    actor: str = "system"
    subject_key: str = ""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry; `payload` is None when it was erased."""

    sequence: int
    at: datetime
    kind: str
    actor: str
    payload: dict[str, Any] | None
    payload_digest: Digest
    previous: Digest
    digest: Digest

    @property
    def head(self) -> Head:
        """The head of the log when this entry was its last."""
        return Head(self.sequence, self.digest)


def entry_rows() -> sa.Select[Any]:
    """The statement that reads entries with their payloads and erasures, in order."""
    import sqlalchemy as sa

    from stanchion.store.tables import audit_entries as e
    from stanchion.store.tables import audit_erasures as x
    from stanchion.store.tables import audit_payloads as p

    joined = e.outerjoin(p, p.c.sequence == e.c.sequence).outerjoin(x, x.c.sequence == e.c.sequence)
    columns = (*e.c, p.c.salt, p.c.payload, x.c.erased_by)
    return sa.select(*columns).select_from(joined).order_by(e.c.sequence)


def entry_from_row(row: Any) -> AuditEntry:
    """The entry of one row of `entry_rows`."""
    return AuditEntry(
        sequence=row.sequence,
        at=from_us(row.at_us),
        kind=row.kind,
        actor=row.actor,
        payload=None if row.payload is None else msgspec.json.decode(row.payload),
        payload_digest=row.payload_digest,
        previous=row.previous,
        digest=row.digest,
    )


def entry_digest(
    *, sequence: int, at_us: int, kind: str, actor: str, payload_digest: Digest, previous: Digest
) -> Digest:
    """What an entry's digest must be: sha256 over the canonical JSON of these six fields."""
    return digest(
        {
            "sequence": sequence,
            "at_us": at_us,
            "kind": kind,
            "actor": actor,
            "payload_digest": payload_digest,
            "previous": previous,
        }
    )


def payload_digest(salt: str, payload: str) -> Digest:
    """What the chain commits to: sha256 over the canonical JSON of salt and payload text."""
    return digest({"salt": salt, "payload": payload})
