"""Triggers that refuse to change what is written: a fence against mistakes, not against the database's owner.

Whoever owns the database can drop a trigger; that is what the hash chain and a head kept elsewhere are for.
"""

from __future__ import annotations

from alembic import op


def create_guards(table: str, *, delete_allowed_if: str = "") -> None:
    """Refuse UPDATE and DELETE (TRUNCATE too on PostgreSQL) on a table, save for a DELETE under a condition.

    `table` and the condition are constants of a migration, never input.
    """
    if op.get_bind().dialect.name == "sqlite":
        _create_for_sqlite(table, delete_allowed_if)
    else:
        _create_for_postgresql(table, delete_allowed_if)


def _create_for_sqlite(table: str, delete_allowed_if: str) -> None:
    refuse = f"SELECT RAISE(ABORT, '{table} is append-only')"
    condition = f"WHEN NOT {delete_allowed_if} " if delete_allowed_if else ""
    op.execute(f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} BEGIN {refuse}; END")
    op.execute(f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {condition}BEGIN {refuse}; END")


def _create_for_postgresql(table: str, delete_allowed_if: str) -> None:
    allowed = (
        f"IF TG_OP = 'DELETE' AND {delete_allowed_if} THEN RETURN OLD; END IF; " if delete_allowed_if else ""
    )
    op.execute(
        f"CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {allowed}"
        f"RAISE EXCEPTION '{table} is append-only' USING ERRCODE = 'restrict_violation'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}_refuse()"
    )
    op.execute(
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_refuse()"
    )
