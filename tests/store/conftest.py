"""Every test of the store runs on SQLite and on a real PostgreSQL."""

from collections.abc import Iterator

import pytest

from stanchion.core.clock import CountingIds, ManualClock
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import Database, open_database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request, tmp_path) -> Iterator[str]:
    """The address of a fresh, empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'records.db'}"
        return
    server = request.getfixturevalue("postgres_server")
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def database(database_url) -> Iterator[Database]:
    with open_database(database_url) as opened:
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
