"""Every test of the store runs on SQLite and on a real PostgreSQL."""

from collections.abc import Iterator

import pytest

from stanchion.core.clock import CountingIds, ManualClock
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import Database, open_database
from stanchion.store.tables import metadata


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def backend(request) -> str:
    return request.param


@pytest.fixture
def database_url(request, backend, tmp_path) -> Iterator[str]:
    """The address of a fresh, empty database."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'records.db'}"
        return
    server = request.getfixturevalue("postgres_server")
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server) -> str:
    """One migrated database, emptied before each test: much quicker than a database a test."""
    url = postgres_server.new_database()
    open_database(url).close()
    return url


def empty_postgres(url: str) -> None:
    """Take all rows out, past the triggers that refuse it, and put every trigger back."""
    import psycopg

    tables = ", ".join(metadata.tables)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(f"TRUNCATE {tables}")
        for table in metadata.tables:
            connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER ALL")


@pytest.fixture
def database(request, backend, tmp_path) -> Iterator[Database]:
    """An empty, migrated database."""
    if backend == "sqlite":
        with open_database(tmp_path / "records.db") as opened:
            yield opened
        return
    url = request.getfixturevalue("migrated_postgres")
    empty_postgres(url)
    with open_database(url) as opened:
        yield opened


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ids() -> CountingIds:
    return CountingIds()


@pytest.fixture
def log(database, clock) -> AuditLog:
    return AuditLog(database, clock=clock)
