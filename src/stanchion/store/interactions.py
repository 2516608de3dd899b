"""The store of interaction records: written in batches, found by time and feature, counted for indicators.

Text is kept only by a store that was made to capture it, and then only as `RedactedText`, in a table of its
own with a retention time of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from stanchion.core.codec import canonical_json
from stanchion.core.components import ComponentSet
from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.core.interaction import FinishReason, Usage
from stanchion.store.database import Database
from stanchion.store.kept_decisions import Summary, kept, read
from stanchion.store.records import NO_TEXT, InteractionRecord, Traffic
from stanchion.store.times import from_us, to_us

if TYPE_CHECKING:
    import sqlalchemy as sa

    from stanchion.store.bulk import Row

_PAGE = 1000
_GROUPS = (
    "feature",
    "environment",
    "traffic",
    "model",
    "effect",
    "is_protected",
    "policy_digest",
    "tenant_key",
    "components",
)


class Capture(StrEnum):
    """Whether a store keeps the words of an exchange."""

    NONE = "none"
    REDACTED = "redacted"


class RedactedText(msgspec.Struct, frozen=True, kw_only=True):
    """The words of an exchange after redaction; `redacted_by` is the digest of the policy that did it."""

    parts: tuple[str, ...]
    redacted_by: str


class Tombstone(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a deleted record: that it was there, why it went, and the entry of its deletion."""

    id: str
    erased_at: datetime
    reason: str
    erased_by: int


class InteractionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which records: every field given must hold. `start` is included, `end` is not."""

    start: datetime | None = None
    end: datetime | None = None
    feature: str | None = None
    environment: str | None = None
    traffic: Traffic | None = None
    session_id: str | None = None
    tenant_key: str | None = None
    subject_key: str | None = None
    effect: str | None = None
    is_protected: bool | None = None


class InteractionStore:
    """Records of one database. `capture` is off unless the caller decides otherwise."""

    def __init__(self, database: Database, *, capture: Capture = Capture.NONE) -> None:
        self._database = database
        self.capture = capture

    def insert(
        self, records: Sequence[InteractionRecord], *, texts: Mapping[str, RedactedText] | None = None
    ) -> None:
        """Write records, and texts by record id, in one transaction; a record that is there already stays.

        Raises:
            UsageError: for texts where none are captured, without a redactor, or of no given record.
            UnavailableError: when the database cannot be written; nothing was.
        """
        from stanchion.store.bulk import insert_new_rows
        from stanchion.store.tables import TEXT_LAYOUT

        text_rows = self._text_rows(records, texts or {})
        if not records:
            return
        with self._database.write() as connection:
            self.insert_rows_in(connection, [_to_row(record) for record in records])
            insert_new_rows(connection, TEXT_LAYOUT, text_rows)

    def insert_rows_in(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Write rows of `shared_values` and `own_values` in an open transaction."""
        from stanchion.store.bulk import insert_new_rows
        from stanchion.store.tables import INTERACTION_LAYOUT

        insert_new_rows(connection, INTERACTION_LAYOUT, rows)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction of the database, for what belongs together; see `Database.write`."""
        with self._database.write() as connection:
            yield connection

    def get(self, interaction_id: str) -> InteractionRecord | Tombstone | None:
        """The record, or the tombstone where it was deleted, or None where it never was."""
        import sqlalchemy as sa

        from stanchion.store.tables import interaction_tombstones, interactions

        with self._database.read() as connection:
            row = connection.execute(
                sa.select(interactions).where(interactions.c.id == interaction_id)
            ).first()
            if row is not None:
                return _from_row(row)
            gone = connection.execute(
                sa.select(interaction_tombstones).where(interaction_tombstones.c.id == interaction_id)
            ).first()
        if gone is None:
            return None
        return Tombstone(
            id=gone.id, erased_at=from_us(gone.erased_at_us), reason=gone.reason, erased_by=gone.erased_by
        )

    def text(self, interaction_id: str) -> RedactedText | None:
        """The redacted words, where they were captured and are still kept."""
        import sqlalchemy as sa

        from stanchion.store.tables import interaction_texts as t

        with self._database.read() as connection:
            row = connection.execute(sa.select(t).where(t.c.interaction_id == interaction_id)).first()
        if row is None:
            return None
        return RedactedText(parts=tuple(msgspec.json.decode(row.parts)), redacted_by=row.redacted_by)

    def find(
        self, query: InteractionQuery, *, after: InteractionRecord | None = None, limit: int = _PAGE
    ) -> list[InteractionRecord]:
        """Records in order of time; `after` is the last record of the page before."""
        import sqlalchemy as sa

        from stanchion.store.tables import interactions as t

        statement = sa.select(t).where(*conditions(query)).order_by(t.c.at_us, t.c.id).limit(limit)
        if after is not None:
            statement = statement.where(sa.tuple_(t.c.at_us, t.c.id) > (to_us(after.at), after.id))
        with self._database.read() as connection:
            return [_from_row(row) for row in connection.execute(statement)]

    def stream(self, query: InteractionQuery) -> Iterator[InteractionRecord]:
        """Every record that fits in order of time, one page in memory at a time."""
        last = None
        while page := self.find(query, after=last):
            yield from page
            last = page[-1]

    def counts(self, query: InteractionQuery, *, by: Sequence[str] = ()) -> dict[tuple[Any, ...], int]:
        """How many records fit, for each combination of the columns in `by`; `{(): n}` without any.

        Raises:
            UnknownNameError: for a column that cannot be grouped by.
        """
        import sqlalchemy as sa

        from stanchion.store.tables import interactions as t

        for name in by:
            if name not in _GROUPS:
                raise UnknownNameError("column to group by", name, _GROUPS)
        columns = [t.c[name] for name in by]
        statement = sa.select(*columns, sa.func.count()).where(*conditions(query)).group_by(*columns)
        with self._database.read() as connection:
            rows = connection.execute(statement.select_from(t).order_by(*columns)).all()
        return {tuple(row[:-1]): row[-1] for row in rows}

    def _text_rows(
        self, records: Sequence[InteractionRecord], texts: Mapping[str, RedactedText]
    ) -> list[Row]:
        if texts and self.capture is not Capture.REDACTED:
            raise UsageError(
                "this store keeps no text, and text was handed to it.",
                hint="Make it with capture=Capture.REDACTED where the policy says so.",
            )
        moments = {record.id: to_us(record.at) for record in records}
        for interaction_id, text in texts.items():
            if interaction_id not in moments:
                raise UsageError(f"there is a text for interaction {interaction_id!r} but no record of it.")
            if not text.redacted_by:
                raise UsageError(f"the text of interaction {interaction_id!r} does not say what redacted it.")
        return [
            ((), (key, moments[key], text.redacted_by, canonical_json(list(text.parts)).decode("utf-8")))
            for key, text in texts.items()
        ]


def conditions(query: InteractionQuery) -> list[sa.ColumnElement[bool]]:
    """A query as conditions on the table of interactions."""
    from stanchion.store.tables import interactions as t
    from stanchion.store.tables import is_unusual

    found = [] if query.start is None else [t.c.at_us >= to_us(query.start)]
    if query.end is not None:
        found.append(t.c.at_us < to_us(query.end))
    for name in ("feature", "environment", "traffic", "session_id", "tenant_key", "subject_key", "effect"):
        value = getattr(query, name)
        if value and name in ("session_id", "subject_key"):
            found.append(is_unusual(t.c[name], value))
        elif value is not None:
            found.append(t.c[name] == str(value))
    if query.is_protected is not None:
        found.append(t.c.is_protected.is_(query.is_protected))
    return found


_sorted_json = msgspec.json.Encoder(order="sorted").encode  # a tenth of the time of canonical JSON


@lru_cache(maxsize=256)
def _component_values(components: ComponentSet) -> tuple[str, ...]:
    """The columns of a component set; a gateway sees few of them, again and again."""
    text = _sorted_json(components).decode()
    return text, components.digest, components.prompt, components.policy


class Ending(NamedTuple):
    """What is known of a record at its end; `labels` is a JSON object."""

    finish_reason: str
    labels: str
    is_replayable: int = 0
    replay_note: str = NO_TEXT


def row_values(
    names: tuple[str, str, str, str],
    people: tuple[str, str, str],
    *,
    key: tuple[str, int],
    components: ComponentSet,
    decided: Summary,
    ending: Ending,
    usage: Usage,
    latency_ms: float | None,
) -> Row:
    """The values of a row of `INTERACTION_LAYOUT`, from what was checked as `InteractionRecord` checks it.

    `names` are environment, feature, traffic and model; `people` session, tenant and subject; `key` is the id
    and the time.
    """
    of_decisions = (decided.effect, decided.is_protected, decided.findings, decided.categories)
    return (
        names + _component_values(components) + of_decisions + ending,
        key
        + people
        + (
            decided.text,
            usage.input_tokens,
            usage.cached_input_tokens,
            usage.output_tokens,
            usage.cost_usd,
            latency_ms,
            decided.guard_ms,
        ),
    )


def _to_row(record: InteractionRecord) -> Row:
    return row_values(
        (record.environment, record.feature, str(record.traffic), record.model),
        (record.session_id, record.tenant_key, record.subject_key),
        key=(record.id, to_us(record.at)),
        components=record.components,
        decided=kept(record.decisions, policy=record.components.policy),
        ending=Ending(
            str(record.finish_reason),
            _sorted_json(record.labels).decode(),
            int(record.is_replayable),
            record.replay_note,
        ),
        usage=record.usage,
        latency_ms=record.latency_ms,
    )


def _from_row(row: Any) -> InteractionRecord:
    return InteractionRecord(
        id=row.id,
        at=from_us(row.at_us),
        environment=row.environment,
        feature=row.feature,
        traffic=Traffic(row.traffic),
        session_id=row.session_id,
        tenant_key=row.tenant_key,
        subject_key=row.subject_key,
        model=row.model,
        components=msgspec.json.decode(row.components, type=ComponentSet),
        decisions=read(row.decisions, policy=row.policy_digest),
        finish_reason=FinishReason(row.finish_reason),
        usage=Usage(
            input_tokens=row.input_tokens,
            cached_input_tokens=row.cached_input_tokens,
            output_tokens=row.output_tokens,
            cost_usd=row.cost_usd,
        ),
        latency_ms=row.latency_ms,
        labels=msgspec.json.decode(row.labels, type=dict[str, str]),
        is_replayable=row.is_replayable,
        replay_note=row.replay_note,
    )
