"""The tables as they are today, for queries; what makes them is the numbered files in `migrations/`.

Times are microseconds since 1970 in UTC, JSON columns hold JSON with sorted keys, booleans are real booleans:
the same on SQLite and PostgreSQL. A test compares these definitions with a migrated database on both.
"""

from __future__ import annotations

import sqlalchemy as sa

from stanchion.store.bulk import Layout

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # INTEGER is SQLite's own 64-bit row number

metadata = sa.MetaData()


def insert_if_new(connection: sa.Connection, table: sa.Table) -> sa.Insert:
    """An INSERT that leaves a row alone whose key is there already."""
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects import postgresql  # 30 ms that a command on SQLite need not pay

    return postgresql.insert(table).on_conflict_do_nothing()


def _index_of_some(name: str, *columns: str, where: str) -> sa.Index:
    """An index without the rows that nearly all are: `is_unusual` asks so that it serves.

    `postgresql_where` here would load that dialect into commands that are on SQLite, to check the word.
    """
    return sa.Index(name, *columns, sqlite_where=sa.text(where), info={"where": where})


def is_unusual(column: sa.Column[str], value: str, *, usual: str = "") -> sa.ColumnElement[bool]:
    """That a column has a value, in words from which the index without the usual value is known to serve."""
    return (column == value) & (column != sa.literal(usual, literal_execute=True))


audit_entries = sa.Table(
    "audit_entries",
    metadata,
    sa.Column("sequence", BIG, primary_key=True, autoincrement=False),
    sa.Column("at_us", BIG, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("payload_digest", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Index("ix_audit_entries_kind", "kind", "sequence"),
)

audit_payloads = sa.Table(
    "audit_payloads",
    metadata,
    sa.Column(
        "sequence", BIG, sa.ForeignKey("audit_entries.sequence"), primary_key=True, autoincrement=False
    ),
    sa.Column("salt", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("subject_key", sa.Text, nullable=False, server_default=""),
    sa.Index("ix_audit_payloads_subject", "subject_key"),
)

audit_erasures = sa.Table(
    "audit_erasures",
    metadata,
    sa.Column(
        "sequence", BIG, sa.ForeignKey("audit_entries.sequence"), primary_key=True, autoincrement=False
    ),
    sa.Column("erased_by", BIG, sa.ForeignKey("audit_entries.sequence"), nullable=False),
)

interactions = sa.Table(
    "interactions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("at_us", BIG, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("feature", sa.Text, nullable=False),
    sa.Column("traffic", sa.Text, nullable=False),
    sa.Column("session_id", sa.Text, nullable=False),
    sa.Column("tenant_key", sa.Text, nullable=False),
    sa.Column("subject_key", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("components", sa.Text, nullable=False),
    sa.Column("components_digest", sa.Text, nullable=False),
    sa.Column("prompt_digest", sa.Text, nullable=False),
    sa.Column("policy_digest", sa.Text, nullable=False),
    sa.Column("effect", sa.Text, nullable=False),
    sa.Column("is_protected", sa.Boolean, nullable=False),
    sa.Column("finding_count", BIG, nullable=False),
    sa.Column("categories", sa.Text, nullable=False),
    sa.Column("decisions", sa.Text, nullable=False),
    sa.Column("finish_reason", sa.Text, nullable=False),
    sa.Column("input_tokens", BIG),
    sa.Column("cached_input_tokens", BIG),
    sa.Column("output_tokens", BIG),
    sa.Column("cost_usd", sa.Double),
    sa.Column("latency_ms", sa.Double),
    sa.Column("guard_ms", sa.Double),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("is_replayable", sa.Boolean, nullable=False),
    sa.Column("replay_note", sa.Text, nullable=False),
    sa.Index("ix_interactions_at", "at_us", "id"),
    sa.Index("ix_interactions_feature", "feature", "at_us", "id"),
    _index_of_some("ix_interactions_session", "session_id", where="session_id <> ''"),
    _index_of_some("ix_interactions_subject", "subject_key", where="subject_key <> ''"),
)

interaction_texts = sa.Table(
    "interaction_texts",
    metadata,
    sa.Column(
        "interaction_id", sa.Text, sa.ForeignKey("interactions.id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("at_us", BIG, nullable=False),
    sa.Column("redacted_by", sa.Text, nullable=False),
    sa.Column("parts", sa.Text, nullable=False),
    sa.Index("ix_interaction_texts_at", "at_us"),
)

interaction_tombstones = sa.Table(
    "interaction_tombstones",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("erased_at_us", BIG, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("erased_by", BIG, sa.ForeignKey("audit_entries.sequence"), nullable=False),
)

legal_holds = sa.Table(
    "legal_holds",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("placed_at_us", BIG, nullable=False),
    sa.Column("placed_by", BIG, sa.ForeignKey("audit_entries.sequence"), nullable=False),
    sa.Column("released_at_us", BIG),
    sa.Column("released_by", BIG, sa.ForeignKey("audit_entries.sequence")),
)

control_documents = sa.Table(
    "control_documents",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("version", BIG, primary_key=True, autoincrement=False),
    sa.Column("at_us", BIG, nullable=False),
    sa.Column("envelope", sa.Text, nullable=False),
)

gateway_replicas = sa.Table(
    "gateway_replicas",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", BIG, nullable=False),
    sa.Column("started_at_us", BIG, nullable=False),
    sa.Column("seen_at_us", BIG, nullable=False),
    sa.Column("versions", sa.Text, nullable=False),
    sa.Column("trust", sa.Text, nullable=False),
    sa.Column("is_gone", sa.Boolean, nullable=False),
    sa.Column("about", sa.Text, nullable=False, server_default="{}"),
    sa.Index("ix_gateway_replicas_seen", "seen_at_us"),
)

exchanges = sa.Table(
    "exchanges",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("at_us", BIG, nullable=False),
    sa.Column("surface", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("feature", sa.Text, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("status", BIG, nullable=False),
    sa.Column("is_stream", sa.Boolean, nullable=False),
    sa.Column("did_not_run", BIG, nullable=False),
    sa.Column("total_ms", sa.Double),
    sa.Column("upstream_ms", sa.Double),
    sa.Column("first_byte_ms", sa.Double),
    sa.Column("guard_state", sa.Text, nullable=False),
    sa.Column("guarantee", sa.Text, nullable=False),
    sa.Column("switch_id", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Index("ix_exchanges_at", "at_us", "id"),
    _index_of_some("ix_exchanges_outcome", "outcome", "at_us", where="outcome <> 'allowed'"),
)

budget_periods = sa.Table(
    "budget_periods",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("spent", BIG, nullable=False),
    sa.Column("granted", BIG, nullable=False),
)

budget_slices = sa.Table(
    "budget_slices",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("period", sa.Text, nullable=False),
    sa.Column("amount", BIG, nullable=False),
    sa.Column("spent", BIG, nullable=False),
    sa.Column("expires_at_us", BIG, nullable=False),
    sa.Index("ix_budget_slices_period", "name", "scope", "period"),
    sa.Index("ix_budget_slices_expires", "expires_at_us"),
)

caller_penalties = sa.Table(
    "caller_penalties",
    metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("until_us", BIG, nullable=False),
    sa.Column("blocks", BIG, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("set_by", sa.Text, nullable=False),
    sa.Column("at_us", BIG, nullable=False),
)

rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("experiment", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("definition", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("revision", BIG, nullable=False),
    sa.Column("at_us", BIG, nullable=False),
    sa.Column("set_by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)

rollout_counts = sa.Table(
    "rollout_counts",
    metadata,
    sa.Column("experiment", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("step", BIG, primary_key=True, autoincrement=False),
    sa.Column("variant", sa.Text, primary_key=True),
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("hits", BIG, nullable=False),
    sa.Column("cases", BIG, nullable=False),
)

prompts = sa.Table(
    "prompts",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", BIG, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("envelope", sa.Text, nullable=False),
    sa.Column("at_us", BIG, nullable=False),
    sa.Column("added_by", sa.Text, nullable=False),
)

prompt_labels = sa.Table(
    "prompt_labels",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("label", sa.Text, primary_key=True),
    sa.Column("version", BIG, nullable=False),
    sa.Column("at_us", BIG, nullable=False),
    sa.Column("set_by", sa.Text, nullable=False),
)

approvals = sa.Table(
    "approvals",
    metadata,
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
    sa.Column("created_at_us", BIG, nullable=False),
    sa.Column("expires_at_us", BIG, nullable=False),
    sa.Column("decided_at_us", BIG),
    sa.Column("decided_by", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("notified_at_us", BIG),
    sa.Column("redeemed", BIG, nullable=False),
    sa.Index("ix_approvals_status", "status", "created_at_us"),
)

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("at_us", BIG, nullable=False),
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
    sa.Index("ix_feedback_status", "status", "at_us"),
    sa.Index("ix_feedback_reference", "reference"),
)

# How the rows that a gateway writes all the time come, see `bulk`.
INTERACTION_LAYOUT = Layout(
    interactions,
    own=(
        "id",
        "at_us",
        "session_id",
        "tenant_key",
        "subject_key",
        "decisions",
        "input_tokens",
        "cached_input_tokens",
        "output_tokens",
        "cost_usd",
        "latency_ms",
        "guard_ms",
    ),
)
EXCHANGE_LAYOUT = Layout(
    exchanges, own=("id", "at_us", "key_id", "total_ms", "upstream_ms", "first_byte_ms", "detail")
)
TEXT_LAYOUT = Layout(interaction_texts)
