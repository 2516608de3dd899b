"""Limits, rollouts, prompts, approvals and feedback of the gateway."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    _create_limits()
    _create_rollouts()
    _create_prompts()
    _create_approvals()
    _create_feedback()


def _create_limits() -> None:
    op.create_table(
        "budget_periods",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("spent", _BIG, nullable=False),
        sa.Column("granted", _BIG, nullable=False),
    )
    op.create_table(
        "budget_slices",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("amount", _BIG, nullable=False),
        sa.Column("spent", _BIG, nullable=False),
        sa.Column("expires_at_us", _BIG, nullable=False),
    )
    op.create_index("ix_budget_slices_period", "budget_slices", ["name", "scope", "period"])
    op.create_index("ix_budget_slices_expires", "budget_slices", ["expires_at_us"])
    op.create_table(
        "caller_penalties",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("until_us", _BIG, nullable=False),
        sa.Column("blocks", _BIG, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("set_by", sa.Text, nullable=False),
        sa.Column("at_us", _BIG, nullable=False),
    )


def _create_rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("experiment", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("revision", _BIG, nullable=False),
        sa.Column("at_us", _BIG, nullable=False),
        sa.Column("set_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "rollout_counts",
        sa.Column("experiment", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("step", _BIG, primary_key=True, autoincrement=False),
        sa.Column("variant", sa.Text, primary_key=True),
        sa.Column("metric", sa.Text, primary_key=True),
        sa.Column("hits", _BIG, nullable=False),
        sa.Column("cases", _BIG, nullable=False),
    )


def _create_prompts() -> None:
    op.create_table(
        "prompts",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("version", _BIG, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
        sa.Column("at_us", _BIG, nullable=False),
        sa.Column("added_by", sa.Text, nullable=False),
    )
    op.create_table(
        "prompt_labels",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("label", sa.Text, primary_key=True),
        sa.Column("version", _BIG, nullable=False),
        sa.Column("at_us", _BIG, nullable=False),
        sa.Column("set_by", sa.Text, nullable=False),
    )


def _create_approvals() -> None:
    op.create_table(
        "approvals",
        sa.Column("ticket", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("feature", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("user_key", sa.Text, nullable=False),
        sa.Column("surface", sa.Text, nullable=False),
        sa.Column("rule_ids", sa.Text, nullable=False),
        sa.Column("policy_digest", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("subject_digest", sa.Text, nullable=False),
        sa.Column("created_at_us", _BIG, nullable=False),
        sa.Column("expires_at_us", _BIG, nullable=False),
        sa.Column("decided_at_us", _BIG),
        sa.Column("decided_by", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("notified_at_us", _BIG),
        sa.Column("redeemed", _BIG, nullable=False),
    )
    op.create_index("ix_approvals_status", "approvals", ["status", "created_at_us"])


def _create_feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at_us", _BIG, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("interaction_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("feature", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("components_digest", sa.Text, nullable=False),
        sa.Column("policy_digest", sa.Text, nullable=False),
        sa.Column("effect", sa.Text, nullable=False),
    )
    op.create_index("ix_feedback_status", "feedback", ["status", "at_us"])
    op.create_index("ix_feedback_reference", "feedback", ["reference"])
