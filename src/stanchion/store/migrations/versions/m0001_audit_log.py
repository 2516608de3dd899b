"""The audit log: entries that never change, payloads that only an entry of the log can erase."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from stanchion.store.migrations.append_only import create_guards

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ERASED = "EXISTS (SELECT 1 FROM audit_erasures WHERE audit_erasures.sequence = OLD.sequence)"


def upgrade() -> None:
    """Make the tables, then the triggers that guard them."""
    op.create_table(
        "audit_entries",
        sa.Column("sequence", _BIG, primary_key=True, autoincrement=False),
        sa.Column("at_us", _BIG, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("payload_digest", sa.Text, nullable=False),
        sa.Column("previous", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
    )
    op.create_index("ix_audit_entries_kind", "audit_entries", ["kind", "sequence"])
    op.create_table(
        "audit_payloads",
        sa.Column(
            "sequence", _BIG, sa.ForeignKey("audit_entries.sequence"), primary_key=True, autoincrement=False
        ),
        sa.Column("salt", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("subject_key", sa.Text, nullable=False, server_default=""),
    )
    op.create_index("ix_audit_payloads_subject", "audit_payloads", ["subject_key"])
    op.create_table(
        "audit_erasures",
        sa.Column(
            "sequence", _BIG, sa.ForeignKey("audit_entries.sequence"), primary_key=True, autoincrement=False
        ),
        sa.Column("erased_by", _BIG, sa.ForeignKey("audit_entries.sequence"), nullable=False),
    )
    create_guards("audit_entries")
    create_guards("audit_erasures")
    create_guards("audit_payloads", delete_allowed_if=_ERASED)
