"""`stanchion config`: what is set, and where each value came from."""

from __future__ import annotations

import typer

from stanchion.cli.output import FormatOption, OutputFormat, print_json
from stanchion.config import Settings, load_settings

app = typer.Typer(help="See the settings.", rich_markup_mode=None, add_completion=False)


@app.callback()
def config() -> None:
    """See the settings.

    Example:
        stanchion config show
    """


@app.command()
def show(ctx: typer.Context, output_format: FormatOption = OutputFormat.TEXT) -> None:
    """Print every setting, its value (secrets masked) and where it came from.

    Example:
        stanchion config show --format json
    """
    settings = load_settings(file=ctx.obj)
    rows = [(name, settings.shown(name), settings.source(name)) for name in Settings.model_fields]
    if output_format is OutputFormat.JSON:
        print_json(
            {
                name: {"value": value, "source": source.kind, "detail": source.detail}
                for name, value, source in rows
            }
        )
        return
    name_width = max(len(name) for name, _, _ in rows)
    value_width = min(60, max(len(value or "-") for _, value, _ in rows))
    for name, value, source in rows:
        typer.echo(f"{name:<{name_width}}  {value or '-':<{value_width}}  {source}")
