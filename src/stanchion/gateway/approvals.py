"""The queue of tool calls and answers that wait for a person. Nobody decides in time: denied.

A ticket is a row of the database. It is decided by one conditional update, together with its audit entry, so
it is decided once, whatever crashes and however many people press the button. Who decides has the permission
to approve, and is not who asked. What is to be decided on is stored sealed (AES-256-GCM, bound to the
ticket), or, without a key, as what the caller redacted.

The client comes back with its ticket (`x-stanchion-ticket`) and gets what was approved, once: the stored tool
call or answer, not a new one.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
import pydantic

from stanchion.core.clock import Clock, Ids
from stanchion.core.codec import canonical_json, digest_bytes
from stanchion.core.decision import Decision
from stanchion.core.errors import BlockedError, IntegrityError, UnknownNameError, UsageError
from stanchion.files.schema import FileModel
from stanchion.gateway.actor import Actor, Permission
from stanchion.gateway.ports import Parked, RequestFacts
from stanchion.gateway.ticket_refusals import another_question, not_found, redeemed_already
from stanchion.gateway.webhook import WebhookTarget
from stanchion.store.audit_chain import NewEntry
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import Database
from stanchion.store.identity import IdKeys
from stanchion.store.times import from_us, to_us

if TYPE_CHECKING:
    import sqlalchemy as sa

MAX_SUBJECT_BYTES = 256 * 1024
MAX_NOTE = 500
ASKED = "asked_digest"  # in a subject: the digest of the request that it answers
_SEALED = "sealed:"
_PLAIN = "plain:"
_PAGE = 200

Status = Literal["pending", "approved", "denied", "expired"]


class ApprovalsSection(FileModel):
    """The section `approvals`."""

    timeout_s: float = pydantic.Field(
        default=900.0, ge=1, le=30 * 86_400, description="No decision after so long means denied."
    )
    redeem_s: float = pydantic.Field(
        default=3600.0, ge=1, le=30 * 86_400, description="How long an approved ticket may be redeemed."
    )
    poll_s: float = pydantic.Field(
        default=0.5, ge=0.05, le=60, description="How often a waiting client's ticket is looked up."
    )
    most_pending: int = pydantic.Field(
        default=1000, ge=1, le=10**6, description="More than so many waiting: new ones are denied at once."
    )
    webhook: WebhookTarget | None = pydantic.Field(default=None, description="Told of every new ticket.")


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """One ticket, without what it is about. Times are microseconds since 1970; 0: not yet."""

    ticket: str
    kind: str
    status: str
    request_id: str
    feature: str
    tenant: str
    key_id: str
    user_key: str
    surface: str
    rule_ids: tuple[str, ...]
    policy_digest: str
    reason: str
    subject_digest: str
    created_at_us: int
    expires_at_us: int
    decided_at_us: int = 0
    decided_by: str = ""
    note: str = ""
    redeemed: int = 0

    @property
    def parked(self) -> Parked:
        """What the data plane sees of it."""
        at = from_us(self.expires_at_us).isoformat(timespec="seconds")
        return Parked(ticket=self.ticket, status=self.status, expires_at=at, reason=self.note or self.reason)


class Redeemed(msgspec.Struct, frozen=True, kw_only=True):
    """A ticket that the client came back with; `subject` only when it was approved."""

    parked: Parked
    kind: str
    subject: dict[str, Any] | None = None


class Notices(Protocol):
    """Tells waiters of a ticket."""

    def tell(self, ticket: str) -> None:
        """The ticket was decided; from any thread, never raises."""
        ...

    async def wait(self, ticket: str, *, seconds: float) -> None:
        """Return when told of the ticket, or after the time."""
        ...


class ApprovalQueue:
    """The queue of one database; see `ports.Approvals`.

    `key` (32 bytes) seals subjects. `id_keys` lets the queue see that who decides is the user who asked.
    """

    def __init__(
        self,
        section: ApprovalsSection,
        database: Database,
        *,
        clock: Clock,
        ids: Ids,
        key: bytes | None = None,
        id_keys: IdKeys | None = None,
        notices: Notices | None = None,
    ) -> None:
        if key is not None and len(key) != 32:
            raise UsageError("the key that seals approvals must have 32 bytes.")
        self.section = section
        self._database = database
        self._clock = clock
        self._ids = ids
        self._key = key
        self._id_keys = id_keys
        self._notices = notices
        self._log = AuditLog(database, clock=clock)

    def tell(self, notices: Notices) -> None:
        """Tell waiting clients this way from now on."""
        self._notices = notices

    # --- the data plane -------------------------------------------------------------------------------------

    async def park(
        self, facts: RequestFacts, *, kind: str, subject: Mapping[str, object], decision: Decision
    ) -> Parked:
        """See `ports.Approvals.park`."""
        return (await asyncio.to_thread(self._park, facts, kind, subject, decision=decision)).parked

    async def wait(self, ticket: str, *, seconds: float) -> Parked:
        """Wait for the decision, at most so long; pending when there is none yet.

        Raises:
            UnknownNameError: for a ticket that is not there.
        """
        end = self._clock.monotonic_ns() / 1e9 + seconds
        while True:
            found = await asyncio.to_thread(self.get, ticket)
            left = end - self._clock.monotonic_ns() / 1e9
            if found.status != "pending" or left <= 0:
                return found.parked
            pause = min(left, self.section.poll_s)
            if self._notices is None:
                await asyncio.sleep(pause)
            else:
                await self._notices.wait(ticket, seconds=pause)

    async def redeem(self, facts: RequestFacts, ticket: str, *, asked: str = "") -> Redeemed:
        """What a client that came back with a ticket gets; what was approved is given once.

        Raises:
            Refused: `invalid` 404 for a ticket that is not there or is somebody else's: both alike; 409 for
                one that was redeemed, or was given for another request than `asked` (a digest).
        """
        return await asyncio.to_thread(self._redeem, facts, ticket, asked)

    # --- people ---------------------------------------------------------------------------------------------

    def get(self, ticket: str) -> Ticket:
        """A ticket; one whose time is over is expired by this look.

        Raises:
            UnknownNameError: for a ticket that is not there.
        """
        found = self._read(ticket)
        if found is None:
            raise UnknownNameError("ticket", ticket[:80], ())
        if found.status == "pending" and found.expires_at_us <= to_us(self._clock.now()):
            self._finish(ticket, status="expired", by="system", note="nobody decided in time")
            found = self._read(ticket) or found
        return found

    def tickets(self, *, status: str = "", limit: int = _PAGE) -> list[Ticket]:
        """Tickets, the oldest first; those whose time is over are expired first."""
        import sqlalchemy as sa

        from stanchion.store.tables import approvals as t

        self.expire()
        statement = sa.select(t).order_by(t.c.created_at_us, t.c.ticket).limit(limit)
        if status:
            statement = statement.where(t.c.status == status)
        with self._database.read() as connection:
            return [_ticket(row) for row in connection.execute(statement)]

    def pending(self) -> int:
        """How many tickets wait for a person now."""
        import sqlalchemy as sa

        from stanchion.store.tables import approvals as t

        statement = sa.select(sa.func.count()).where(
            t.c.status == "pending", t.c.expires_at_us > to_us(self._clock.now())
        )
        with self._database.read() as connection:
            return int(connection.execute(statement).scalar_one())

    def subject(self, ticket: str) -> dict[str, Any]:
        """What is to be decided on.

        Raises:
            UnknownNameError: for a ticket that is not there.
            UsageError: when it is sealed and this process has no key.
            IntegrityError: when it was changed, or sealed with another key.
        """
        import sqlalchemy as sa

        from stanchion.store.tables import approvals as t

        with self._database.read() as connection:
            row = connection.execute(
                sa.select(t.c.subject, t.c.subject_digest).where(t.c.ticket == ticket)
            ).first()
        if row is None:
            raise UnknownNameError("ticket", ticket[:80], ())
        return self._unseal(ticket, row.subject, row.subject_digest)

    def decide(self, ticket: str, *, approve: bool, by: Actor, note: str = "") -> Ticket:
        """Approve or deny, once.

        Raises:
            BlockedError: for a person without the permission, or who asked.
            UsageError: when it is decided already, or its time is over.
        """
        if len(note) > MAX_NOTE:
            raise UsageError(f"a note has at most {MAX_NOTE} characters.")
        found = self.get(ticket)
        self._check_person(found, by)
        status: Status = "approved" if approve else "denied"
        if not self._finish(ticket, status=status, by=by.person, note=note, proof=by.proof):
            now = self.get(ticket)
            raise UsageError(
                f"ticket {ticket} is {now.status} already"
                + (f", by {now.decided_by}." if now.decided_by else "."),
                hint="A ticket is decided once.",
            )
        return self.get(ticket)

    def expire(self) -> int:
        """Deny every ticket whose time is over; how many there were."""
        import sqlalchemy as sa

        from stanchion.store.tables import approvals as t

        now = to_us(self._clock.now())
        statement = (
            sa.select(t.c.ticket).where(t.c.status == "pending", t.c.expires_at_us <= now).limit(_PAGE)
        )
        with self._database.read() as connection:
            late = [row.ticket for row in connection.execute(statement)]
        return sum(
            self._finish(one, status="expired", by="system", note="nobody decided in time") for one in late
        )

    # --- webhook: at least once -----------------------------------------------------------------------------

    def claim_untold(self, *, again_after_s: float = 120.0) -> list[Ticket]:
        """Pending tickets that no webhook has told of; they are ours to tell for a while.

        `notified_at_us` is negative while a delivery is under way: a worker that dies leaves it to the next.
        """
        import sqlalchemy as sa

        from stanchion.store.tables import approvals as t

        now = to_us(self._clock.now())
        is_free = sa.or_(
            t.c.notified_at_us.is_(None),
            sa.and_(t.c.notified_at_us < 0, t.c.notified_at_us > -(now - round(again_after_s * 1e6))),
        )
        found: list[Ticket] = []
        with self._database.write() as connection:
            rows = connection.execute(
                sa.select(t)
                .where(t.c.status == "pending", is_free)
                .limit(20)
                .with_for_update(skip_locked=True)
            ).all()
            for row in rows:
                connection.execute(t.update().where(t.c.ticket == row.ticket).values(notified_at_us=-now))
                found.append(_ticket(row))
        return found

    def told(self, ticket: str) -> None:
        """The webhook was delivered."""
        from stanchion.store.tables import approvals as t

        with self._database.write() as connection:
            connection.execute(
                t.update().where(t.c.ticket == ticket).values(notified_at_us=to_us(self._clock.now()))
            )

    # --- inside ---------------------------------------------------------------------------------------------

    def _park(
        self, facts: RequestFacts, kind: str, subject: Mapping[str, object], *, decision: Decision
    ) -> Ticket:
        import sqlalchemy as sa

        from stanchion.store.tables import approvals as t

        if kind not in ("tool_call", "answer"):
            raise UsageError(f"{kind!r} cannot be parked.", hint="Allowed: tool_call, answer.")
        data = canonical_json(dict(subject))
        if len(data) > MAX_SUBJECT_BYTES:
            raise UsageError(f"what is parked is larger than the limit of {MAX_SUBJECT_BYTES:,} bytes.")
        ticket, now = self._ids.new("ticket"), self._clock.now()
        row = {
            "ticket": ticket,
            "kind": kind,
            "status": "pending",
            "request_id": facts.id,
            "feature": facts.feature,
            "tenant": facts.tenant,
            "key_id": facts.key_id,
            "user_key": facts.user_key,
            "surface": facts.surface.value,
            "rule_ids": msgspec.json.encode(decision.rule_ids).decode(),
            "policy_digest": decision.policy_digest,
            "reason": decision.reason[:MAX_NOTE],
            "subject": self._seal(ticket, data),
            "subject_digest": digest_bytes(data),
            "created_at_us": to_us(now),
            "expires_at_us": to_us(now + timedelta(seconds=self.section.timeout_s)),
            "decided_by": "",
            "note": "",
            "redeemed": 0,
        }
        with self._database.write() as connection:
            waiting = connection.execute(
                sa.select(sa.func.count()).select_from(t).where(t.c.status == "pending")
            ).scalar_one()
            if waiting >= self.section.most_pending:
                raise UsageError(f"{waiting:,} tickets wait already: the queue is full.")
            connection.execute(t.insert().values(row))
            payload = {k: row[k] for k in ("ticket", "kind", "request_id", "feature", "subject_digest")}
            self._log.append_within(
                connection, [NewEntry(kind="approval.parked", payload=payload, actor="system")]
            )
        return self._read(ticket) or _ticket_of(row)

    def _redeem(self, facts: RequestFacts, ticket: str, asked: str) -> Redeemed:
        from stanchion.store.tables import approvals as t

        found = self._read(ticket)
        is_theirs = found is not None and (found.tenant, found.key_id, found.user_key, found.feature) == (
            facts.tenant,
            facts.key_id,
            facts.user_key,
            facts.feature,
        )
        if found is None or not is_theirs:
            raise not_found()
        found = self.get(ticket)
        if found.status != "approved":
            return Redeemed(parked=found.parked, kind=found.kind)
        if to_us(self._clock.now()) > found.decided_at_us + round(self.section.redeem_s * 1e6):
            raise not_found()
        subject = self.subject(ticket)
        if subject.pop(ASKED, asked) != asked:
            raise another_question()
        with self._database.write() as connection:
            is_first = t.c.ticket == ticket, t.c.redeemed == 0
            if not connection.execute(t.update().where(*is_first).values(redeemed=1)).rowcount:
                raise redeemed_already()
            payload = {"ticket": ticket, "request_id": facts.id, "subject_digest": found.subject_digest}
            self._log.append_within(
                connection, [NewEntry(kind="approval.redeemed", payload=payload, actor="system")]
            )
        return Redeemed(parked=found.parked, kind=found.kind, subject=subject)

    def _check_person(self, found: Ticket, by: Actor) -> None:
        if not by.may(Permission.APPROVE):
            raise BlockedError(
                f"{by.person} may not decide about tickets.",
                reference=found.ticket,
                hint="It takes the role approver or admin.",
            )
        keyed = self._id_keys.key("subject", by.person) if self._id_keys is not None else ""
        if by.proof == f"key:{found.key_id}" or (keyed and keyed == found.user_key):
            raise BlockedError(
                f"{by.person} asked for this, so somebody else has to decide.", reference=found.ticket
            )

    def _finish(self, ticket: str, *, status: Status, by: str, note: str, proof: str = "") -> bool:
        """The one place where a ticket is decided: one conditional update, with its audit entry."""
        import sqlalchemy as sa

        from stanchion.store.tables import approvals as t

        now = to_us(self._clock.now())
        is_open = t.c.expires_at_us <= now if status == "expired" else t.c.expires_at_us > now
        with self._database.write() as connection:
            changed = connection.execute(
                t.update()
                .where(t.c.ticket == ticket, t.c.status == "pending", is_open)
                .values(status=status, decided_at_us=now, decided_by=by, note=note)
            ).rowcount
            if not changed:
                return False
            payload = {"ticket": ticket, "status": status, "proof": proof, "has_note": bool(note)}
            self._log.append_within(
                connection, [NewEntry(kind="approval.decided", payload=payload, actor=by)]
            )
            if connection.dialect.name == "postgresql":  # goes out with the commit
                connection.execute(sa.text("SELECT pg_notify('stanchion_approvals', :t)"), {"t": ticket})
        if self._notices is not None:
            self._notices.tell(ticket)
        return True

    def _read(self, ticket: str) -> Ticket | None:
        import sqlalchemy as sa

        from stanchion.store.tables import approvals as t

        with self._database.read() as connection:
            row = connection.execute(sa.select(t).where(t.c.ticket == ticket)).first()
        return None if row is None else _ticket(row)

    def _seal(self, ticket: str, data: bytes) -> str:
        if self._key is None:
            return _PLAIN + data.decode()
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(12)
        sealed = AESGCM(self._key).encrypt(nonce, data, ticket.encode())
        return _SEALED + base64.b64encode(nonce + sealed).decode()

    def _unseal(self, ticket: str, stored: str, wanted: str) -> dict[str, Any]:
        data = stored.removeprefix(_PLAIN).encode()
        if stored.startswith(_SEALED):
            if self._key is None:
                raise UsageError(f"what ticket {ticket} is about is sealed, and there is no key here.")
            data = self._open(ticket, base64.b64decode(stored.removeprefix(_SEALED)))
        if digest_bytes(data) != wanted:
            raise IntegrityError(f"what ticket {ticket} is about was changed.", hint="Deny it.")
        value: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        return value

    def _open(self, ticket: str, sealed: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._key or b"").decrypt(sealed[:12], sealed[12:], ticket.encode())
        except InvalidTag as error:
            raise IntegrityError(
                f"what ticket {ticket} is about was changed, or sealed with another key.", hint="Deny it."
            ) from error


def _ticket(row: sa.Row[Any]) -> Ticket:
    return _ticket_of(dict(row._mapping))


def _ticket_of(row: Mapping[str, Any]) -> Ticket:
    fields: dict[str, Any] = {name: row.get(name) for name in Ticket.__struct_fields__}
    fields["rule_ids"] = msgspec.json.decode(row["rule_ids"], type=tuple[str, ...])
    fields["decided_at_us"] = row.get("decided_at_us") or 0
    return Ticket(**fields)
