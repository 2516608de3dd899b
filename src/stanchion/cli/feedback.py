"""`stanchion feedback`: what users said of answers, joined with the decisions."""

from __future__ import annotations

from typing import Annotated

import typer

from stanchion.cli.acting import DatabaseOption, admin_plane
from stanchion.cli.output import FormatOption, OutputFormat, print_json
from stanchion.store.times import from_us

app = typer.Typer(help="Show what users said of answers.", rich_markup_mode=None, add_completion=False)


@app.callback()
def feedback() -> None:
    """Show what users said of answers.

    Example:
        stanchion feedback list
    """


@app.command("list")
def list_reports(
    ctx: typer.Context,
    status: Annotated[str, typer.Option("--status", help="new, unmatched, labelled or dropped.")] = "new",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 50,
    database: DatabaseOption = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """List reports, the oldest first: `new` is the queue for triage, each with its request.

    Example:
        stanchion feedback list --status unmatched
    """
    from stanchion.core.errors import UnknownNameError
    from stanchion.gateway.feedback import FeedbackSection, FeedbackStatus, make_feedback

    if status not in set(FeedbackStatus):
        raise UnknownNameError("status", status, [one.value for one in FeedbackStatus])
    with admin_plane(ctx, database) as plane:
        desk = make_feedback(FeedbackSection(), plane.database, clock=plane.clock, ids=plane.ids)
        found = desk.queue(status=FeedbackStatus(status), limit=limit)
    if output_format is OutputFormat.JSON:
        print_json(found)
        return
    if not found:
        typer.echo("nothing waits" if status == FeedbackStatus.NEW else "none")
    for one in found:
        at = from_us(one.at_us).isoformat(timespec="seconds")
        joined = one.interaction_id or f"{one.reference} (not found yet)"
        typer.echo(f"{at}  {one.kind.value:<15} {joined}  {one.feature or '-'}  decided: {one.effect or '-'}")
        if one.comment:
            typer.echo(f"    {''.join(c if c.isprintable() else ' ' for c in one.comment)}")
