"""SQLAlchemy engines for the two databases, each set up for records that must not be lost.

SQLite: WAL, so that readers never wait for the writer; `synchronous = FULL`, because with NORMAL the last
commits of a WAL database are lost when the power fails, and an audit log may not forget what it has answered
for; `secure_delete`, so that erased text does not stay in free pages; `temp_store = MEMORY`, so that neither
rows nor what is needed to undo a statement go to files beside the database; pages of 16 KiB in a new file,
because each page is a system call on its way to the log and two on its way into the file. Every write
transaction begins IMMEDIATE: two writers queue at the start, where waiting is possible, and never fail
halfway.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from stanchion.core.errors import MissingExtraError, UsageError

CONNECT_WAIT_S = 5
_PAGE_BYTES = 16_384  # of a new file; one that is there keeps its own
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


def make_engine(url: str, *, is_read_only: bool, lock_wait_s: float) -> sa.Engine:
    """An engine for `sqlite:///path` or `postgresql://...`; connects to nothing yet.

    Raises:
        UsageError: for another database, an address that cannot be read, or SQLite without a file.
        MissingExtraError: for PostgreSQL without its driver.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, is_read_only=is_read_only, lock_wait_s=lock_wait_s)
    if parsed.get_backend_name() == "postgresql":
        return _postgresql(parsed, is_read_only=is_read_only, lock_wait_s=lock_wait_s)
    raise UsageError(
        f"the database {parsed.get_backend_name()!r} is not supported.",
        hint="Use sqlite:///path/to/file.db or postgresql://user@host/name.",
    )


def _parse(url: str) -> sa.URL:
    scheme, separator, rest = url.partition("://")
    try:
        return sa.make_url(f"{_DRIVERS.get(scheme, scheme)}{separator}{rest}")
    except (sa.exc.ArgumentError, ValueError):
        raise UsageError(
            "the address of the database cannot be read.",
            hint="Use sqlite:///path/to/file.db or postgresql://user@host/name.",
        ) from None  # the cause would print the address, password included


def _sqlite(url: sa.URL, *, is_read_only: bool, lock_wait_s: float) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise UsageError(
            "a SQLite database needs a file; one in memory would lose the records.",
            hint="Use sqlite:///path/to/file.db.",
        )
    path = Path(url.database)
    if is_read_only and not path.is_file():
        raise UsageError(f"there is no database at {path}.", hint="Check the path, or write to it first.")
    if not is_read_only:
        _create_private_file(path)
    engine = sa.create_engine(
        url, hide_parameters=True, pool_size=4, max_overflow=12, connect_args={"timeout": lock_wait_s}
    )

    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        settings = [
            "foreign_keys = ON",
            "recursive_triggers = ON",
            "secure_delete = ON",
            "synchronous = FULL",
            "temp_store = MEMORY",
        ]
        if is_read_only:
            settings += ["query_only = ON"]
        else:
            settings += [f"page_size = {_PAGE_BYTES}", "journal_mode = WAL"]
        for setting in settings:
            _set(connection, setting)

    def on_begin(connection: sa.Connection) -> None:
        is_write = connection.get_execution_options().get("stanchion_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", on_begin)
    return engine


def _set(connection: Any, setting: str) -> None:
    import sqlite3

    try:
        connection.execute(f"PRAGMA {setting}").close()
    except UnicodeDecodeError:  # SQLite's message repeats what stands in a damaged schema
        damaged = sqlite3.DatabaseError("the schema is damaged")
        damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damaged from None


def _create_private_file(path: Path) -> None:
    """Make the file readable by its owner only; SQLite gives its side files the same mode.

    A file that is there is not opened: closing it again would drop every lock that this process holds on it
    (fcntl(2)), and another process would take the write-ahead log for nobody's and delete it, with the
    commits of this one (sqlite.org/howtocorrupt.html, section 2.2).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            with contextlib.suppress(FileExistsError):  # somebody else made it meanwhile
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise UsageError(
            f"the database {path} cannot be made: {error.strerror}.", hint="Check the folder and its rights."
        ) from error


def _postgresql(url: sa.URL, *, is_read_only: bool, lock_wait_s: float) -> sa.Engine:
    milliseconds = round(lock_wait_s * 1000)
    options = f"-c lock_timeout={milliseconds} -c timezone=UTC"
    if is_read_only:
        options += " -c default_transaction_read_only=on"
    try:
        return sa.create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_size=4,
            max_overflow=12,
            connect_args={"connect_timeout": CONNECT_WAIT_S, "options": options},
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError("PostgreSQL", "postgres") from error
