"""`stanchion prompts`: versions of prompts, the labels that point at them, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stanchion.cli.acting import AsOption, DatabaseOption, DryRunOption, admin_plane, who
from stanchion.cli.output import FormatOption, OutputFormat, print_json
from stanchion.core.codec import digest_text, short

if TYPE_CHECKING:
    from stanchion.bootstrap_control import AdminPlane
    from stanchion.gateway.prompts_registry import Label, PromptStore

app = typer.Typer(help="Keep prompts with versions and labels.", rich_markup_mode=None, add_completion=False)

NameArgument = Annotated[str, typer.Argument(help="The prompt's name.")]
LabelArgument = Annotated[str, typer.Argument(help="The label, such as prod or canary.")]


@app.callback()
def prompts() -> None:
    """Keep prompts with versions and labels; requests name them as NAME@LABEL.

    Example:
        stanchion prompts list
    """


@app.command()
def add(
    ctx: typer.Context,
    name: NameArgument,
    file: Annotated[Path, typer.Argument(help="A file with the prompt's text.")],
    label: Annotated[str, typer.Option("--label", help="Point this label at it at once.")] = "",
    key: Annotated[Path | None, typer.Option("--key", help="A private key that signs it.")] = None,
    database: DatabaseOption = None,
    person: AsOption = None,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Add a version. The same text again gives the version it has.

    Example:
        stanchion prompts add support prompt.txt --label prod
    """
    from stanchion.files.document import read_limited
    from stanchion.files.keys import load_private_key
    from stanchion.gateway.actor import Permission
    from stanchion.gateway.prompts_registry import MAX_PROMPT_CHARS

    text = read_limited(file, max_bytes=4 * MAX_PROMPT_CHARS).decode("utf-8", "strict")
    with _store(ctx, database) as (plane, store):
        actor = who(plane, person, Permission.OPERATE)
        signing = None if key is None else load_private_key(key)
        if dry_run:
            typer.echo(f"would add {name} ({short(digest_text(text))}, {len(text):,} characters)")
            return
        made = store.add(name, text, by=actor.person, label=label, key=signing)
    if output_format is OutputFormat.JSON:
        print_json(made)
    else:
        signed = ", signed" if made.is_signed else ""
        typer.echo(f"{made.name}@v{made.version}  {made.digest}{signed}" + (f"  {label}" if label else ""))


@app.command("list")
def list_prompts(
    ctx: typer.Context, database: DatabaseOption = None, output_format: FormatOption = OutputFormat.TEXT
) -> None:
    """List versions with their labels.

    Example:
        stanchion prompts list
    """
    with _store(ctx, database) as (_, store):
        versions, labels = store.versions(), store.labels()
    if output_format is OutputFormat.JSON:
        print_json({"versions": versions, "labels": labels})
        return
    for one in versions:
        pointing = [x.label for x in labels if (x.name, x.version) == (one.name, one.version)]
        signed = "signed" if one.is_signed else "-"
        place = f"{one.name}@v{one.version}"
        typer.echo(f"{place:<32} {short(one.digest)}  {signed:<7} {', '.join(pointing)}")


@app.command()
def show(
    ctx: typer.Context,
    reference: Annotated[str, typer.Argument(help="NAME@LABEL or NAME@v3.")],
    database: DatabaseOption = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Print a prompt.

    Example:
        stanchion prompts show support@prod
    """
    with _store(ctx, database) as (_, store):
        found = store.find(reference)
    if output_format is OutputFormat.JSON:
        print_json(found)
        return
    typer.echo(f"# {found.name}@v{found.version}  {found.digest}  by {found.added_by}", err=True)
    if found.variables:
        typer.echo(f"# variables: {', '.join(found.variables)}", err=True)
    typer.echo(found.text)


@app.command()
def label(
    ctx: typer.Context,
    name: NameArgument,
    label: LabelArgument,
    version: Annotated[int, typer.Argument(min=1, help="The version's number.")],
    database: DatabaseOption = None,
    person: AsOption = None,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Point a label at a version.

    Example:
        stanchion prompts label support prod 2
    """
    from stanchion.gateway.actor import Permission

    with _store(ctx, database) as (plane, store):
        actor = who(plane, person, Permission.OPERATE)
        found = store.find(f"{name}@v{version}")
        if dry_run:
            typer.echo(f"would point {name}@{label} at v{version} ({short(found.digest)})")
            return
        _print_label(store.label(name, label, version, by=actor.person), output_format)


@app.command()
def rollback(
    ctx: typer.Context,
    name: NameArgument,
    label: LabelArgument = "prod",
    database: DatabaseOption = None,
    person: AsOption = None,
    dry_run: DryRunOption = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Point a label at the version it had before.

    Example:
        stanchion prompts rollback support prod
    """
    from stanchion.gateway.actor import Permission

    with _store(ctx, database) as (plane, store):
        actor = who(plane, person, Permission.CONTAIN, is_containment=True)
        if dry_run:
            typer.echo(f"would point {name}@{label} at v{store.version_before(name, label)}")
            return
        _print_label(store.rollback(name, label, by=actor.person), output_format)


@app.command()
def diff(
    ctx: typer.Context,
    old: Annotated[str, typer.Argument(help="NAME@LABEL or NAME@v3.")],
    new: Annotated[str, typer.Argument(help="The one to compare with.")],
    database: DatabaseOption = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Print the difference of two prompts.

    Example:
        stanchion prompts diff support@v1 support@prod
    """
    import difflib

    with _store(ctx, database) as (_, store):
        one, two = store.find(old), store.find(new)
    lines = list(
        difflib.unified_diff(
            one.text.splitlines(),
            two.text.splitlines(),
            f"{one.name}@v{one.version}",
            f"{two.name}@v{two.version}",
            lineterm="",
        )
    )
    if output_format is OutputFormat.JSON:
        print_json({"old": one.digest, "new": two.digest, "diff": lines})
        return
    for line in lines:
        typer.echo(line)


def _print_label(made: Label, output_format: OutputFormat) -> None:
    if output_format is OutputFormat.JSON:
        print_json(made)
    else:
        typer.echo(f"{made.name}@{made.label} is v{made.version} now")


@contextmanager
def _store(ctx: typer.Context, url: str | None) -> Iterator[tuple[AdminPlane, PromptStore]]:
    from stanchion.gateway.prompts_registry import PromptStore

    with admin_plane(ctx, url) as plane:
        yield plane, PromptStore(plane.database, clock=plane.clock)
