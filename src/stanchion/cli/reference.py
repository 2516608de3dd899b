"""Writes the reference pages that are made from the code: `python -m stanchion.cli.reference docs`.

With `--check` nothing is written; it exits 1 when a page is not what the code says.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import EnumType
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command as build_command

from stanchion.cli.main import COMMANDS, app, load_command
from stanchion.cli.output import note
from stanchion.config import FOREIGN_VARIABLES, SETTINGS_FILE, Settings, variable_of
from stanchion.core.errors import ExitCode
from stanchion.files.references import Secret
from stanchion.telemetry.metrics import MAX_LABEL_VALUES, METRICS, OTHER

_MADE = "<!-- Made by `python -m stanchion.cli.reference docs`; do not edit. -->"
_NO_DEFAULT = (None, (), "", False)


def pages() -> dict[str, str]:
    """The generated pages by their path below `docs/`."""
    return {
        "reference/cli.md": cli_page(),
        "reference/configuration.md": configuration_page(),
        "reference/metrics.md": metrics_page(),
    }


def metrics_page() -> str:
    """The page of all metrics."""
    lines = [
        _MADE,
        "",
        "# Metrics",
        "",
        "What `/metrics` of the gateway shows, in Prometheus's text format. Labels hold ids and words of",
        f"fixed lists; a label with more than {MAX_LABEL_VALUES} values says `{OTHER}` from then on.",
        "",
        "| metric | kind | labels | what it is |",
        "|---|---|---|---|",
    ]
    for one in METRICS:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {one.help} |")
    return "\n".join([*lines, ""])


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and subcommand with its words, the root first; each is imported."""
    yield ("stanchion",), build_command(app)
    for name in COMMANDS:
        yield from _walk(("stanchion", name), load_command(name))


def cli_page() -> str:
    """The page of all commands."""
    parts = [
        _MADE,
        "",
        "# Commands",
        "",
        "Exit codes are the same everywhere: 0 fine, 1 found something, 2 usage, 3 could not judge, "
        "4 done, and it reaches nothing. Data goes to stdout, everything said about it to stderr.",
        "",
    ]
    for words, command in commands():
        parts.extend(_command_section(words, command))
    return "\n".join(parts).rstrip() + "\n"


def configuration_page() -> str:
    """The page of all settings."""
    parts = [
        _MADE,
        "",
        "# Configuration",
        "",
        f"Settings come from four places; later ones win: defaults, `{SETTINGS_FILE}`, the environment, "
        f"flags. The file is the nearest `{SETTINGS_FILE}` in the current folder or above it; `--config` or "
        "`STANCHION_CONFIG` names another. Relative paths in it start at its folder, and its values may hold "
        "[references](files.md) such as `${env:NAME}`. An unknown key and an unknown `STANCHION_` variable "
        "are errors.",
        "",
        "See what is set, and where each value came from:",
        "",
        "```bash",
        "stanchion config show",
        "```",
        "",
        "| key in the file | variable | default | what it is |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        variables = f"`{variable_of(name)}`"
        if name in FOREIGN_VARIABLES:
            variables += f", `{FOREIGN_VARIABLES[name]}`"
        parts.append(
            f"| `{name}` | {variables} | {_default(field.default)} | {_cell(field.description or '')} |"
        )
    return "\n".join(parts) + "\n"


def _default(value: Any) -> str:
    if value is None or isinstance(value, Secret) or value == Path():
        return "see there" if value is not None else "none"
    return f"`{value}`"


def _walk(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _walk((*words, name), child)


def _command_section(words: tuple[str, ...], command: Any) -> list[str]:
    level = "#" * min(len(words) + 1, 4)
    parts = [f"{level} {' '.join(words)}", ""]
    for paragraph in (command.help or "").replace("\b\n", "").split("\n\n"):
        if paragraph.startswith("Example"):
            lines = [line.strip() for line in paragraph.splitlines()[1:]]
            parts.extend(["```text", *lines, "```", ""])
        else:
            parts.extend([" ".join(paragraph.split()), ""])
    parts.extend(_parameter_table(command))
    return parts


def _parameter_table(command: Any) -> list[str]:
    rows = []
    for param in command.params:
        if getattr(param, "hidden", False) or "--help" in param.opts:
            continue
        is_option = param.param_type_name == "option"
        name = (
            ", ".join([*param.opts, *param.secondary_opts])
            if is_option
            else (param.metavar or param.name).upper()
        )
        default = param.default() if callable(param.default) else param.default
        shown = (
            ""
            if default in _NO_DEFAULT or not isinstance(default, str | int | float | Path)
            else f"`{default}`"
        )
        needed = "required" if param.required else shown
        kind: Any = getattr(param.type_descriptor, "annotation", None)
        members: list[Any] = list(kind) if isinstance(kind, EnumType) else []
        choices = [str(member.value) for member in members]
        listed = f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""
        told = _cell(getattr(param, "help", None) or "")
        rows.append(f"| `{name}` | {told}{listed} | {needed} |")
    return ["| parameter | what it does | default |", "|---|---|---|", *rows, ""] if rows else []


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(
    docs: Annotated[Path, typer.Argument(help="The folder docs/.")] = Path("docs"),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 when a page is stale.")
    ] = False,
) -> None:
    """Write the generated reference pages."""
    stale = []
    for name, text in pages().items():
        path = docs / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    verb = "stale" if check else "written"
    note(f"{verb}: {', '.join(stale)}" if stale else "every page is what the code says")
    if check and stale:
        raise typer.Exit(ExitCode.FOUND)


if __name__ == "__main__":
    typer.run(main)
