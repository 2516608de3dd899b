"""`stanchion rollout`: see experiments and their verdicts, promote a variant, or take it out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from stanchion.cli.acting import AsOption, DatabaseOption, DryRunOption, admin_plane, who
from stanchion.cli.output import FormatOption, OutputFormat, print_json
from stanchion.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from stanchion.bootstrap_control import AdminPlane
    from stanchion.gateway.rollout_store import ExperimentState, RolloutStore
    from stanchion.gateway.rollout_verdict import Verdict

app = typer.Typer(help="See and steer experiments.", rich_markup_mode=None, add_completion=False)

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; one line for the record.")]


@app.callback()
def rollout() -> None:
    """See and steer experiments of the gateway.

    Example:
        stanchion rollout list
    """


@app.command("list")
def list_experiments(
    ctx: typer.Context, database: DatabaseOption = None, output_format: FormatOption = OutputFormat.TEXT
) -> None:
    """List experiments with their verdicts.

    Example:
        stanchion rollout list
    """
    with _store(ctx, database) as (_, store):
        rows = [_row(store, state) for state in store.states()]
    if output_format is OutputFormat.JSON:
        print_json(rows)
        return
    if not rows:
        typer.echo("no experiment: a gateway whose file has one writes it down when it starts")
    for row in rows:
        for verdict in row["verdicts"]:
            now = row["variants"][verdict.variant]
            typer.echo(
                f"{row['experiment']:<24} {verdict.variant:<16} {now.status:<12} "
                f"weight {now.weight:<7.4g} {verdict.action:<9} {verdict.reason}"
            )


@app.command()
def show(
    ctx: typer.Context,
    experiment: Annotated[str, typer.Argument(help="The experiment's name.")],
    database: DatabaseOption = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Show the verdict on an experiment with every interval it stands on; exit 1 when it says roll back.

    Example:
        stanchion rollout show new-prompt
    """
    with _store(ctx, database) as (_, store):
        row = _row(store, store.get(experiment))
    if output_format is OutputFormat.JSON:
        print_json(row)
    else:
        typer.echo(f"experiment {row['experiment']}  {row['digest']}")
        typer.echo(f"step {row['step']}, revision {row['revision']}, by {row['set_by']}: {row['reason']}")
        for verdict in row["verdicts"]:
            _print_verdict(verdict, row["variants"][verdict.variant])
    if any(verdict.action == "rollback" for verdict in row["verdicts"]):
        raise typer.Exit(ExitCode.FOUND)


@app.command()
def promote(
    ctx: typer.Context,
    experiment: Annotated[str, typer.Argument(help="The experiment's name.")],
    variant: Annotated[str, typer.Argument(help="The variant that goes on.")],
    reason: ReasonOption,
    database: DatabaseOption = None,
    person: AsOption = None,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Give a variant its next weight; at the last step, everything.

    Example:
        stanchion rollout promote new-prompt canary --reason "better in support" --dry-run
    """
    _act(ctx, database, (experiment, variant, "promote"), (person, reason, dry_run), output_format)


@app.command()
def rollback(
    ctx: typer.Context,
    experiment: Annotated[str, typer.Argument(help="The experiment's name.")],
    variant: Annotated[str, typer.Argument(help="The variant that goes.")],
    reason: ReasonOption,
    database: DatabaseOption = None,
    person: AsOption = None,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Take a variant out: its keys go back to control.

    Example:
        stanchion rollout rollback new-prompt canary --reason "complaints" --dry-run
    """
    _act(ctx, database, (experiment, variant, "rollback"), (person, reason, dry_run), output_format)


def _act(
    ctx: typer.Context,
    database: str | None,
    what: tuple[str, str, str],
    said: tuple[str | None, str, bool],
    output_format: OutputFormat,
) -> None:
    from stanchion.gateway.actor import Permission

    (experiment, variant, verb), (person, reason, dry_run) = what, said
    is_containment = verb == "rollback"
    with _store(ctx, database) as (plane, store):
        needed = Permission.CONTAIN if is_containment else Permission.ADMINISTER
        actor = who(plane, person, needed, is_containment=is_containment)
        before = store.get(experiment)
        if variant not in before.variants:
            from stanchion.core.errors import UnknownNameError

            raise UnknownNameError("variant", variant, before.variants)
        after = before
        if not dry_run:
            act = store.roll_back if is_containment else store.promote
            if not act(before, variant, by=actor.person, reason=reason):
                raise UsageError("somebody acted on this experiment at the same moment.", hint="Look again.")
            after = store.get(experiment)
    if output_format is OutputFormat.JSON:
        print_json({"dry_run": dry_run, "by": actor.person, "state": _plain(after)})
        return
    now = after.variants[variant]
    done = f"would {verb}" if dry_run else f"{verb} done:"
    typer.echo(f"{done} {experiment}/{variant}, {now.status}, weight {now.weight:g}")


def _print_verdict(verdict: Verdict, now: Any) -> None:
    typer.echo(f"\n{verdict.variant}: {now.status}, weight {now.weight:g}")
    typer.echo(f"  verdict: {verdict.action} ({verdict.reason})")
    for one in verdict.metrics:
        low, high = one.difference.low, one.difference.high
        arms = " against ".join(f"{k:,}/{n:,}" for k, n in (one.variant, one.control))
        typer.echo(
            f"  {one.metric:<13} {arms}, difference {low:+.2%} to {high:+.2%} at any look "
            f"({one.difference.confidence:.2%}), margin {one.max_increase:+.2%}"
        )


def _row(store: RolloutStore, state: ExperimentState) -> dict[str, Any]:
    from stanchion.gateway.rollout_verdict import judge

    return {**_plain(state), "verdicts": judge(state.model, store.counts(state))}


def _plain(state: ExperimentState) -> dict[str, Any]:
    return msgspec.structs.asdict(state)


@contextmanager
def _store(ctx: typer.Context, url: str | None) -> Iterator[tuple[AdminPlane, RolloutStore]]:
    from stanchion.gateway.rollout_store import RolloutStore

    with admin_plane(ctx, url) as plane:
        yield plane, RolloutStore(plane.database, clock=plane.clock)
