"""`stanchion admission`: which component sets passed their gate, and what a gateway does with the others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stanchion.cli.acting import (
    AsOption,
    DatabaseOption,
    DryRunOption,
    WaitOption,
    admin_plane,
    parse_seconds,
    show_acknowledged,
    tell_acknowledged,
    told,
    who,
)
from stanchion.cli.output import FormatOption, OutputFormat, counted, print_json
from stanchion.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from stanchion.bootstrap_control import AdminPlane
    from stanchion.core.codec import Digest
    from stanchion.core.components import ComponentSet
    from stanchion.gateway.admission import GatedSet
    from stanchion.gateway.admission_view import AdmissionView, Ruling, SignedList
    from stanchion.gateway.control_store import Published

app = typer.Typer(
    help="See and change which component sets passed.", rich_markup_mode=None, add_completion=False
)

SetArgument = Annotated[
    str,
    typer.Argument(metavar="SET", help="A request's reference (`x-request-id`), or the digest of a set."),
]
FeatureOption = Annotated[str, typer.Option("--feature", help="A feature of the gateway.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="The gateway file, whose section `admission` may be stricter."),
]
SinceOption = Annotated[
    str, typer.Option("--since", metavar="TIME", help="How far back to look: 45m, 24h, 7d.")
]


@app.callback()
def admission() -> None:
    """See and change the signed list of component sets that passed their gate.

    Example:
        stanchion admission list
    """


@app.command("list")
def list_sets(
    ctx: typer.Context,
    feature: FeatureOption = "",
    database: DatabaseOption = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Print the list: which sets, for which feature, by whose gate, until when, and who signed it.

    Exit 1 when the list cannot be verified: gateways then admit nothing by it.

    Example:
        stanchion admission list
    """
    with admin_plane(ctx, database) as plane:
        view = _view(plane)
    found = [one for one in view.list.sets if not feature or one.feature in ("", feature)]
    if output_format is OutputFormat.JSON:
        print_json({**_head(view.list), "sets": found})
    else:
        _show_head(view.list)
        for one in sorted(found, key=lambda each: (each.feature, each.components)):
            typer.echo(f"  {one.components}  {_said(view, one)}")
    if view.list.why:
        raise typer.Exit(ExitCode.FOUND)


@app.command()
def show(
    ctx: typer.Context,
    reference: Annotated[
        str, typer.Argument(metavar="[SET]", help="A request's reference, or the digest of a set.")
    ] = "",
    feature: FeatureOption = "",
    config: ConfigOption = None,
    since: SinceOption = "7d",
    database: DatabaseOption = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Show what a gateway would do with a set now; with --feature alone, with each set in its records.

    Exit 1 when one of them is not gated.

    Example:
        stanchion admission show --feature default
    """
    with admin_plane(ctx, database) as plane:
        view = _view(plane, config)
        found = _rulings(plane, view, reference, feature=feature, since=since)
    if output_format is OutputFormat.JSON:
        print_json({**_head(view.list), "rulings": found})
    else:
        _show_head(view.list)
        for one in found:
            _show_ruling(view, one)
        if not found:
            typer.echo(f"  no record of {feature} in the last {since}")
    if any(not one.is_gated for one in found):
        raise typer.Exit(ExitCode.FOUND)


@app.command()
def share(
    ctx: typer.Context,
    config: ConfigOption = None,
    since: SinceOption = "24h",
    database: DatabaseOption = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Print by feature how many of the recorded requests had a set that is not on the list now.

    Example:
        stanchion admission share --since 24h
    """
    from stanchion.store.interactions import InteractionStore

    with admin_plane(ctx, database) as plane:
        view = _view(plane, config)
        found = view.shares(InteractionStore(plane.database), since=_start(plane, since))
    if output_format is OutputFormat.JSON:
        rows = [{"feature": one.feature, "requests": one.requests, "ungated": one.ungated} for one in found]
        print_json({**_head(view.list), "features": rows})
        return
    _show_head(view.list)
    for one in found:
        typer.echo(f"  {one.feature}: {one.ungated:,} of {one.requests:,} ungated ({one.share:.1%})")
        typer.echo(f"    {one.in_force}")
    if not found:
        typer.echo(f"  no record in the last {since}")


@app.command()
def add(
    ctx: typer.Context,
    reference: SetArgument,
    feature: Annotated[str, typer.Option("--feature", help="Only for this feature; default: for any.")] = "",
    verdict: Annotated[str, typer.Option("--verdict", help="The digest of the gate's verdict.")] = "",
    duration: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="It is gated so long: 30d. Default: for good.")
    ] = None,
    database: DatabaseOption = None,
    person: AsOption = None,
    wait: WaitOption = 5.0,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Put a set that passed its gate on the list; it takes the role `admin`, and is in the audit log.

    Example:
        stanchion admission add req_01ka2b --feature shop --for 30d --dry-run
    """
    from stanchion.gateway.actor import Permission
    from stanchion.gateway.admission import GatedSet, write_admission
    from stanchion.store.times import to_us

    with admin_plane(ctx, database) as plane:
        actor = who(plane, person, Permission.ADMINISTER)
        since_ns, now_us = plane.clock.monotonic_ns(), to_us(plane.clock.now())
        one = GatedSet(
            components=_digest(plane, reference),
            feature=feature,
            verdict=verdict,
            gated_at_us=now_us,
            gated_by=actor.person,
            expires_at_us=None if duration is None else now_us + parse_seconds(duration) * 1_000_000,
        )
        announced = _Announced(plane)
        published = write_admission(plane.store, add=[one], actor=actor, announce=announced, dry_run=dry_run)
        said = f"ADDED  {one.components} for {feature or 'any feature'}"
        is_json = output_format is OutputFormat.JSON
        _finish(announced, published, said, since_ns=since_ns, wait_s=wait, is_json=is_json)


@app.command()
def remove(
    ctx: typer.Context,
    reference: SetArgument,
    feature: Annotated[
        str, typer.Option("--feature", help="The feature it is listed for; default: any.")
    ] = "",
    database: DatabaseOption = None,
    person: AsOption = None,
    wait: WaitOption = 5.0,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Take a set off the list; exit 1 when it is not on it, or a replica does not obey in time.

    Example:
        stanchion admission remove req_01ka2b --feature shop --dry-run
    """
    from stanchion.gateway.actor import Permission
    from stanchion.gateway.admission import write_admission

    with admin_plane(ctx, database) as plane:
        actor = who(plane, person, Permission.ADMINISTER)
        since_ns = plane.clock.monotonic_ns()
        digest = _digest(plane, reference)
        if all((one.feature, one.components) != (feature, digest) for one in _view(plane).list.sets):
            raise UsageError(
                f"{digest} is not listed for {feature or 'any feature'}.",
                hint="See the list: stanchion admission list",
            )
        announced = _Announced(plane)
        published = write_admission(
            plane.store, remove=[(feature, digest)], actor=actor, announce=announced, dry_run=dry_run
        )
        said = f"REMOVED  {digest} for {feature or 'any feature'}"
        is_json = output_format is OutputFormat.JSON
        _finish(announced, published, said, since_ns=since_ns, wait_s=wait, is_json=is_json)


class _Announced:
    """Tells the replicas, and keeps the ways that did not work."""

    def __init__(self, plane: AdminPlane) -> None:
        self.plane = plane
        self.troubles: list[str] = []

    def __call__(self, published: Published) -> list[str]:
        self.troubles = self.plane.announce(published)
        return self.troubles


def _finish(
    announced: _Announced,
    published: Published,
    said: str,
    *,
    since_ns: int,
    wait_s: float,
    is_json: bool,
) -> None:
    """Say what was done and who obeys; exit 1 when a replica does not in time."""
    heard = tell_acknowledged(announced.plane, published, since_ns=since_ns, wait_s=wait_s)
    is_changed = published.envelope is not None
    if is_json:
        print_json(
            {
                "version": published.version,
                "count": published.answer,
                "is_changed": is_changed,
                "acknowledged": told(heard),
                "troubles": announced.troubles,
            }
        )
    else:
        changed = "" if is_changed else "  (nothing was changed)"
        listed = counted(published.answer, "set")
        typer.secho(f"{said}  v{published.version}, {listed} on the list{changed}", bold=True)
        show_acknowledged(heard, announced.troubles)
    if heard is not None and not heard.is_complete:
        raise typer.Exit(ExitCode.FOUND)


def _view(plane: AdminPlane, gateway_file: Path | None = None) -> AdmissionView:
    from stanchion.bootstrap_admission import make_admission_view

    return make_admission_view(plane, gateway_file=gateway_file)


def _start(plane: AdminPlane, since: str) -> Any:
    return plane.clock.now() - timedelta(seconds=parse_seconds(since))


def _rulings(
    plane: AdminPlane, view: AdmissionView, reference: str, *, feature: str, since: str
) -> Sequence[Ruling]:
    from stanchion.core.codec import is_digest
    from stanchion.store.interactions import InteractionStore

    if not reference:
        if not feature:
            raise UsageError(
                "it takes a set or a feature.",
                hint="stanchion admission show REFERENCE, or stanchion admission show --feature NAME",
            )
        return view.seen(InteractionStore(plane.database), since=_start(plane, since), feature=feature)
    if is_digest(reference):
        if not feature:
            raise UsageError("a digest alone does not say for which feature.", hint="Add --feature NAME.")
        return [view.ruling_of(feature, reference)]
    components, of = _components(plane, reference)
    return [view.ruling(feature or of, components)]


def _digest(plane: AdminPlane, reference: str) -> Digest:
    from stanchion.core.codec import is_digest
    from stanchion.gateway.admission import admitted_digest

    return reference if is_digest(reference) else admitted_digest(_components(plane, reference)[0])


def _components(plane: AdminPlane, reference: str) -> tuple[ComponentSet, str]:
    """The component set of a request, and its feature."""
    from stanchion.gateway.admission_view import EMPTY
    from stanchion.store.interactions import InteractionStore
    from stanchion.store.records import InteractionRecord

    found = InteractionStore(plane.database).get(reference)
    if not isinstance(found, InteractionRecord):
        raise UsageError(
            f"there is no record of {reference!r}.",
            hint="Give the x-request-id of an answer; records are written behind, so wait a second.",
        )
    if found.components == EMPTY:
        raise UsageError(f"the request {reference!r} was stopped before its component set was known.")
    return found.components, found.feature


def _head(found: SignedList) -> dict[str, Any]:
    return {
        "version": found.version,
        "trust": found.trust,
        "why": found.why,
        "made_by": found.made_by,
        "made_at_us": found.made_at_us,
        "signed_by": found.signed_by,
    }


def _show_head(found: SignedList) -> None:
    from stanchion.store.times import from_us

    if found.why:
        typer.secho(f"the list cannot be verified, so it admits nothing: {found.why}", fg="red")
    elif not found.version:
        typer.echo("no list: nothing was ever gated")
    else:
        at = from_us(found.made_at_us).isoformat(timespec="seconds")
        keys = ", ".join(found.signed_by)
        typer.echo(f"gated sets at v{found.version} by {found.made_by} at {at}, signed by key {keys}")


def _show_ruling(view: AdmissionView, one: Ruling) -> None:
    count = "" if one.requests is None else f"  {counted(one.requests, 'request')}"
    typer.echo(f"{one.feature}: {one.digest}{count}")
    if one.components is not None:
        from stanchion.core.components import ComponentKind

        for kind in ComponentKind:
            if value := getattr(one.components, kind.value):
                typer.echo(f"    {kind.value:<10} {value}")
    if one.is_gated:
        typer.secho("  gated    a gateway answers it", fg="green")
    else:
        colour = {"block": "red", "warn": "yellow"}.get(one.action)
        does = {"block": "refuses it (403, not_admitted)", "warn": "answers it and warns"}
        typer.secho(f"  UNGATED  a gateway {does.get(one.action, 'answers it')}: {one.reason}", fg=colour)
        typer.echo(f"           {view.in_force(one.feature)}")
    if one.entry is not None:
        typer.echo(f"  listed   {_said(view, one.entry)}")


def _said(view: AdmissionView, one: GatedSet) -> str:
    """Whose gate, for which feature, until when."""
    from stanchion.store.times import from_us

    until = "for good"
    if one.expires_at_us is not None:
        at = from_us(one.expires_at_us).isoformat(timespec="seconds")
        until = f"EXPIRED {at}" if view.is_expired(one) else f"until {at}"
    by = f", by {one.gated_by}" if one.gated_by else ""
    verdict = f", verdict {one.verdict}" if one.verdict else ""
    return f"{one.feature or 'any feature'}, {until}{by}{verdict}"
