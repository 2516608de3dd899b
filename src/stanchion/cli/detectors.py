"""`stanchion detectors`: which there are, what they report, whether their examples hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stanchion.cli.output import FormatOption, OutputFormat, counted, print_json
from stanchion.core.errors import ExitCode

if TYPE_CHECKING:
    from stanchion.detectors.registry import Registry

app = typer.Typer(help="List, show and test detectors.", rich_markup_mode=None, add_completion=False)


@app.callback()
def detectors() -> None:
    """List, show and test detectors.

    Example:
        stanchion detectors list
    """


@app.command("list")
def list_detectors(ctx: typer.Context, output_format: FormatOption = OutputFormat.TEXT) -> None:
    """Print all detectors: version, reach, cost, number of patterns, and what they come from.

    Example:
        stanchion detectors list --format json
    """
    from stanchion.core.errors import StanchionError
    from stanchion.detectors.describe import describe, description_of_failure

    registry = _registry(ctx)
    rows: list[dict[str, Any]] = []
    for name in registry.ids():
        try:
            rows.append(describe(registry, name))
        except StanchionError as error:
            rows.append(description_of_failure(registry, name, error))
    if output_format is OutputFormat.JSON:
        print_json(rows)
        return
    keys = ("id", "version", "reach", "cost")
    wide = {key: max((len(row.get(key, "")) for row in rows), default=0) for key in keys}
    for row in rows:
        if "error" in row:
            typer.echo(f"{row['id']:<{wide['id']}}  cannot be loaded: {row['error']} {row['hint'] or ''}")
        else:
            patterns = counted(row["patterns"], "pattern") if row["patterns"] else ""
            typer.echo("  ".join([*(f"{row[key]:<{wide[key]}}" for key in keys), patterns]).rstrip())


@app.command()
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A detector's id.")],
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Print one detector: version, reach, cost, options, categories with their severity, pattern ids.

    Example:
        stanchion detectors show secrets
    """
    from stanchion.detectors.describe import describe

    row = describe(_registry(ctx), name, in_detail=True)
    if output_format is OutputFormat.JSON:
        print_json(row)
        return
    for key in ("id", "provider", "version", "reach", "cost", "options"):
        typer.echo(f"{key:<10} {row[key] or '-'}")
    typer.echo("categories")
    for category in row["categories"]:
        typer.echo(f"  {category['id']:<26} {category['severity']:<9} {category['title']}")
    if row["pattern_ids"]:
        typer.echo(f"patterns   {row['patterns']}")
        for pattern in row["pattern_ids"]:
            typer.echo(f"  {pattern}")


@app.command("test")
def try_examples(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Pattern catalogues; the packaged ones when none is named.")
    ] = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Run the examples of catalogues: each must be found, no counter-example may be. Exits 1 otherwise.

    Example:
        stanchion detectors test
    """
    from stanchion.detectors.catalogue import load_catalogues
    from stanchion.detectors.examples import run_examples
    from stanchion.detectors.scan import Scanner

    registry = _registry(ctx)
    if files:
        scanner = Scanner(load_catalogues(files, cache_dir=registry.scanner.cache_dir))
    else:
        scanner = registry.scanner
    report = run_examples(scanner)
    if output_format is OutputFormat.JSON:
        print_json(report)
    else:
        for failure in report.failures:
            typer.echo(f"{failure.pattern}: {failure.kind} {failure.number}: {failure.what}")
        typer.echo(
            f"{counted(report.patterns, 'pattern')}, {counted(report.examples, 'example')}, "
            f"{counted(report.counter_examples, 'counter-example')}, "
            f"{counted(len(report.failures), 'failure')}"
        )
    if report.failures:
        raise typer.Exit(ExitCode.FOUND)


def _registry(ctx: typer.Context) -> Registry:
    from stanchion.bootstrap import make_registry
    from stanchion.config import load_settings

    return make_registry(load_settings(file=ctx.obj))
