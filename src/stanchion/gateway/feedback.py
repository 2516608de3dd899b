"""Feedback on an answer: wrongly blocked, harmful or leaked; joined with its decision, queued for people.

The answer to the client is the same whether the reference is known or not, and whoever it belongs to: a
reference tells nothing. Feedback that comes before its record is written waits as `unmatched` and is joined
later; after a day it is dropped from waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any

import msgspec
import pydantic

from stanchion.core.clock import Clock, Ids
from stanchion.core.errors import StanchionError
from stanchion.files.schema import FileModel
from stanchion.gateway.ports import Outcome, Refused, RequestFacts
from stanchion.gateway.request_ids import request_of
from stanchion.store.audit_chain import NewEntry
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import Database
from stanchion.store.identity import is_plain
from stanchion.store.times import to_us

MAX_BODY_BYTES = 16 * 1024
MAX_COMMENT_CHARS = 2000
_UNMATCHED_FOR = timedelta(days=1)
_BATCH = 500


class FeedbackKind(StrEnum):
    """What was wrong with the answer."""

    WRONGLY_BLOCKED = "wrongly_blocked"
    HARMFUL = "harmful"
    LEAKED = "leaked"


class FeedbackStatus(StrEnum):
    """Where a report is: `new` is in the labelling queue."""

    UNMATCHED = "unmatched"
    NEW = "new"
    LABELLED = "labelled"
    DROPPED = "dropped"


class FeedbackSection(FileModel):
    """The section `feedback`."""

    per_minute: int = pydantic.Field(default=30, ge=1, le=10_000, description="Reports of one key and user.")
    keep_comments: bool = pydantic.Field(
        default=True, description="Keep comments, redacted; without a redactor none is kept."
    )


class FeedbackBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client sends to `/v1/feedback`."""

    reference: str
    kind: FeedbackKind
    comment: str = ""


class FeedbackReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a client gets: always the same, but for the id."""

    id: str
    status: str = "received"


class FeedbackReport(msgspec.Struct, frozen=True, kw_only=True):
    """One report of the queue, joined with its decision where it is known."""

    id: str
    at_us: int
    reference: str
    interaction_id: str
    kind: FeedbackKind
    comment: str
    key_id: str
    tenant: str
    feature: str
    status: FeedbackStatus
    components_digest: str
    policy_digest: str
    effect: str


class _Joined(msgspec.Struct):
    row: Mapping[str, Any]
    variants: dict[str, str]


class FeedbackDesk:
    """Takes feedback and keeps its queue. `redact` takes personal data and secrets out of comments."""

    def __init__(
        self,
        section: FeedbackSection,
        database: Database,
        *,
        clock: Clock,
        ids: Ids,
        redact: Callable[[str], str] | None = None,
        on_bad: Callable[[Mapping[str, str]], None] | None = None,
    ) -> None:
        from limits import RateLimitItemPerMinute
        from limits.aio.storage import MemoryStorage
        from limits.aio.strategies import MovingWindowRateLimiter

        self._section = section
        self._database = database
        self._clock = clock
        self._ids = ids
        self._redact = redact
        self._on_bad = on_bad
        self._log = AuditLog(database, clock=clock)
        self._rate = MovingWindowRateLimiter(MemoryStorage())
        self._item = RateLimitItemPerMinute(section.per_minute)

    async def take(self, facts: RequestFacts, body: bytes) -> FeedbackReceipt:
        """One report of a client, as the bytes of its request.

        Raises:
            Refused: `invalid` (400, 413) for a body that does not fit, `limited` (429) for too many.
            UnavailableError: when it cannot be written.
        """
        who = (facts.key_id, facts.user_key)
        if not await self._rate.hit(self._item, *who):
            reset, _ = await self._rate.get_window_stats(self._item, *who)
            raise Refused(
                Outcome.LIMITED,
                status=429,
                code="feedback_limit",
                message="too much feedback in a minute.",
                retry_after_s=max(0.0, reset - self._clock.now().timestamp()),
            )
        report = _decode(body)
        receipt, joined = await asyncio.to_thread(self._insert, facts, report)
        self._tell(joined)
        return receipt

    def queue(self, *, status: FeedbackStatus = FeedbackStatus.NEW, limit: int = 100) -> list[FeedbackReport]:
        """The reports of a status, the oldest first."""
        import sqlalchemy as sa

        from stanchion.store.tables import feedback as t

        statement = sa.select(t).where(t.c.status == status.value).order_by(t.c.at_us, t.c.id).limit(limit)
        with self._database.read() as connection:
            return [_report(row._mapping) for row in connection.execute(statement)]

    async def tick(self) -> int:
        """Join reports that came before their records; how many were joined. Called now and then."""
        found = await asyncio.to_thread(self._match_waiting)
        for joined in found:
            self._tell(joined)
        return len(found)

    def _match_waiting(self) -> list[_Joined]:
        from stanchion.store.tables import feedback as t

        waiting = self.queue(status=FeedbackStatus.UNMATCHED, limit=_BATCH)
        too_old = to_us(self._clock.now() - _UNMATCHED_FOR)
        found: list[_Joined] = []
        for report in waiting:
            joined = self._join(report.reference, key_id=report.key_id, tenant=report.tenant)
            if joined is None and report.at_us >= too_old:
                continue
            values = dict(joined.row) if joined else {"status": FeedbackStatus.DROPPED.value}
            with self._database.write() as connection:
                is_ours = connection.execute(
                    t.update()
                    .where(t.c.id == report.id, t.c.status == FeedbackStatus.UNMATCHED.value)
                    .values(values)
                ).rowcount
            if is_ours and joined is not None:
                found.append(joined)
        return found

    def _insert(self, facts: RequestFacts, report: FeedbackBody) -> tuple[FeedbackReceipt, _Joined | None]:
        from stanchion.store.tables import feedback as t

        joined = self._join(report.reference, key_id=facts.key_id, tenant=facts.tenant)
        row = {
            "id": self._ids.new("feedback"),
            "at_us": to_us(self._clock.now()),
            "reference": report.reference,
            "interaction_id": "",
            "kind": report.kind.value,
            "comment": self._kept(report.comment),
            "key_id": facts.key_id,
            "tenant": facts.tenant,
            "feature": facts.feature,
            "status": FeedbackStatus.UNMATCHED.value,
            "components_digest": "",
            "policy_digest": "",
            "effect": "",
        }
        row.update(joined.row if joined else {})
        payload = {"feedback": row["id"], "kind": row["kind"], "interaction": row["interaction_id"]}
        with self._database.write() as connection:
            connection.execute(t.insert().values(row))
            self._log.append_within(connection, [NewEntry(kind="feedback.received", payload=payload)])
        return FeedbackReceipt(id=str(row["id"])), joined

    def _kept(self, comment: str) -> str:
        if not comment or not self._section.keep_comments or self._redact is None:
            return ""
        return self._redact(comment)[:MAX_COMMENT_CHARS]

    def _join(self, reference: str, *, key_id: str, tenant: str) -> _Joined | None:
        """The request that a reference names, if it was the same key's or the same tenant's."""
        import sqlalchemy as sa

        from stanchion.store.tables import exchanges as x
        from stanchion.store.tables import interactions as i

        columns = (x.c.id, x.c.key_id, x.c.feature, x.c.detail, i.c.tenant_key)
        more = (i.c.components_digest, i.c.policy_digest, i.c.effect)
        statement = (
            sa.select(*columns, *more)
            .select_from(x.outerjoin(i, i.c.id == x.c.id))
            .where(x.c.id == request_of(reference))
        )
        with self._database.read() as connection:
            row = connection.execute(statement).first()
        if row is None or not (row.key_id == key_id or (tenant and row.tenant_key == tenant)):
            return None
        found = {
            "interaction_id": row.id,
            "feature": row.feature,
            "status": FeedbackStatus.NEW.value,
            "components_digest": row.components_digest or "",
            "policy_digest": row.policy_digest or "",
            "effect": row.effect or "",
        }
        return _Joined(found, _variants(row.detail))

    def _tell(self, joined: _Joined | None) -> None:
        if joined is not None and self._on_bad is not None and joined.variants:
            self._on_bad(joined.variants)


def make_feedback(
    section: FeedbackSection,
    database: Database,
    *,
    clock: Clock,
    ids: Ids,
    redact: Callable[[str], str] | None = None,
    on_bad: Callable[[Mapping[str, str]], None] | None = None,
) -> FeedbackDesk:
    """A desk; without a redactor comments are not kept."""
    return FeedbackDesk(section, database, clock=clock, ids=ids, redact=redact, on_bad=on_bad)


def _decode(body: bytes) -> FeedbackBody:
    if len(body) > MAX_BODY_BYTES:
        raise _invalid(f"feedback has at most {MAX_BODY_BYTES:,} bytes.", status=413)
    try:
        report = msgspec.json.decode(body, type=FeedbackBody)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError):
        kinds = ", ".join(kind.value for kind in FeedbackKind)
        raise _invalid(f"feedback is JSON with reference, kind ({kinds}) and comment.") from None
    if not (report.reference and is_plain(report.reference)):
        raise _invalid("the reference is not one of ours.")
    if len(report.comment) > MAX_COMMENT_CHARS:
        raise _invalid(f"a comment has at most {MAX_COMMENT_CHARS:,} characters.")
    return report


def _invalid(message: str, *, status: int = 400) -> Refused:
    return Refused(Outcome.INVALID, status=status, code="feedback_invalid", message=message)


def _variants(detail: str) -> dict[str, str]:
    try:
        found = msgspec.json.decode(detail, type=dict[str, Any]).get("variants") or {}
        return msgspec.convert(found, dict[str, str])
    except (msgspec.DecodeError, msgspec.ValidationError, StanchionError):
        return {}


def _report(row: Mapping[Any, Any]) -> FeedbackReport:
    fields = dict(row)
    fields["kind"] = FeedbackKind(fields["kind"])
    fields["status"] = FeedbackStatus(fields["status"])
    return FeedbackReport(**fields)
