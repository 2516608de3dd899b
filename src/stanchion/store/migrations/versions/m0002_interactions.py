"""Interaction records with their redacted texts, tombstones of the deleted ones, and legal holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT_COLUMNS_BEFORE = (
    "environment",
    "feature",
    "traffic",
    "session_id",
    "tenant_key",
    "subject_key",
    "model",
    "components",
    "components_digest",
    "prompt_digest",
    "policy_digest",
    "effect",
)


def upgrade() -> None:
    """Make the tables."""
    _create_interactions()
    op.create_table(
        "interaction_texts",
        sa.Column(
            "interaction_id", sa.Text, sa.ForeignKey("interactions.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("at_us", _BIG, nullable=False),
        sa.Column("redacted_by", sa.Text, nullable=False),
        sa.Column("parts", sa.Text, nullable=False),
    )
    op.create_index("ix_interaction_texts_at", "interaction_texts", ["at_us"])
    op.create_table(
        "interaction_tombstones",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("erased_at_us", _BIG, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("erased_by", _BIG, sa.ForeignKey("audit_entries.sequence"), nullable=False),
    )
    op.create_table(
        "legal_holds",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("placed_at_us", _BIG, nullable=False),
        sa.Column("placed_by", _BIG, sa.ForeignKey("audit_entries.sequence"), nullable=False),
        sa.Column("released_at_us", _BIG),
        sa.Column("released_by", _BIG, sa.ForeignKey("audit_entries.sequence")),
    )


def _create_interactions() -> None:
    op.create_table(
        "interactions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at_us", _BIG, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in _TEXT_COLUMNS_BEFORE),
        sa.Column("is_protected", sa.Boolean, nullable=False),
        sa.Column("finding_count", _BIG, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("categories", "decisions", "finish_reason")),
        *(sa.Column(name, _BIG) for name in ("input_tokens", "cached_input_tokens", "output_tokens")),
        *(sa.Column(name, sa.Double) for name in ("cost_usd", "latency_ms", "guard_ms")),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("is_replayable", sa.Boolean, nullable=False),
        sa.Column("replay_note", sa.Text, nullable=False),
    )
    op.create_index("ix_interactions_at", "interactions", ["at_us", "id"])
    op.create_index("ix_interactions_feature", "interactions", ["feature", "at_us", "id"])
    op.create_index("ix_interactions_session", "interactions", ["session_id"])
    op.create_index("ix_interactions_subject", "interactions", ["subject_key"])
