"""`stanchion access-keys`: virtual keys of the gateway and of its admin API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stanchion.cli.acting import (
    REASON_HELP,
    AsOption,
    DatabaseOption,
    DryRunOption,
    WaitOption,
    admin_plane,
    keyed_tenant,
    parse_seconds,
    show_acknowledged,
    tell_acknowledged,
    told,
    who,
)
from stanchion.cli.output import FormatOption, OutputFormat, note, print_json
from stanchion.core.errors import ExitCode

if TYPE_CHECKING:
    from stanchion.bootstrap_control import AdminPlane
    from stanchion.gateway.control_store import Published
    from stanchion.gateway.key_state import VirtualKey

app = typer.Typer(
    help="Make, list, rotate and revoke virtual keys of the gateway.",
    rich_markup_mode=None,
    add_completion=False,
)

NameArgument = Annotated[str, typer.Argument(help="The key's name or id.")]


@app.callback()
def access_keys() -> None:
    """Make, list, rotate and revoke the keys that clients of the gateway and its operators use.

    A key is shown once, when it is made; only a keyed hash is kept. While there is no key at all, a gateway
    on loopback serves its own machine without one, and one on any other address serves nobody.

    Example:
        stanchion access-keys list
    """


@app.command()
def new(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is for, such as `checkout-service`.")],
    feature: Annotated[
        list[str] | None, typer.Option("--feature", help="Only for this feature; may be given again.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Only for this model; may be given again.")
    ] = None,
    surface: Annotated[
        list[str] | None, typer.Option("--surface", help="Only for this API, such as `openai.chat`.")
    ] = None,
    tenant: Annotated[
        str, typer.Option("--tenant", help="The tenant's name outside, which is kept only as a keyed id.")
    ] = "",
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            help="viewer, auditor, responder, operator, approver, revealer or admin; needs --person.",
        ),
    ] = None,
    owner: Annotated[
        str, typer.Option("--person", help="Whose it is, an id of `org.yaml`; needed for a role.")
    ] = "",
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="How long it is valid: 30d; default: no end.")
    ] = None,
    database: DatabaseOption = None,
    person: AsOption = None,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Make a key and print it, this once.

    Example:
        stanchion access-keys new checkout-service --feature checkout --for 90d
    """
    from stanchion.gateway.actor import Permission
    from stanchion.gateway.key_acts import KeyWish

    with admin_plane(ctx, database) as plane:
        actor = who(plane, person, Permission.ADMINISTER)
        wish = KeyWish(
            name=name,
            person=owner,
            roles=tuple(role or ()),
            tenant=keyed_tenant(plane, tenant),
            features=tuple(feature or ()),
            models=tuple(model or ()),
            surfaces=tuple(surface or ()),
            ttl_s=None if lasting is None else parse_seconds(lasting),
        )
        published = plane.keys.new(wish, actor=actor, dry_run=dry_run)
        _show_made(plane, published, is_json=output_format is OutputFormat.JSON)


@app.command("list")
def list_keys(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Revoked and expired ones, too.")] = False,
    database: DatabaseOption = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Print the keys: what each is for, whose it is and until when. No secret is shown; none is kept.

    Example:
        stanchion access-keys list --all
    """
    from stanchion.store.times import to_us

    with admin_plane(ctx, database) as plane:
        version, state = plane.keys.state()
        now_us = to_us(plane.clock.now())
    found = [key for key in state.keys if everything or key.standing(now_us=now_us) == "valid"]
    if output_format is OutputFormat.JSON:
        rows = [_as_json(key, now_us) for key in found]
        print_json({"version": version, "keys": rows})
        return
    if not state.keys:
        note("There is no key: a gateway on loopback serves its own machine without one.")
    for key in found:
        typer.echo(f"{key.id}  {key.standing(now_us=now_us):<8} {key.name}{_scope(key)}")


@app.command()
def revoke(
    ctx: typer.Context,
    name: NameArgument,
    reason: Annotated[str, typer.Option("--reason", help=REASON_HELP)],
    database: DatabaseOption = None,
    person: AsOption = None,
    wait: WaitOption = 5.0,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """End a key on all replicas at once; exit 1 when one of them does not confirm it in time.

    Example:
        stanchion access-keys revoke checkout-service --reason "seen in a log"
    """
    from stanchion.gateway.actor import Permission

    with admin_plane(ctx, database) as plane:
        actor = who(plane, person, Permission.ADMINISTER)
        since_ns = plane.clock.monotonic_ns()
        published = plane.keys.revoke(name, reason=reason, actor=actor, dry_run=dry_run)
        heard = tell_acknowledged(plane, published, since_ns=since_ns, wait_s=wait)
        if output_format is OutputFormat.JSON:
            print_json(
                {"key": published.answer.id, "version": published.version, "acknowledged": told(heard)}
            )
        else:
            changed = "" if published.envelope is not None else "  (nothing was changed)"
            typer.echo(f"REVOKED  {published.answer.name}  {published.answer.id}{changed}")
            show_acknowledged(heard, plane.keys.troubles)
        if heard is not None and not heard.is_complete:
            raise typer.Exit(ExitCode.FOUND)


@app.command()
def rotate(
    ctx: typer.Context,
    name: NameArgument,
    grace: Annotated[
        str, typer.Option("--grace", metavar="TIME", help="How long the old secret stays valid.")
    ] = "24h",
    database: DatabaseOption = None,
    person: AsOption = None,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Give a key a new secret and print it, this once; id, scopes and limits stay.

    Example:
        stanchion access-keys rotate checkout-service --grace 1h
    """
    from stanchion.gateway.actor import Permission

    with admin_plane(ctx, database) as plane:
        actor = who(plane, person, Permission.ADMINISTER)
        published = plane.keys.rotate(name, grace_s=parse_seconds(grace), actor=actor, dry_run=dry_run)
        _show_made(plane, published, is_json=output_format is OutputFormat.JSON)


def _show_made(plane: AdminPlane, published: Published, *, is_json: bool) -> None:
    made = published.answer
    is_made = published.envelope is not None
    if is_json:
        secret = made.secret if is_made else None
        print_json(
            {"key": made.key.id, "name": made.key.name, "secret": secret, "version": published.version}
        )
        return
    if not is_made:
        note(f"It would make {made.key.name!r}{_scope(made.key)}; nothing was changed.")
        return
    typer.echo(made.secret)
    note(f"{made.key.id} {made.key.name}{_scope(made.key)}. It is shown this once; keep it safe.")
    for trouble in plane.keys.troubles:
        note(f"trouble: {trouble}; the poll of the database stands in")


def _scope(key: VirtualKey) -> str:
    from stanchion.store.times import from_us

    parts = [
        f"{name} {', '.join(values)}"
        for name, values in (
            ("roles", key.roles),
            ("features", key.features),
            ("models", key.models),
            ("surfaces", key.surfaces),
        )
        if values
    ]
    if key.person:
        parts.append(f"of {key.person}")
    if key.tenant:
        parts.append(f"tenant {key.tenant}")
    if key.expires_at_us is not None:
        parts.append(f"until {from_us(key.expires_at_us).isoformat(timespec='minutes')}")
    return f"  ({'; '.join(parts)})" if parts else ""


def _as_json(key: VirtualKey, now_us: int) -> dict[str, object]:
    import msgspec

    fields: dict[str, object] = msgspec.to_builtins(key)
    del fields["secrets"]
    return {**fields, "standing": key.standing(now_us=now_us)}
