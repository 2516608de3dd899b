"""`stanchion switch`: stop a feature, a model, a tool, or everything; and lift it again, with others."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stanchion.cli.acting import (
    REASON_HELP,
    AsOption,
    DatabaseOption,
    DryRunOption,
    WaitOption,
    admin_plane,
    check_sole,
    parse_seconds,
    show_acknowledged,
    tell_acknowledged,
    told,
    who,
)
from stanchion.cli.output import FormatOption, OutputFormat, note, print_json
from stanchion.cli.switch_view import lease_lines, lifting_lines, show_state
from stanchion.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from stanchion.bootstrap_control import AdminPlane
    from stanchion.gateway.actor import Actor
    from stanchion.gateway.control_store import Published
    from stanchion.gateway.known_targets import Unreached

app = typer.Typer(help="Stop things, and lift the stop.", rich_markup_mode=None, add_completion=False)

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="`global`, or LEVEL:NAME with a level of tenant, feature, model, provider, guard_version, "
        "prompt_version, tool. For example feature:checkout.",
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", help=REASON_HELP)]


class Position(StrEnum):
    """Where `switch set` puts a switch."""

    ENGAGED = "engaged"
    LIFTED = "lifted"


@app.callback()
def switch() -> None:
    """Stop a feature, a model, a tool or everything, within 100 ms; lifting takes a second person.

    Engaging takes one person and no running gateway. Every act is in the audit log. A switch stays engaged
    through restarts and outages until it is lifted.

    Example:
        stanchion switch list
    """


@app.command("list")
def list_switches(
    ctx: typer.Context, database: DatabaseOption = None, output_format: FormatOption = OutputFormat.TEXT
) -> None:
    """Print what is switched off, what is lent and until when, which lifts wait, and who obeys.

    Example:
        stanchion switch list
    """
    with admin_plane(ctx, database) as plane:
        version, state = plane.switches.state()
        live = plane.replicas.live()
        if output_format is OutputFormat.JSON:
            print_json({"version": version, "state": state, "replicas": live})
            return
        typer.echo(f"switches at v{version}")
        show_state(plane, state)
        for replica in live:
            at, trust = replica.versions.get("switches", -1), replica.trust.get("switches", "unknown")
            behind = "" if at >= version and trust != "failed" else "  NOT OBEYING"
            typer.echo(f"  replica  {replica.host} pid {replica.pid}: v{at} ({trust}){behind}")
        if not live:
            typer.echo("  no replica is running")


@app.command()
def engage(
    ctx: typer.Context,
    target: TargetArgument,
    reason: ReasonOption,
    database: DatabaseOption = None,
    person: AsOption = None,
    wait: WaitOption = 5.0,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Stop what TARGET names, now; exit 1 when a replica does not obey in time, 4 when none knows the target.

    A target that no replica knows is engaged all the same, for those that come to know it, and the page says
    loudly that it stops nothing.

    Example:
        stanchion switch engage feature:checkout --reason "leaks addresses"
    """
    from stanchion.gateway.actor import Permission
    from stanchion.gateway.known_targets import unreached

    with admin_plane(ctx, database) as plane:
        found = _target(target)
        actor = who(plane, person, Permission.CONTAIN, is_containment=True)
        if plane.organisation.note:
            note(f"note: {plane.organisation.note}")
        rule = plane.organisation.lift_rule(found)
        since_ns = plane.clock.monotonic_ns()
        published = plane.switches.engage(found, reason=reason, actor=actor, rule=rule, dry_run=dry_run)
        people, wait_s = published.answer.people, published.answer.wait_s
        takes = f"{people} people" if people > 1 else f"1 person and a wait of {wait_s} s"
        lines = [
            f"  reason   {published.answer.reason}",
            f'  lift     takes {takes}: stanchion switch lift {found} --reason "..."',
        ]
        _finish(
            plane,
            published,
            Said("ENGAGED", str(found), actor, lines),
            since_ns=since_ns,
            wait_s=wait,
            is_json=output_format is OutputFormat.JSON,
            unreached=unreached(found, plane.replicas.live(with_about=True)),
        )


@app.command()
def lift(
    ctx: typer.Context,
    target: TargetArgument,
    reason: ReasonOption,
    database: DatabaseOption = None,
    person: AsOption = None,
    wait: WaitOption = 5.0,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
    sole: Annotated[
        bool,
        typer.Option("--sole-operator", help="Nobody else is there: a wait stands in for the second person."),
    ] = False,
) -> None:
    """Ask that a switch be lifted; it stays engaged until enough other people confirm.

    Where the tier says that one person is enough, the same person confirms after the wait. Without admin
    keys one account counts as one person, whatever names it gives.

    Example:
        stanchion switch lift feature:checkout --reason "fixed in 1.4.2"
    """
    from stanchion.gateway.actor import Permission

    with admin_plane(ctx, database) as plane:
        found = _target(target)
        actor = who(plane, person, Permission.OPERATE)
        if sole:
            check_sole(plane)
        rule = plane.organisation.lift_rule(found)
        since_ns = plane.clock.monotonic_ns()
        published = plane.switches.lift(
            found, reason=reason, actor=actor, rule=rule, is_sole=sole, dry_run=dry_run
        )
        said = Said("LIFT ASKED", str(found), actor, lifting_lines(published))
        is_json = output_format is OutputFormat.JSON
        _finish(plane, published, said, since_ns=since_ns, wait_s=wait, is_json=is_json)


@app.command()
def confirm(
    ctx: typer.Context,
    target: TargetArgument,
    database: DatabaseOption = None,
    person: AsOption = None,
    wait: WaitOption = 5.0,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Confirm a lift that somebody else asked for.

    Example:
        stanchion switch confirm feature:checkout
    """
    from stanchion.gateway.actor import Permission

    with admin_plane(ctx, database) as plane:
        found = _target(target)
        actor = who(plane, person, Permission.APPROVE)
        since_ns = plane.clock.monotonic_ns()
        published = plane.switches.confirm(found, actor=actor, dry_run=dry_run)
        word = "LIFTED" if published.answer.is_lifted else "LIFT CONFIRMED"
        said = Said(word, str(found), actor, lifting_lines(published))
        is_json = output_format is OutputFormat.JSON
        _finish(plane, published, said, since_ns=since_ns, wait_s=wait, is_json=is_json)


@app.command("set")
def set_position(
    ctx: typer.Context,
    target: TargetArgument,
    position: Annotated[Position, typer.Argument(help="Where to put it.")],
    reason: ReasonOption,
    database: DatabaseOption = None,
    person: AsOption = None,
    wait: WaitOption = 5.0,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Do what `engage` or `lift` does.

    Example:
        stanchion switch set tool:refund engaged --reason "refunds twice"
    """
    act = engage if position is Position.ENGAGED else lift
    act(
        ctx,
        target,
        reason=reason,
        database=database,
        person=person,
        wait=wait,
        dry_run=dry_run,
        output_format=output_format,
    )


@app.command()
def lease(
    ctx: typer.Context,
    target: TargetArgument,
    duration: Annotated[str, typer.Option("--for", metavar="TIME", help="How long: 30m, 2h, 7d.")],
    reason: ReasonOption,
    database: DatabaseOption = None,
    person: AsOption = None,
    wait: WaitOption = 5.0,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Let TARGET run only for a time: unless somebody renews the lease, it is switched off when it ends.

    Example:
        stanchion switch lease tool:refund --for 8h --reason "trial with the night shift"
    """
    from stanchion.gateway.actor import Permission

    with admin_plane(ctx, database) as plane:
        found = _target(target)
        actor = who(plane, person, Permission.CONTAIN, is_containment=True)
        since_ns = plane.clock.monotonic_ns()
        seconds = parse_seconds(duration)
        published = plane.switches.lease(found, ttl_s=seconds, reason=reason, actor=actor, dry_run=dry_run)
        said = Said("LEASED", str(found), actor, lease_lines(published))
        is_json = output_format is OutputFormat.JSON
        _finish(plane, published, said, since_ns=since_ns, wait_s=wait, is_json=is_json)


@app.command()
def renew(
    ctx: typer.Context,
    target: TargetArgument,
    duration: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="How long; default: as before.")
    ] = None,
    database: DatabaseOption = None,
    person: AsOption = None,
    wait: WaitOption = 5.0,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Let a lease run anew from now. One that has ended takes a lift.

    Example:
        stanchion switch renew tool:refund
    """
    from stanchion.gateway.actor import Permission

    with admin_plane(ctx, database) as plane:
        found = _target(target)
        actor = who(plane, person, Permission.OPERATE)
        since_ns = plane.clock.monotonic_ns()
        seconds = None if duration is None else parse_seconds(duration)
        published = plane.switches.renew(found, actor=actor, ttl_s=seconds, dry_run=dry_run)
        said = Said("RENEWED", str(found), actor, lease_lines(published))
        is_json = output_format is OutputFormat.JSON
        _finish(plane, published, said, since_ns=since_ns, wait_s=wait, is_json=is_json)


@app.command()
def history(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 20,
    database: DatabaseOption = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Print who did what to the switches, the newest first, from the audit log.

    Example:
        stanchion switch history --limit 5
    """
    from stanchion.gateway.switch_acts import AUDIT_KINDS
    from stanchion.store.audit_log import AuditLog

    with admin_plane(ctx, database) as plane:
        log = AuditLog(plane.database, clock=plane.clock)
        entries = log.newest(kinds=AUDIT_KINDS, limit=limit)
    if output_format is OutputFormat.JSON:
        print_json(entries)
        return
    for entry in entries:
        payload: dict[str, Any] = entry.payload or {}
        at = entry.at.isoformat(timespec="seconds")
        what = f"{entry.kind.removeprefix('switch.'):<15} {payload.get('target', '')}"
        typer.echo(f"v{payload.get('version', '?'):<5} {at}  {what}  by {entry.actor}")
        if payload.get("reason"):
            typer.echo(f"       {payload['reason']}")


@app.command()
def watch(
    ctx: typer.Context,
    duration: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="How long; default: until interrupted.")
    ] = None,
    database: DatabaseOption = None,
) -> None:
    """Print the switches and who obeys them, again whenever something changes.

    Example:
        stanchion switch watch --for 1s
    """
    end = None if duration is None else time.monotonic() + parse_seconds(duration)
    shown: object = None
    with admin_plane(ctx, database) as plane:
        while True:
            version, state = plane.switches.state()
            live = plane.replicas.live()
            obeying = sum(each.versions.get("switches", -1) >= version for each in live)
            now = (version, obeying, len(live))
            if now != shown:
                shown = now
                at = plane.clock.now().isoformat(timespec="seconds")
                typer.echo(f"{at}  v{version}, obeyed by {obeying} of {len(live)}")
                show_state(plane, state)
            if end is not None and time.monotonic() >= end:
                return
            time.sleep(0.25)


@app.command()
def keys(
    ctx: typer.Context,
    new: Annotated[
        bool, typer.Option("--new", help="Make a new signing key; the old ones stay trusted.")
    ] = False,
    trust: Annotated[
        Path | None, typer.Option("--trust", metavar="FILE", help="Trust this public key (PEM) on this host.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", metavar="FOLDER", help="Write what all replicas of a fleet share; see `fleet_dir`."
        ),
    ] = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Print the keys that switches are signed with: the private one of this host, and those it trusts.

    Replicas on other hosts need the public key and the secrets of keys and ids, never the private key:
    `--export` writes them to a folder, which every replica gets read-only as the setting `fleet_dir`.

    Example:
        stanchion switch keys
    """
    from stanchion.bootstrap_control import trusted_of
    from stanchion.config import load_settings
    from stanchion.core.signatures import key_id, public_key
    from stanchion.gateway import control_keys

    folder = load_settings(file=ctx.obj).state_dir
    if trust is not None:
        note(f"trusted: {control_keys.trust(folder, public_key(trust.read_bytes()))}")
    if new:
        control_keys.new_signing_key(folder)
    if export is not None:
        from stanchion.gateway.fleet_keys import export_fleet

        for written in export_fleet(folder, export):
            note(f"in the fleet's folder: {written}")
    path = control_keys.signing_key_path(folder)
    signing = key_id(control_keys.load_signing_key(folder).public_key()) if path.exists() else None
    trusted = sorted(trusted_of(load_settings(file=ctx.obj)))
    if output_format is OutputFormat.JSON:
        print_json({"signing": signing, "signing_file": str(path), "trusted": trusted})
        return
    typer.echo(f"signs     {signing or 'no key yet; the first act makes one'}")
    trusted_in = load_settings(file=ctx.obj).fleet_dir or control_keys.trusted_folder(folder)
    for each in trusted:
        typer.echo(f"trusts    {each}  {trusted_in / f'{each}.pem'}")


class Said:
    """What a command says it did."""

    def __init__(self, word: str, target: str, actor: Actor, lines: list[str]) -> None:
        self.word, self.target, self.actor, self.lines = word, target, actor, lines


def _finish(
    plane: AdminPlane,
    published: Published,
    said: Said,
    *,
    since_ns: int,
    wait_s: float,
    is_json: bool,
    unreached: Unreached | None = None,
) -> None:
    """Wait for the replicas and print one page; exit 1 when one of them does not obey, 4 when none can."""
    heard = tell_acknowledged(plane, published, since_ns=since_ns, wait_s=wait_s)
    troubles = plane.switches.troubles
    if is_json:
        print_json(
            {
                "act": said.word.lower().replace(" ", "_"),
                "target": said.target,
                "version": published.version,
                "is_changed": published.envelope is not None,
                "by": said.actor,
                "answer": published.answer,
                "acknowledged": told(heard),
                "troubles": troubles,
                "unreached": unreached,
            }
        )
    else:
        changed = "" if published.envelope is not None else "  (nothing was changed)"
        typer.secho(f"{said.word}  {said.target}  v{published.version}{changed}", bold=True)
        proof = "proved by a key" if said.actor.proof.startswith("key:") else "only stated"
        typer.echo(f"  by       {said.actor.person} ({proof})")
        for line in said.lines:
            typer.echo(line)
        show_acknowledged(heard, troubles)
        if unreached is not None:
            typer.secho(f"  {unreached.message}", fg="red", bold=unreached.is_nothing)
    if heard is not None and not heard.is_complete:
        raise typer.Exit(ExitCode.FOUND)
    if unreached is not None and unreached.is_nothing:
        raise typer.Exit(ExitCode.REACHES_NOTHING)


def _target(text: str) -> Any:
    from stanchion.gateway.switch_state import SwitchTarget

    try:
        return SwitchTarget.parse(text)
    except UsageError as error:
        raise UsageError(f"{text!r}: {error.message}", hint=error.hint) from error
