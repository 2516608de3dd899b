"""Numbered migrations, run in one transaction: a database is at a version or it is untouched.

Alembic keeps the order and the version table; its command line and its `env.py` are not needed, because
migrations are written by hand and run from here.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory

from stanchion.core.errors import UnavailableError
from stanchion.store.schema_version import VERSION_TABLE

_FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x5354_4E01  # any constant of ours; held for the transaction


def newest_version() -> str:
    """The version this code needs."""
    head = _scripts().get_current_head()
    assert head is not None  # noqa: S101 - the package ships at least one migration
    return head


def current_version(connection: sa.Connection) -> str | None:
    """The version a database is at; None when it has never been migrated."""
    return MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE}
    ).get_current_revision()


def is_newest(connection: sa.Connection) -> bool:
    """Whether a database needs no migration."""
    return current_version(connection) == newest_version()


def upgrade(connection: sa.Connection, *, where: str) -> None:
    """Bring a database to the newest version, inside the caller's transaction; others who do the same wait.

    Raises:
        UnavailableError: when the database is newer than this code, which must then not touch it.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    scripts = _scripts()
    current = current_version(connection)
    _check_known(current, scripts, where=where)
    target = newest_version()
    if current == target:
        return

    def steps(revision: object, context: MigrationContext) -> list[RevisionStep]:
        return scripts._upgrade_revs(target, current or "base")

    with EnvironmentContext(Config(), scripts, fn=steps) as environment:
        environment.configure(connection=connection, version_table=VERSION_TABLE)
        with environment.begin_transaction():
            environment.run_migrations()


def check_version(connection: sa.Connection, *, where: str) -> None:
    """Raise UnavailableError unless a database is exactly at the version this code needs."""
    current = current_version(connection)
    _check_known(current, _scripts(), where=where)
    if current != newest_version():
        raise UnavailableError(
            f"{where} is at version {current or 'none'}, and this Stanchion needs {newest_version()}.",
            hint="Open it once for writing to migrate it; it was opened for reading only.",
            is_retryable=False,
        )


def _check_known(current: str | None, scripts: ScriptDirectory, *, where: str) -> None:
    known = [script.revision for script in scripts.walk_revisions()]
    if current is not None and current not in known:
        raise UnavailableError(
            f"{where} is at version {current}, newer than this Stanchion, which knows up to {known[0]}.",
            hint="Use the Stanchion that wrote it, or a later one.",
            is_retryable=False,
        )


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(_FOLDER, version_locations=[_FOLDER / "versions"])
