"""How every command prints: data on stdout, everything said about it on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from stanchion.core.errors import FilesError, Problem, StanchionError

if TYPE_CHECKING:
    from rich.console import Console


class OutputFormat(StrEnum):
    """What a command prints its data as."""

    TEXT = "text"
    JSON = "json"


class ReportFormat(StrEnum):
    """The same for commands that find things in files."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


FormatOption = Annotated[OutputFormat, typer.Option("--format", help="Print text for people, or JSON.")]
ReportFormatOption = Annotated[
    ReportFormat, typer.Option("--format", help="Print text for people, JSON, or SARIF 2.1.0.")
]


def out_console() -> Console:
    """A Rich console on stdout; colours only on a terminal."""
    from rich.console import Console

    return Console(highlight=False)


def err_console() -> Console:
    """A Rich console on stderr, for progress and notes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout, indented, keys as given; structs are accepted."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def note(text: str) -> None:
    """A line about the work, on stderr, so that stdout stays data."""
    typer.echo(text, err=True)


def show_error(error: StanchionError) -> None:
    """An error of the tree as people read it: message, then hint."""
    if isinstance(error, FilesError):
        show_problems(error.problems)
        return
    typer.secho(f"error: {error.message}", err=True, fg="red")
    if error.hint is not None:
        typer.echo(f"  {error.hint}", err=True)


def show_problems(problems: Sequence[Problem]) -> None:
    """Problems of files on stderr, one a line, then their number."""
    for problem in problems:
        typer.echo(problem.render(), err=True)
    typer.secho(f"error: {counted(len(problems), 'problem')} found", err=True, fg="red")


def show_unexpected(error: BaseException, *, is_debug: bool) -> None:
    """A defect of ours: one line, and how to see more. Only its type shows: the message may hold anything."""
    typer.secho(f"unexpected error: {type(error).__name__}", err=True, fg="red")
    if not is_debug:
        typer.echo("  Nothing was judged. See where it happened: stanchion --debug ...", err=True)


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`, `1,200 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
