"""Every command and option is told in its help and in the reference, with an example that runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from stanchion.cli.main import COMMANDS, app
from stanchion.cli.reference import commands, pages

DOCS = Path(__file__).parents[2] / "docs"
ALL: list[tuple[tuple[str, ...], Any]] = list(commands())
LEAVES = [(words, command) for words, command in ALL if not getattr(command, "commands", None) and words[1:]]


def example(command: Any) -> str | None:
    """The first line below `Example:` in a command's help."""
    lines = (command.help or "").replace("\b", "").splitlines()
    for number, line in enumerate(lines):
        if line.strip() == "Example:" and number + 1 < len(lines):
            return lines[number + 1].strip()
    return None


@pytest.mark.parametrize(("words", "command"), ALL, ids=[" ".join(words) for words, _ in ALL])
def test_every_command_and_option_has_help(words: tuple[str, ...], command: Any) -> None:
    assert command.help, words
    untold = [p.opts[0] for p in command.params if not getattr(p, "help", None) and "--help" not in p.opts]
    assert untold == []


@pytest.mark.parametrize(("words", "command"), LEAVES, ids=[" ".join(words) for words, _ in LEAVES])
def test_every_command_has_an_example_that_it_accepts(words: tuple[str, ...], command: Any) -> None:
    """The example's words and options are parsed by the real parser; test_docs runs the documented ones."""
    line = example(command)
    assert line is not None, "no `Example:` in the help"
    given = shlex.split(line)
    given = given[given.index("stanchion") :]
    assert tuple(given[: len(words)]) == words
    arguments = [word for word in given[len(words) :] if word not in ("|", ">")]
    root: Any = get_command(app)
    with root.make_context("stanchion", list(words[1:]), resilient_parsing=True):
        context = command.make_context(words[-1], arguments)
        context.close()


def test_every_command_is_in_the_reference() -> None:
    text = (DOCS / "reference/cli.md").read_text(encoding="utf-8")
    for words, command in ALL:
        assert f" {' '.join(words)}\n" in text
        for param in command.params:
            for name in param.opts if param.param_type_name == "option" else ():
                assert f"`{name}" in text or f", {name}" in text


@pytest.mark.parametrize("name", sorted(pages()))
def test_generated_pages_are_what_the_code_says(name: str) -> None:
    path = DOCS / name
    assert path.is_file()
    assert path.read_text(encoding="utf-8") == pages()[name], (
        "stale: run `python -m stanchion.cli.reference docs`"
    )


def test_table_has_no_command_twice() -> None:
    assert len({place for place, _ in COMMANDS.values()}) == len(COMMANDS)
