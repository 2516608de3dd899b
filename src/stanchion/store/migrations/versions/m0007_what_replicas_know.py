"""What each replica says of itself beside what it obeys: its configuration, and the names it knows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; replicas of an older release leave it empty."""
    op.add_column("gateway_replicas", sa.Column("about", sa.Text, nullable=False, server_default="{}"))
