"""The index of a run log: which case lies where. Derived from the segments, and rebuilt from them at need."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stanchion.evals.runlog_segments import Position

_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
  pairing_key TEXT NOT NULL, repeat INTEGER NOT NULL, case_id TEXT NOT NULL, outcome TEXT NOT NULL,
  segment INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
  PRIMARY KEY (pairing_key, repeat)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS superseded (
  segment INTEGER NOT NULL, start INTEGER NOT NULL, PRIMARY KEY (segment, start)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reached (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  segment INTEGER NOT NULL, start INTEGER NOT NULL, head BLOB NOT NULL
);
"""
_REMEMBER = """
INSERT OR IGNORE INTO superseded
SELECT segment, start FROM results WHERE pairing_key = ? AND repeat = ? AND (segment, start) <> (?, ?)
"""
_INSERT = "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?)"
_COLUMNS = "pairing_key, repeat, case_id, outcome, segment, start, length"


class Entry(NamedTuple):
    """One result's place."""

    pairing_key: str
    repeat: int
    case_id: str
    outcome: str
    position: Position


class Reached(NamedTuple):
    """How far the index goes: everything before this byte is in it; `head` is the chain hash there."""

    segment: int
    offset: int
    head: bytes


class RunIndex:
    """SQLite beside the segments; `path` None keeps it in memory (a run on a read-only disk)."""

    def __init__(self, path: Path | None) -> None:
        self._db = sqlite3.connect(":memory:" if path is None else str(path), isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")  # derived data: a lost page is rebuilt
        self._db.executescript(_SCHEMA)

    def add(self, entries: Iterable[Entry], reached: Reached) -> None:
        """Put a batch in, in one transaction; a later result of a key takes the earlier one's place."""
        rows = [(*entry[:4], *entry.position) for entry in entries]
        latest = {(row[0], row[1]): row for row in rows}
        try:
            self._db.execute("BEGIN")
            if len(latest) < len(rows):  # one key twice in the batch
                earlier = [row[4:6] for row in rows if latest[row[0], row[1]] is not row]
                self._db.executemany("INSERT OR IGNORE INTO superseded VALUES (?, ?)", earlier)
            self._db.executemany(_REMEMBER, ((row[0], row[1], row[4], row[5]) for row in rows))
            self._db.executemany(_INSERT, rows)
            self._db.execute("INSERT OR REPLACE INTO reached VALUES (1, ?, ?, ?)", reached)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.rollback()
            raise

    def reached(self) -> Reached | None:
        """How far the index goes; None when it is empty."""
        row = self._db.execute("SELECT segment, start, head FROM reached").fetchone()
        return Reached(*row) if row else None

    def keys(self, *, without: Iterable[str] = ()) -> Iterator[tuple[str, int]]:
        """The keys that have a result, but for those of the given outcomes."""
        left_out = set(without)
        for key, repeat, outcome in self._db.execute("SELECT pairing_key, repeat, outcome FROM results"):
            if outcome not in left_out:
                yield key, repeat

    def find(self, name: str) -> list[Entry]:
        """The results of a case by pairing key or case id, or by an unambiguous beginning of its id."""
        found = self._entries("WHERE pairing_key = ? OR case_id = ? ORDER BY repeat", name, name)
        if found or len(name) < 4:
            return found
        pattern = name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        near = self._entries("WHERE case_id LIKE ? ESCAPE '\\' ORDER BY repeat", pattern)
        return near if len({entry.case_id for entry in near}) == 1 else []

    def entries(self, *, outcomes: Iterable[str] = ()) -> Iterator[Entry]:
        """The current results in the order they were written, all or of the given outcomes."""
        chosen = tuple(outcomes)
        where = f"WHERE outcome IN ({', '.join('?' * len(chosen))})" if chosen else ""
        query = f"SELECT {_COLUMNS} FROM results {where} ORDER BY segment, start"  # noqa: S608 - placeholders only
        for row in self._db.execute(query, chosen):
            yield _entry(row)

    def counts(self) -> dict[str, int]:
        """How many current results each outcome has."""
        return dict(self._db.execute("SELECT outcome, count(*) FROM results GROUP BY outcome").fetchall())

    def superseded(self) -> frozenset[tuple[int, int]]:
        """Segment and offset of every result that a later one replaced."""
        return frozenset(self._db.execute("SELECT segment, start FROM superseded").fetchall())

    def clear(self) -> None:
        """Forget everything, to be rebuilt."""
        for table in ("results", "superseded", "reached"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - three fixed names

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _entries(self, where: str, *values: str) -> list[Entry]:
        query = f"SELECT {_COLUMNS} FROM results {where}"  # noqa: S608 - fixed clauses
        return [_entry(row) for row in self._db.execute(query, values)]


def _entry(row: tuple[Any, ...]) -> Entry:
    key, repeat, case_id, outcome, *position = row
    return Entry(key, repeat, case_id, outcome, Position(*position))


def open_index(path: Path) -> RunIndex:
    """The index at a path; a damaged one is replaced by an empty one, which its owner fills again.

    Where nothing can be written the index is kept in memory.
    """
    try:
        return RunIndex(path)
    except sqlite3.OperationalError:  # a read-only folder, or another process holds it
        return RunIndex(None)
    except sqlite3.DatabaseError:  # not an index
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return RunIndex(path)
