"""A database of records: SQLite in a file by default, PostgreSQL by address, always at the newest version.

SQLAlchemy loads when a database is opened, not before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stanchion.core.errors import UnavailableError

if TYPE_CHECKING:
    import sqlalchemy as sa

LOCK_WAIT_S = 10.0


class Database:
    """Transactions on one database; made by `open_database`. Threads may share it, forks may not."""

    def __init__(self, engine: sa.Engine, *, is_read_only: bool) -> None:
        self._engine = engine
        self.is_read_only = is_read_only
        self._is_checked = False
        self._checking = threading.Lock()
        self._checker = 0

    def check(self) -> None:
        """See that it is there and at the newest version; until that was so, every transaction asks first.

        Raises:
            UnavailableError: when it cannot be reached, or is newer than this code.
        """
        from stanchion.store.schema_version import is_at_newest_file

        with self._checking:
            if self._is_checked:
                return
            self._checker = threading.get_ident()
            try:
                with self.read() as connection:
                    is_newest = is_at_newest_file(connection)
                if not is_newest:
                    _migrate(self)
                self._is_checked = True
            finally:
                self._checker = 0

    @property
    def dialect(self) -> Literal["sqlite", "postgresql"]:
        """Which of the two it is."""
        return "sqlite" if self._engine.dialect.name == "sqlite" else "postgresql"

    @property
    def where(self) -> str:
        """The database for people, without its password."""
        url = self._engine.url
        if self.dialect == "sqlite":
            return f"the SQLite database {url.database}"
        host = url.host or url.query.get("host") or "local socket"
        return f"the PostgreSQL database {url.database or 'postgres'!r} at {host}"

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that may write: all of it at the end of the block, or nothing.

        Raises:
            UnavailableError: locked, full, unreachable.
            IntegrityError: damaged, or a rule of the records was broken.
        """
        with self._transaction(is_write=True) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads; on SQLite it sees one moment, on PostgreSQL one per statement."""
        with self._transaction(is_write=False) as connection:
            yield connection

    @contextmanager
    def _transaction(self, *, is_write: bool) -> Iterator[sa.Connection]:
        from sqlalchemy.exc import SQLAlchemyError

        from stanchion.store.failures import translate

        if not self._is_checked and self._checker != threading.get_ident():
            self.check()
        try:
            with (
                self._engine.connect().execution_options(stanchion_write=is_write) as connection,
                connection.begin(),
            ):
                yield connection
        except SQLAlchemyError as error:
            raise translate(error, where=self.where) from None  # the chain would print statement and address

    def forget_deleted(self) -> None:
        """Let deleted rows go from SQLite's side file too; PostgreSQL does so in its own vacuum."""
        import sqlite3

        from sqlalchemy.exc import SQLAlchemyError

        from stanchion.store.failures import translate

        if self.dialect != "sqlite" or self.is_read_only:
            return
        try:
            with closing(self._engine.raw_connection()) as raw, closing(raw.cursor()) as cursor:
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise translate(error, where=self.where) from None

    def close(self) -> None:
        """Let go of every connection; safe to call twice."""
        self._engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_database(
    url: str | Path, *, is_read_only: bool = False, lock_wait_s: float = LOCK_WAIT_S, waits: bool = False
) -> Database:
    """Open the database at `sqlite:///path`, `postgresql://...` or a plain path; migrate it if it is behind.

    A SQLite file and its folder are made when absent, readable by their owner only. A read-only database is
    not made and not migrated. `lock_wait_s` is how long a writer waits for another one. With `waits` one that
    does not answer is no error here: each transaction tries again to reach and migrate it.

    Raises:
        UsageError: for an address that cannot be used, or a missing file when read-only.
        MissingExtraError: for PostgreSQL without its driver.
        UnavailableError: when it cannot be reached, or is newer than this code.
        IntegrityError: when the file is damaged.
    """
    from stanchion.store.engine import make_engine

    address = f"sqlite:///{url}" if isinstance(url, Path) or "://" not in url else url
    engine = make_engine(address, is_read_only=is_read_only, lock_wait_s=lock_wait_s)
    database = Database(engine, is_read_only=is_read_only)
    try:
        database.check()
    except UnavailableError:
        if not waits:
            database.close()
            raise
    except BaseException:
        database.close()
        raise
    return database


def _migrate(database: Database) -> None:
    from stanchion.store.migrate import check_version, upgrade

    if database.is_read_only:
        with database.read() as connection:
            check_version(connection, where=database.where)
    else:
        with database.write() as connection:
            upgrade(connection, where=database.where)
