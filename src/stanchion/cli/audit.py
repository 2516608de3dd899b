"""`stanchion audit`: verify and read the append-only record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stanchion.cli.output import FormatOption, OutputFormat, counted, print_json
from stanchion.core.clock import SystemClock
from stanchion.core.errors import ExitCode

if TYPE_CHECKING:
    from stanchion.store.database import Database

app = typer.Typer(help="Verify and read the audit log.", rich_markup_mode=None, add_completion=False)

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="`sqlite:///path` or `postgresql://...`. Default: the setting `store_url`.",
    ),
]


@app.callback()
def audit() -> None:
    """Verify and read the audit log.

    Example:
        stanchion audit verify
    """


@app.command()
def verify(
    ctx: typer.Context,
    database: DatabaseOption = None,
    expect_head: Annotated[
        str | None,
        typer.Option(
            "--expect-head",
            metavar="NUMBER:DIGEST",
            help="A head printed earlier and kept elsewhere: without it, a cut at the end cannot be seen.",
        ),
    ] = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Check every entry of the audit log; exit 1 and the first broken entry if one does not hold.

    Example:
        stanchion audit verify --database sqlite:///records.db
    """
    from stanchion.store.audit_chain import Head
    from stanchion.store.audit_verify import verify as verify_log

    head = None if expect_head is None else Head.parse(expect_head)
    with _open(ctx, database) as opened:
        found = verify_log(opened, expected_head=head)
    if output_format is OutputFormat.JSON:
        print_json({"intact": found.is_intact, "expected_head": expect_head, "verification": found})
    elif found.broken is None:
        erased = counted(found.erased, "payload")
        typer.echo(f"intact: {_entries(found.entries)}, {erased} erased on record")
        typer.echo(f"head:   {found.head}")
        if head is None:
            typer.echo("A cut at the end shows only against a head kept elsewhere (--expect-head).")
    else:
        typer.echo(f"broken: entry {found.broken.sequence} {found.broken.reason}")
        typer.echo(f"Intact before it: {_entries(found.entries)}.")
    if not found.is_intact:
        raise typer.Exit(ExitCode.FOUND)


@app.command("list")
def list_entries(
    ctx: typer.Context,
    database: DatabaseOption = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only entries of this kind.")] = None,
    after: Annotated[int, typer.Option("--after", min=0, help="Start behind this entry.")] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 50,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Print entries of the audit log in order; `--format json` prints their payloads too.

    Example:
        stanchion audit list --database sqlite:///records.db --limit 10
    """
    from stanchion.store.audit_log import AuditLog

    with _open(ctx, database) as opened:
        entries = AuditLog(opened, clock=SystemClock()).entries(after=after, kind=kind, limit=limit)
    if output_format is OutputFormat.JSON:
        print_json(entries)
        return
    for entry in entries:
        erased = "  (payload erased)" if entry.payload is None else ""
        at = entry.at.isoformat(timespec="seconds")
        typer.echo(f"{entry.sequence:>8}  {at}  {entry.kind}  {entry.actor}{erased}")


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number:,} entries"


def _open(ctx: typer.Context, url: str | None) -> Database:
    """The database, for reading only: checking a record must not change it."""
    from stanchion.config import load_settings
    from stanchion.store.database import open_database

    chosen = url if url is not None else load_settings(file=ctx.obj).store_url.reveal()
    return open_database(chosen, is_read_only=True)
