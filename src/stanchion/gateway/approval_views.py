"""What a person sees of a ticket: masked, or in the clear with an audit entry that says who looked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stanchion.core.clock import Clock
from stanchion.core.errors import BlockedError
from stanchion.gateway.actor import Actor, Permission, roles_with
from stanchion.gateway.approvals import ASKED, ApprovalQueue
from stanchion.guard.masked_view import MaskedView, Masker
from stanchion.store.audit_chain import NewEntry
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import Database

REVEALED = "approval.revealed"


class TicketViews:
    """The two ways to look at what is parked in a queue.

    `masker` is made on the first look, because its detectors take a while to load.
    """

    def __init__(
        self, queue: ApprovalQueue, database: Database, *, clock: Clock, masker: Callable[[], Masker]
    ) -> None:
        self._queue = queue
        self._database = database
        self._log = AuditLog(database, clock=clock)
        self._make = masker
        self._masker: Masker | None = None

    def masked(self, ticket: str) -> MaskedView:
        """What a ticket is about: personal data and secrets as their kind and length.

        Raises:
            UnknownNameError, UsageError, IntegrityError: see `ApprovalQueue.subject`.
        """
        subject = self._subject(ticket)
        if self._masker is None:
            self._masker = self._make()
        return self._masker.mask(subject)

    def revealed(self, ticket: str, *, by: Actor, reason: str = "") -> dict[str, Any]:
        """What a ticket is about, in the clear; the audit log has it before this returns.

        Raises:
            BlockedError: for a person without the permission to reveal.
            UnavailableError: when the audit log cannot be written; nothing is shown then.
            UnknownNameError, UsageError, IntegrityError: see `ApprovalQueue.subject`.
        """
        if not by.may(Permission.REVEAL):
            raise BlockedError(
                f"{by.person} may not see what is masked.",
                reference=ticket,
                hint=f"It takes one of the roles {', '.join(roles_with(Permission.REVEAL))}.",
            )
        found, subject = self._queue.get(ticket), self._subject(ticket)
        payload = {
            "ticket": ticket,
            "request_id": found.request_id,
            "subject_digest": found.subject_digest,
            "reason": reason,
            **by.told(),
        }
        with self._database.write() as connection:
            self._log.append_within(connection, [NewEntry(kind=REVEALED, payload=payload, actor=by.person)])
        return subject

    def _subject(self, ticket: str) -> dict[str, Any]:
        subject = self._queue.subject(ticket)
        subject.pop(ASKED, None)  # binds it to its request; nothing to decide on
        return subject
