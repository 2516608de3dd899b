"""How each request of the gateway ended: the row beside its interaction record, under the same id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from stanchion.store.database import Database

if TYPE_CHECKING:
    import sqlalchemy as sa

    from stanchion.store.bulk import Row


class ExchangeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `at_us` is microseconds since 1970; `detail` is JSON: tries, manifest, variants.

    The fields are the columns of the table, in their order.
    """

    id: str
    at_us: int
    surface: str
    outcome: str
    stage: str
    feature: str = ""
    environment: str = ""
    key_id: str = ""
    model: str = ""
    provider: str = ""
    status: int = 0
    is_stream: bool = False
    did_not_run: int = 0
    total_ms: float | None = None
    upstream_ms: float | None = None
    first_byte_ms: float | None = None
    guard_state: str = ""
    guarantee: str = ""
    switch_id: str = ""
    error: str = ""
    detail: str = "{}"


USUAL_OUTCOME = "allowed"
"""How nearly all requests end; the index of outcomes has the others."""

_FIELDS = ExchangeRow.__struct_fields__


class ExchangeStore:
    """The rows of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, rows: Sequence[ExchangeRow]) -> None:
        """Write rows in one transaction; one that is there already stays.

        Raises:
            UnavailableError: when the database cannot be written; nothing was.
        """
        if rows:
            with self._database.write() as connection:
                self.insert_rows_in(connection, [row_values(row) for row in rows])

    def insert_rows_in(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        """Write rows of `row_values` in an open transaction."""
        from stanchion.store.bulk import insert_new_rows
        from stanchion.store.tables import EXCHANGE_LAYOUT

        insert_new_rows(connection, EXCHANGE_LAYOUT, rows)

    def get(self, exchange_id: str) -> ExchangeRow | None:
        """The row of a request; None when there is none."""
        import sqlalchemy as sa

        from stanchion.store.tables import exchanges as t

        with self._database.read() as connection:
            row = connection.execute(sa.select(t).where(t.c.id == exchange_id)).first()
        return None if row is None else _row(row)

    def latest(self, *, limit: int = 100, outcome: str = "") -> list[ExchangeRow]:
        """The newest rows, newest first."""
        import sqlalchemy as sa

        from stanchion.store.tables import exchanges as t
        from stanchion.store.tables import is_unusual

        statement = sa.select(t).order_by(t.c.at_us.desc(), t.c.id.desc()).limit(limit)
        if outcome == USUAL_OUTCOME:
            statement = statement.where(t.c.outcome == outcome)
        elif outcome:
            statement = statement.where(is_unusual(t.c.outcome, outcome, usual=USUAL_OUTCOME))
        with self._database.read() as connection:
            return [_row(row) for row in connection.execute(statement)]

    def counts(self) -> dict[str, int]:
        """How many requests ended in which way."""
        import sqlalchemy as sa

        from stanchion.store.tables import exchanges as t

        statement = sa.select(t.c.outcome, sa.func.count()).group_by(t.c.outcome)
        with self._database.read() as connection:
            return {str(row[0]): int(row[1]) for row in connection.execute(statement)}


def row_values(row: ExchangeRow) -> Row:
    """A row as `insert_rows_in` takes it: what many rows share, and what each has for itself."""
    return (
        (
            row.surface,
            row.outcome,
            row.stage,
            row.feature,
            row.environment,
            row.model,
            row.provider,
            row.status,
            1 if row.is_stream else 0,
            row.did_not_run,
            row.guard_state,
            row.guarantee,
            row.switch_id,
            row.error,
        ),
        (
            row.id,
            row.at_us,
            row.key_id,
            row.total_ms,
            row.upstream_ms,
            row.first_byte_ms,
            row.detail,
        ),
    )


def _row(row: Any) -> ExchangeRow:
    return ExchangeRow(**{name: getattr(row, name) for name in _FIELDS})
