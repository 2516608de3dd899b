"""`stanchion init`: a working safety folder to start from."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from stanchion.cli.output import FormatOption, OutputFormat, counted, note, print_json


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the folder safety/ is made; default: here.")
    ] = Path(),
    profile: Annotated[
        str,
        typer.Option("--profile", help="What to start from: startup, saas, devtools, consumer or regulated."),
    ] = "startup",
    feature: Annotated[
        str, typer.Option("--feature", help="The feature's name: lower-case letters, digits and '-'.")
    ] = "assistant",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and write nothing.")] = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Write a safety folder that passes `stanchion check`.

    Nothing is overwritten. In a folder that has one already, another feature is added to it. The commands to
    go on with are printed at the end; both work offline.

    Example:
        stanchion init --profile saas --feature search-assistant
    """
    from stanchion.core.clock import SystemClock
    from stanchion.governance.scaffold import plan_scaffold

    today = SystemClock().now().date()
    plan = plan_scaffold(folder, profile=profile, feature=feature, today=today)
    existing = plan.existing()
    paths = [folder / file.path for file in plan.files] if dry_run else list(plan.write())
    if output_format is OutputFormat.JSON:
        print_json(
            {
                "profile": plan.profile,
                "feature": plan.feature,
                "dry_run": dry_run,
                "files": [str(path) for path in paths],
                "existing": [str(path) for path in existing],
            }
        )
        return
    for path in paths:
        typer.echo(f"{path}{' (exists: init would refuse)' if path in existing else ''}")
    if dry_run:
        note(f"{counted(len(paths), 'file')}; nothing was written")
    else:
        note(f"{counted(len(paths), 'file')} written; next: stanchion check {quote(str(folder / 'safety'))}")
        note(f"      then: stanchion eval run {quote(str(plan.suites[0]))}")
        note(f"It asks {plan.target}, a stand-in that fails: put your own call there, or give --target.")
