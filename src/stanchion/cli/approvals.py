"""`stanchion approvals`: what waits for a person, and the decision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from stanchion.cli.acting import AsOption, DatabaseOption, DryRunOption, admin_plane, who
from stanchion.cli.output import FormatOption, OutputFormat, note, print_json
from stanchion.store.times import from_us

if TYPE_CHECKING:
    from stanchion.bootstrap_control import AdminPlane
    from stanchion.gateway.actor import Actor
    from stanchion.gateway.approvals import ApprovalQueue

app = typer.Typer(help="Decide about what waits for a person.", rich_markup_mode=None, add_completion=False)

TicketArgument = Annotated[str, typer.Argument(help="The ticket.")]
NoteOption = Annotated[str, typer.Option("--note", help="A line for the client and the record.")]


@app.callback()
def approvals() -> None:
    """Decide about tool calls and answers that wait for a person.

    Example:
        stanchion approvals list
    """


@app.command("list")
def list_tickets(
    ctx: typer.Context,
    status: Annotated[
        str, typer.Option("--status", help="pending, approved, denied, expired, or all.")
    ] = "pending",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 50,
    database: DatabaseOption = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """List tickets, the oldest first.

    Example:
        stanchion approvals list --status all
    """
    from stanchion.core.errors import UnknownNameError

    known = ("pending", "approved", "denied", "expired", "all")
    if status not in known:
        raise UnknownNameError("status", status, known)
    with _queue(ctx, database) as (_, queue):
        found = queue.tickets(status="" if status == "all" else status, limit=limit)
    if output_format is OutputFormat.JSON:
        print_json(found)
        return
    if not found:
        typer.echo("nothing waits" if status == "pending" else "none")
    for one in found:
        until = from_us(one.expires_at_us).isoformat(timespec="seconds")
        who_decided = f" by {one.decided_by}" if one.decided_by else f" until {until}"
        typer.echo(f"{one.ticket}  {one.kind:<9} {one.status}{who_decided}  {one.feature}  {one.reason}")


@app.command()
def show(
    ctx: typer.Context,
    ticket: TicketArgument,
    database: DatabaseOption = None,
    person: AsOption = None,
    reveal: Annotated[
        bool,
        typer.Option("--reveal", help="Show the words themselves. The audit log keeps who looked, and why."),
    ] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why you need the words; with --reveal.")] = "",
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Show a ticket with what it is about, personal data and secrets as their kind and length.

    This opens what is sealed, so it takes an approver; --reveal takes the role revealer or admin.

    Example:
        stanchion approvals show ticket_01jd9q
    """
    from stanchion.bootstrap import make_ticket_views
    from stanchion.gateway.actor import Permission

    with _queue(ctx, database) as (plane, queue):
        views = make_ticket_views(plane.settings, queue, plane.database)
        if reveal:
            actor = _with_role(who(plane, person, Permission.REVEAL), "revealer")
            subject, masked = views.revealed(ticket, by=actor, reason=reason), 0
        else:
            who(plane, person, Permission.APPROVE)
            view = views.masked(ticket)
            subject, masked = view.value, view.masked
        found = queue.get(ticket)
    if output_format is OutputFormat.JSON:
        print_json({"ticket": found, "subject": subject, "masked": masked})
        return
    typer.echo(f"{found.ticket}: {found.kind}, {found.status}")
    typer.echo(
        f"request {found.request_id} of feature {found.feature or '-'}, rules {', '.join(found.rule_ids)}"
    )
    typer.echo(msgspec.json.format(msgspec.json.encode(subject), indent=2).decode())
    if masked:
        note(f"{masked} masked. The words: stanchion approvals show {found.ticket} --reveal --reason ...")
    elif reveal:
        note(f"in the clear; the audit log says that {actor.person} looked")


@app.command()
def approve(
    ctx: typer.Context,
    ticket: TicketArgument,
    note: NoteOption = "",
    database: DatabaseOption = None,
    person: AsOption = None,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Let it go on. A ticket is decided once.

    Example:
        stanchion approvals approve ticket_01jd9q --as ann
    """
    _decide(ctx, database, (ticket, True, note), (person, dry_run), output_format)


@app.command()
def deny(
    ctx: typer.Context,
    ticket: TicketArgument,
    note: NoteOption = "",
    database: DatabaseOption = None,
    person: AsOption = None,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Do not let it go on. So ends a ticket nobody decides, too.

    Example:
        stanchion approvals deny ticket_01jd9q --as ann
    """
    _decide(ctx, database, (ticket, False, note), (person, dry_run), output_format)


def _decide(
    ctx: typer.Context,
    database: str | None,
    what: tuple[str, bool, str],
    said: tuple[str | None, bool],
    output_format: OutputFormat,
) -> None:
    from stanchion.gateway.actor import Permission

    (ticket, is_approval, note), (person, dry_run) = what, said
    with _queue(ctx, database) as (plane, queue):
        actor = who(plane, person, Permission.APPROVE)
        actor = _with_role(actor, "approver")
        if dry_run:
            found = queue.get(ticket)
            verb = "approve" if is_approval else "deny"
            typer.echo(f"would {verb} {ticket}, which is {found.status}")
            return
        done = queue.decide(ticket, approve=is_approval, by=actor, note=note)
    if output_format is OutputFormat.JSON:
        print_json(done)
    else:
        typer.echo(f"{done.ticket} is {done.status}, by {done.decided_by}")


def _with_role(actor: Actor, role: str) -> Actor:
    """`who` lets a stated person pass only while nobody has an admin key: then anybody has the role."""
    return msgspec.structs.replace(actor, roles=(role,)) if actor.proof == "stated" else actor


@contextmanager
def _queue(ctx: typer.Context, url: str | None) -> Iterator[tuple[AdminPlane, ApprovalQueue]]:
    from stanchion.bootstrap_secrets import id_keys_of, sealing_key
    from stanchion.core.clock import SortableIds
    from stanchion.gateway.approval_notices import RedisNotices
    from stanchion.gateway.approvals import ApprovalQueue, ApprovalsSection

    with admin_plane(ctx, url) as plane:
        id_keys = id_keys_of(plane.settings)
        redis = plane.settings.redis_url
        yield (
            plane,
            ApprovalQueue(
                ApprovalsSection(),
                plane.database,
                clock=plane.clock,
                ids=SortableIds(plane.clock),
                key=sealing_key(plane.settings),
                id_keys=id_keys,
                notices=None if redis is None else RedisNotices(redis.reveal()),
            ),
        )
