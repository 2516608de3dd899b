"""Many rows in few statements, and on SQLite with few values: what many rows share is handed over once.

The driver gets the rows as they are: SQLAlchemy's own work for each row costs more than SQLite's. It gets
many in one statement, because it gives up and takes back the interpreter's lock for each statement, and
whoever has the lock meanwhile is interrupted. SQLite's driver takes a lock, a piece of memory and a copy for
each value that it is given, so values that are the same in all rows of a statement have one number and go
there once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import sqlalchemy as sa

Row = tuple[tuple[Any, ...], tuple[Any, ...]]
"""The values of the shared columns, and those of the row's own."""

_AT_ONCE = (128, 32, 8, 1)
_FEW = 8


class Layout:
    """How rows of a table come: those columns first that many rows share, in the order of the table both.

    Args:
        table: the table.
        own: the columns whose values differ from row to row; None: all of them.
    """

    def __init__(self, table: sa.Table, *, own: Sequence[str] | None = None) -> None:
        self.table = table
        self.shared = [] if own is None else [one for one in table.columns if one.name not in own]
        self.own = [one for one in table.columns if own is None or one.name in own]
        self._statements: dict[tuple[str, int, bool], str] = {}

    def statement(self, connection: sa.Connection, count: int, *, is_shared: bool) -> str:
        """The statement that inserts so many rows; a row whose key is there stays.

        On SQLite a row that is refused undoes the whole transaction, which the error ends anyway: so it keeps
        no journal for each statement.
        """
        key = (connection.dialect.name, count, is_shared)
        made = self._statements.get(key)
        if made is None:
            quote = connection.dialect.identifier_preparer.quote
            columns = [*self.shared, *self.own]
            names = ", ".join(quote(column.name) for column in columns)
            if is_shared:
                rows = _numbered(len(self.shared), len(self.own), count)
            else:
                rows = ", ".join([f"({', '.join(_sign(connection, one) for one in columns)})"] * count)
            insert = "INSERT OR ROLLBACK" if connection.dialect.name == "sqlite" else "INSERT"
            made = f"{insert} INTO {quote(self.table.name)} ({names}) VALUES {rows} ON CONFLICT DO NOTHING"
            self._statements[key] = made
        return made


def _numbered(shared: int, own: int, count: int) -> str:
    """The values of so many rows, where the first `shared` numbers are those of every row."""
    start = "".join(f"?{number}, " for number in range(1, shared + 1))
    firsts = range(shared + 1, shared + 1 + own * count, own)
    return ", ".join(
        f"({start}{', '.join(f'?{number}' for number in range(first, first + own))})" for first in firsts
    )


def _sign(connection: sa.Connection, column: sa.Column[Any]) -> str:
    """Where a value goes. A boolean may come as 0 or 1: Python's driver of SQLite is slow with real ones."""
    if connection.dialect.name == "sqlite":
        return "?"
    return "CAST(%s AS integer)::boolean" if isinstance(column.type, sa.Boolean) else "%s"


def insert_new_rows(connection: sa.Connection, layout: Layout, rows: Iterable[Row]) -> None:
    """Insert many rows; one whose key is there stays. Rows that share values need not stand together."""
    groups: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for shared, own in rows:
        groups.setdefault(shared, []).append(own)
    left: list[tuple[Any, ...]] = []
    for shared, group in groups.items():
        done = 0
        if shared and connection.dialect.name == "sqlite":
            done = _insert(connection, layout, group, shared=shared)
        left += [shared + own for own in group[done:]]
    _insert(connection, layout, left)


def _insert(
    connection: sa.Connection,
    layout: Layout,
    rows: Sequence[tuple[Any, ...]],
    *,
    shared: tuple[Any, ...] | None = None,
) -> int:
    """Insert rows, of those that share values only as many as are worth a statement; how many it were."""
    done = 0
    for count in _AT_ONCE:
        if shared is not None and count < _FEW:
            break
        while len(rows) - done >= count:
            values = chain.from_iterable(rows[done : done + count])
            connection.exec_driver_sql(
                layout.statement(connection, count, is_shared=shared is not None), (*(shared or ()), *values)
            )
            done += count
    return done
