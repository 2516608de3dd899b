"""What a database says when it fails, as one error of our tree.

The statement, its parameters and the driver's own message may hold records or a password; none of them is
repeated. What is told is the kind of failure, the database without its password, and what to do.
"""

from __future__ import annotations

import sqlite3

from stanchion.core.errors import IntegrityError, StanchionError, UnavailableError

_SQLITE: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_BUSY: (
        "stayed locked by another process",
        "Try again, end the other process, or use PostgreSQL for many writers.",
    ),
    sqlite3.SQLITE_LOCKED: ("stayed locked by another connection", "Try again."),
    sqlite3.SQLITE_FULL: ("is full: no space is left", "Free some space; nothing was half-written."),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "Check the disk; nothing was half-written."),
    sqlite3.SQLITE_READONLY: ("cannot be written", "Check the rights of the file and its folder."),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "Check that the file exists and may be read."),
}
_SQLITE_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

# by the first two characters of PostgreSQL's SQLSTATE (PostgreSQL documentation, appendix A)
_POSTGRESQL: dict[str, tuple[str, str]] = {
    "08": ("did not answer", "Check that the server runs and can be reached."),
    "25": ("cannot be written", "It is opened for reading only, or is a standby."),
    "28": ("refused the login", "Check the user, the password and pg_hba.conf."),
    "3D": ("does not exist", "Create it: createdb NAME."),
    "40": ("gave up on a conflict with another transaction", "Try again."),
    "42": ("refused the statement", "Check the user's rights on the schema."),
    "53": ("has no space, memory or connection left", "Free some; nothing was half-written."),
    "55": ("stayed locked by another session", "Try again."),
    "57": ("is shutting down or cancelled the statement", "Try again when it is up."),
}


def translate(error: Exception, *, where: str) -> StanchionError:
    """The error of our tree for a failure, SQLAlchemy's or the driver's, of the database named `where`."""
    cause = getattr(error, "orig", error)
    if isinstance(cause, sqlite3.Error):
        return _from_sqlite(cause, where=where)
    state = getattr(cause, "sqlstate", None)
    if isinstance(state, str):
        return _from_postgresql(state, where=where)
    if type(cause).__module__.startswith("psycopg"):
        return _from_connecting(str(cause), where=where)
    return _unavailable(where, f"failed ({type(error).__name__})", "See the database's own log.")


def _from_sqlite(cause: sqlite3.Error, *, where: str) -> StanchionError:
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one
    if code in _SQLITE_DAMAGED:
        return _damaged(where)
    if code == sqlite3.SQLITE_CONSTRAINT:
        return _constraint(where)
    if code in _SQLITE:
        return _unavailable(where, *_SQLITE[code])
    name = getattr(cause, "sqlite_errorname", type(cause).__name__)
    return _unavailable(where, f"failed ({name})", "Check that the file is one of Stanchion's.")


def _from_postgresql(state: str, *, where: str) -> StanchionError:
    if state in ("XX001", "XX002"):
        return _damaged(where)
    if state[:2] == "23":
        return _constraint(where)
    what, hint = _POSTGRESQL.get(state[:2], (f"failed (SQLSTATE {state})", "See the server's log."))
    return _unavailable(where, what, hint)


def _from_connecting(message: str, *, where: str) -> StanchionError:
    """A failure to connect carries no SQLSTATE; a server that answered at all says FATAL."""
    if "FATAL" in message:
        return _unavailable(
            where,
            "refused the connection",
            "Check the names of database and user, the password and pg_hba.conf.",
        )
    return _unavailable(where, *_POSTGRESQL["08"])


def _damaged(where: str) -> IntegrityError:
    return IntegrityError(
        f"{where} is damaged or is no database.", hint="Keep a copy for forensics, then restore a backup."
    )


def _constraint(where: str) -> IntegrityError:
    return IntegrityError(
        f"{where} refused a change that would break a rule of the records (append-only, unique or linked).",
        hint="Nothing was written.",
    )


def _unavailable(where: str, what: str, hint: str) -> UnavailableError:
    return UnavailableError(f"{where} {what}.", hint=hint)
