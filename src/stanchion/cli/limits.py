"""`stanchion limits`: who is blocked for a while, and what is left of budgets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from stanchion.cli.acting import AsOption, DatabaseOption, DryRunOption, admin_plane, who
from stanchion.cli.output import FormatOption, OutputFormat, print_json
from stanchion.core.errors import ExitCode
from stanchion.store.times import from_us

if TYPE_CHECKING:
    from stanchion.bootstrap_control import AdminPlane
    from stanchion.gateway.penalties import BlockList

app = typer.Typer(help="See and change who is blocked.", rich_markup_mode=None, add_completion=False)

SubjectArgument = Annotated[str, typer.Argument(help="key:ID, user:KEYED_ID or tenant:KEYED_ID.")]


@app.callback()
def limits() -> None:
    """See and change who is blocked by the gateway's limits.

    Example:
        stanchion limits blocked
    """


@app.command()
def blocked(
    ctx: typer.Context, database: DatabaseOption = None, output_format: FormatOption = OutputFormat.TEXT
) -> None:
    """List who is blocked now, the next to come free first.

    Example:
        stanchion limits blocked
    """
    with _blocks(ctx, database) as (_, blocks):
        found = blocks.entries()
    if output_format is OutputFormat.JSON:
        print_json(found)
        return
    if not found:
        typer.echo("nobody is blocked")
    for one in found:
        until = from_us(one.until_us).isoformat(timespec="seconds")
        typer.echo(f"{one.subject}  until {until}  by {one.set_by}: {one.reason}")


@app.command()
def block(
    ctx: typer.Context,
    subject: SubjectArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; one line for the record.")],
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, max=365 * 86_400, help="For how long.")
    ] = 3600.0,
    database: DatabaseOption = None,
    person: AsOption = None,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Block a caller for a while; every replica obeys within about a second.

    Example:
        stanchion limits block key:k1 --reason "leaked key" --dry-run
    """
    from stanchion.gateway.actor import Permission

    with _blocks(ctx, database) as (plane, blocks):
        actor = who(plane, person, Permission.CONTAIN, is_containment=True)
        if dry_run:
            typer.echo(f"would block {subject} for {seconds:g} s")
            return
        made = blocks.block(subject, seconds=seconds, reason=reason, by=actor.person)
    if output_format is OutputFormat.JSON:
        print_json(made)
    else:
        typer.echo(f"{subject} is blocked until {from_us(made.until_us).isoformat(timespec='seconds')}")


@app.command()
def unblock(
    ctx: typer.Context,
    subject: SubjectArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; one line for the record.")],
    database: DatabaseOption = None,
    person: AsOption = None,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Take a caller off the block list; exit 1 when it is not on it. Written to the audit log.

    Example:
        stanchion limits unblock key:k1 --reason "rotated"
    """
    from stanchion.gateway.actor import Permission

    with _blocks(ctx, database) as (plane, blocks):
        actor = who(plane, person, Permission.ADMINISTER)
        is_there = any(one.subject == subject for one in blocks.entries())
        if is_there and not dry_run:
            is_there = blocks.unblock(subject, by=actor.person, reason=reason)
    if output_format is OutputFormat.JSON:
        print_json({"subject": subject, "unblocked": is_there and not dry_run, "dry_run": dry_run})
    elif not is_there:
        typer.echo(f"{subject} is not blocked")
    else:
        typer.echo(f"{'would unblock' if dry_run else 'unblocked'} {subject}")
    if not is_there:
        raise typer.Exit(ExitCode.FOUND)


@contextmanager
def _blocks(ctx: typer.Context, url: str | None) -> Iterator[tuple[AdminPlane, BlockList]]:
    from stanchion.gateway.penalties import BlockList

    with admin_plane(ctx, url) as plane:
        yield plane, BlockList(plane.database, clock=plane.clock)
