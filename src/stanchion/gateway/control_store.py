"""Control documents in the database: the place where decisions are made, one at a time.

Every version is a row that is never changed, so the table is also the history. A writer reads the newest
document, checks who signed it, and adds the next one in the same transaction as the entry in the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.errors import IntegrityError, StanchionError
from stanchion.core.signatures import key_id
from stanchion.gateway.control_disk import ControlDisk
from stanchion.gateway.control_document import ControlDocument, ControlKind, body_of, opened, sealed
from stanchion.store.audit_chain import NewEntry
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import Database
from stanchion.store.times import to_us

if TYPE_CHECKING:
    import sqlalchemy as sa
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

CHANNEL = "stanchion_control"
KEPT_VERSIONS = 200  # what is older is only in the audit log; the migration's trigger has the same number
BodyT = TypeVar("BodyT", bound=msgspec.Struct)


class Change(msgspec.Struct, Generic[BodyT], frozen=True, kw_only=True):
    """What an act makes of the state, and how the audit log tells it. `body` None: no change."""

    body: BodyT | None
    audit_kind: str
    payload: dict[str, Any]
    answer: Any = None


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A document that was committed. `envelope` is None when the act changed nothing (a dry run)."""

    kind: ControlKind
    version: int
    envelope: bytes | None
    answer: Any = None
    audit_sequence: int = 0


class ControlStore:
    """Reads and commits documents. Only the admin plane has the `key` that `publish` needs."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        trusted: Callable[[], Mapping[str, Ed25519PublicKey]],
        key: Callable[[], Ed25519PrivateKey] | None = None,
        disk: ControlDisk | None = None,
    ) -> None:
        self.database = database
        self.clock = clock
        self._trusted = trusted
        self._key = key
        self._disk = disk
        self._log = AuditLog(database, clock=clock)

    def versions(self) -> dict[ControlKind, int]:
        """The newest version of each kind that has one; cheap enough for a poll."""
        import sqlalchemy as sa

        from stanchion.store.tables import control_documents as t

        statement = sa.select(t.c.kind, sa.func.max(t.c.version)).group_by(t.c.kind)
        with self.database.read() as connection:
            rows = connection.execute(statement).all()
        known = {kind.value: kind for kind in ControlKind}
        return {known[kind]: version for kind, version in rows if kind in known}

    def envelope(self, kind: ControlKind) -> bytes | None:
        """The newest envelope of a kind, as it was signed and not yet verified."""
        with self.database.read() as connection:
            return _newest(connection, kind)

    def latest(self, kind: ControlKind) -> ControlDocument | None:
        """The newest document of a kind, verified.

        Raises:
            IntegrityError: when it does not verify.
        """
        data = self.envelope(kind)
        return None if data is None else opened(kind, data, keys=self._trusted())

    def history(self, kind: ControlKind, *, limit: int) -> list[ControlDocument]:
        """The newest documents, the newest first; those that do not verify are left out by raising.

        Raises:
            IntegrityError: when one does not verify.
        """
        import sqlalchemy as sa

        from stanchion.store.tables import control_documents as t

        statement = (
            sa.select(t.c.envelope).where(t.c.kind == kind.value).order_by(t.c.version.desc()).limit(limit)
        )
        with self.database.read() as connection:
            rows = connection.execute(statement).scalars().all()
        keys = self._trusted()
        return [opened(kind, row.encode(), keys=keys) for row in rows]

    def state(self, kind: ControlKind, type_: type[BodyT]) -> tuple[int, BodyT]:
        """The version and body of the newest document; version 0 and an empty body without one."""
        document = self._base(kind, self.envelope(kind))
        if document is None:
            return 0, type_()
        return document.version, body_of(document, type_)

    def publish(
        self,
        kind: ControlKind,
        type_: type[BodyT],
        act: Callable[[BodyT, int], Change[BodyT]],
        *,
        actor: str,
        dry_run: bool = False,
    ) -> Published:
        """Apply an act to the newest state, and commit the next document with its audit entry.

        `act` is given the body and the version that its change will have; what it raises changes nothing.

        Raises:
            UnavailableError: when the database cannot be written.
            IntegrityError: when the newest document does not verify.
        """
        assert self._key is not None  # noqa: S101 - the data plane has no store that can publish
        with self.database.write() as connection:
            self._log.hold_appends(connection)
            base = self._base(kind, _newest(connection, kind))
            version = max(base.version if base is not None else 0, self._obeyed_here(kind)) + 1
            change = act(type_() if base is None else body_of(base, type_), version)
            if change.body is None or dry_run:
                found = base.version if base is not None else 0
                return Published(kind=kind, version=found, envelope=None, answer=change.answer)
            made_at_us = to_us(self.clock.now())
            data = sealed(
                kind, change.body, version=version, made_at_us=made_at_us, made_by=actor, key=self._key()
            )
            payload = {**change.payload, "version": version, "signed_by": key_id(self._key().public_key())}
            entry = NewEntry(kind=change.audit_kind, payload=payload, actor=actor)
            [written] = self._log.append_within(connection, [entry])
            _insert(connection, kind, version=version, at_us=made_at_us, envelope=data)
        return Published(
            kind=kind, version=version, envelope=data, answer=change.answer, audit_sequence=written.sequence
        )

    def _base(self, kind: ControlKind, data: bytes | None) -> ControlDocument | None:
        """What to build on: the database's document, or a newer one that this host obeyed.

        The second happens when the database was restored from a backup: what was decided after the backup
        must not be forgotten.
        """
        found = None if data is None else opened(kind, data, keys=self._trusted())
        if self._disk is None:
            return found
        envelope = self._disk.load(kind).envelope
        try:
            held = None if envelope is None else opened(kind, envelope, keys=self._trusted())
        except StanchionError:
            return found
        if held is not None and (found is None or held.version > found.version):
            return held
        return found

    def _obeyed_here(self, kind: ControlKind) -> int:
        mark = None if self._disk is None else self._disk.load(kind).mark
        return 0 if mark is None else mark.version


def _newest(connection: sa.Connection, kind: ControlKind) -> bytes | None:
    import sqlalchemy as sa

    from stanchion.store.tables import control_documents as t

    statement = sa.select(t.c.envelope).where(t.c.kind == kind.value).order_by(t.c.version.desc()).limit(1)
    found = connection.execute(statement).scalar_one_or_none()
    if found is None:
        return None
    if not isinstance(found, str):
        raise IntegrityError(f"the database holds no text as the document of {kind.value}.")
    return found.encode()


def _insert(
    connection: sa.Connection, kind: ControlKind, *, version: int, at_us: int, envelope: bytes
) -> None:
    import sqlalchemy as sa

    from stanchion.store.tables import control_documents

    row = {"kind": kind.value, "version": version, "at_us": at_us, "envelope": envelope.decode()}
    connection.execute(control_documents.insert(), row)
    t = control_documents.c
    connection.execute(
        control_documents.delete().where(t.kind == kind.value, t.version <= version - KEPT_VERSIONS)
    )
    if connection.dialect.name == "postgresql":  # delivered when this transaction commits
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{kind.value} {version}")))
