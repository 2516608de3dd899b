"""Signed control documents of the gateway (switches, keys, admission), and the replicas that obey them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from stanchion.store.migrations.append_only import create_guards

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_OLD = (
    "EXISTS (SELECT 1 FROM control_documents AS newer "
    "WHERE newer.kind = OLD.kind AND newer.version >= OLD.version + 200)"
)


def upgrade() -> None:
    """Make the tables; of the documents only those far behind the newest may be deleted."""
    op.create_table(
        "control_documents",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("version", _BIG, primary_key=True, autoincrement=False),
        sa.Column("at_us", _BIG, nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
    )
    create_guards("control_documents", delete_allowed_if=_OLD)
    op.create_table(
        "gateway_replicas",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", _BIG, nullable=False),
        sa.Column("started_at_us", _BIG, nullable=False),
        sa.Column("seen_at_us", _BIG, nullable=False),
        sa.Column("versions", sa.Text, nullable=False),
        sa.Column("trust", sa.Text, nullable=False),
        sa.Column("is_gone", sa.Boolean, nullable=False),
    )
    op.create_index("ix_gateway_replicas_seen", "gateway_replicas", ["seen_at_us"])
