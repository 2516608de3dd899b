"""`stanchion check`: is the safety folder sound?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stanchion.cli.output import ReportFormat, ReportFormatOption, counted, note, print_json
from stanchion.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from stanchion.governance.checks import CheckReport


def check(
    ctx: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Safety folders, or files and folders inside one. Default: the safety folder."),
    ] = None,
    output_format: ReportFormatOption = ReportFormat.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings count as problems.")] = False,
) -> None:
    """Check every file of a safety folder, and every link between them.

    All problems of all files come at once, each with file:line:column. Exits 1 when there are any.

    Example:
        stanchion check safety --format json
    """
    from stanchion.config import load_settings
    from stanchion.core.clock import SystemClock
    from stanchion.detectors.registry import Registry
    from stanchion.governance.checks import check_paths

    registry = Registry()
    wanted = paths or [load_settings(file=ctx.obj).safety_folder]
    try:
        report = check_paths(wanted, clock=SystemClock(), detectors=registry.ids(), registry=registry)
    except OSError as error:
        raise UsageError(
            f"{error.filename or wanted[0]}: cannot be read: {error.strerror or type(error).__name__}.",
            hint="Let the user that runs the check read every file and folder of the safety folder.",
        ) from error
    _print(report, output_format)
    if report.errors or (strict and report.warnings):
        raise typer.Exit(ExitCode.FOUND)


def _print(report: CheckReport, output_format: ReportFormat) -> None:
    match output_format:
        case ReportFormat.TEXT:
            from stanchion.guard.hold_back import route_lines

            for problem in report.problems:
                mark = "" if problem.severity == "error" else f"{problem.severity}: "
                typer.echo(problem.render().replace(": ", f": {mark}", 1))
            for line in route_lines(report.routes):
                note(line)
            read = f"{counted(report.files, 'file')} of {counted(len(report.features), 'feature')}"
            note(f"{read}: {counted(report.errors, 'problem')}, {counted(report.warnings, 'warning')}")
        case ReportFormat.JSON:
            print_json(
                {
                    "folders": report.folders,
                    "features": report.features,
                    "files": report.files,
                    "errors": report.errors,
                    "warnings": report.warnings,
                    "problems": report.problems,
                    "routes": report.routes,
                }
            )
        case ReportFormat.SARIF:
            from stanchion.core.version import package_version
            from stanchion.files.sarif import from_problem, sarif_log
            from stanchion.governance.rules import RULES

            results = [from_problem(problem) for problem in report.problems]
            print_json(sarif_log(results, tool_version=package_version(), rules=RULES))
