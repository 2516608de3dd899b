"""Indexes of records without the rows that nearly all are; decisions are JSON arrays from here on.

What was written before stays as it is and is read as well (`store.kept_decisions`): an older release cannot
read the new rows, and this number keeps it out.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_INDEXES = (
    ("ix_interactions_session", "interactions", ["session_id"], "session_id <> ''"),
    ("ix_interactions_subject", "interactions", ["subject_key"], "subject_key <> ''"),
    ("ix_exchanges_outcome", "exchanges", ["outcome", "at_us"], "outcome <> 'allowed'"),
)


def upgrade() -> None:
    """Make the indexes anew."""
    for name, table, columns, some in _INDEXES:
        op.drop_index(name, table_name=table)
        op.create_index(name, table, columns, sqlite_where=sa.text(some), postgresql_where=sa.text(some))
