"""Which version a database is at, told without Alembic: loading that takes longer than most commands run."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import sqlalchemy as sa

VERSION_TABLE = "stanchion_schema"
_VERSIONS = Path(__file__).parent / "migrations" / "versions"
_FILE = re.compile(r"m(\d{4})_\w+\.py")


@lru_cache(maxsize=1)
def newest_file() -> str:
    """The number of the last migration file, which is the version this code needs."""
    return max(found[1] for file in _VERSIONS.iterdir() if (found := _FILE.fullmatch(file.name)))


def is_at_newest_file(connection: sa.Connection) -> bool:
    """Whether the database says that it is at that version; False also where nothing can be told."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return False
    table = sa.table(VERSION_TABLE, sa.column("version_num"))
    return connection.execute(sa.select(table.c.version_num)).scalars().all() == [newest_file()]
