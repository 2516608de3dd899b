"""What the gateway knows of a request beyond its interaction record: how, where and why it ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXTS = ("surface", "outcome", "stage", "feature", "environment", "key_id", "model", "provider")
_MORE_TEXTS = ("guard_state", "guarantee", "switch_id", "error", "detail")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "exchanges",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at_us", _BIG, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in _TEXTS),
        sa.Column("status", _BIG, nullable=False),
        sa.Column("is_stream", sa.Boolean, nullable=False),
        sa.Column("did_not_run", _BIG, nullable=False),
        *(sa.Column(name, sa.Double) for name in ("total_ms", "upstream_ms", "first_byte_ms")),
        *(sa.Column(name, sa.Text, nullable=False) for name in _MORE_TEXTS),
    )
    op.create_index("ix_exchanges_at", "exchanges", ["at_us", "id"])
    op.create_index("ix_exchanges_outcome", "exchanges", ["outcome", "at_us"])
