"""The documentation is run: its commands and its Python work, and every link leads somewhere.

The ```bash and ```python blocks of a page run in order in one scratch folder, so that a page can build on
itself; Python blocks share their names, and a block that says `init` starts with a fresh safety folder.
Blocks that cannot be run are marked ```text.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pattern_cache import give_patterns

ROOT = Path(__file__).parents[1]
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPENING = re.compile(r"^[ \t]*```([^\n]*)\n.*?^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)
HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")
SLOW = re.compile(r"\bstanchion demo\b|--target (local|endpoint)|^\s*make ", re.MULTILINE)
VERDICTS = {("eval", "run"), ("eval", "compare"), ("policy", "test")}
ASSIGNMENTS = re.compile(r"^(\w+=\S*\s+)+")
VERDICT_NOUNS = {"check", "gate", "scan"}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of what a page has run, in order."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(block: str) -> Iterator[str]:
    """The commands of a bash block, each with its here-document and its continued lines."""
    lines = iter(block.splitlines())
    for line in lines:
        command = [line]
        while command[-1].endswith("\\"):
            command.append(next(lines))
        for end in HEREDOC.findall(line):
            command.extend(iter(lambda: next(lines), end))
            command.append(end)
        if line.strip() and not line.lstrip().startswith("#"):
            yield "\n".join(command)


def allowed_codes(command: str) -> set[int]:
    """0; and for one command that gives a verdict also 1 (found something) and 3 (could not judge).

    What a page says a command's verdict to be (`--expect`) must hold.
    """
    if HEREDOC.search(command) or re.search(r"&&|\|\||[;|]| --expect ", command):
        return {0}
    words = [word for word in shlex.split(ASSIGNMENTS.sub("", command)) if not word.startswith("-")]
    is_verdict = words[1:2] and (words[1] in VERDICT_NOUNS or tuple(words[1:3]) in VERDICTS)
    return {0, 1, 3} if words[0] == "stanchion" and is_verdict else {0}


WITH_BLOCKS = [page for page in PAGES if blocks(page)]


def test_there_is_something_to_run() -> None:
    languages = [language for page in WITH_BLOCKS for language, _ in blocks(page)]
    assert languages.count("bash") >= 10
    assert languages.count("python") >= 15


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_block_escapes_being_run(page: Path) -> None:
    """Bash and Python are marked as just that; anything after the name would hide a block from the runs."""
    openings = OPENING.findall(page.read_text(encoding="utf-8"))
    marked = [opening for opening in openings if re.match(r"\W*(bash|shell|console|py)", opening)]
    assert len(marked) == len(blocks(page))
    assert set(marked) <= {"bash", "python"}


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name)
def test_commands_and_code_of_a_page_work(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", PATH)  # what a block starts is the program of this environment
    names: dict[str, Any] = {}
    for language, block in blocks(page):
        if language == "bash":
            run_bash(block, folder=tmp_path)
        else:
            run_python(block, names=names, page=page.name)


def run_bash(block: str, *, folder: Path) -> None:
    """Run every command of a block in one shell, whatever the one before it ended with."""
    asked = [command for command in commands(block) if not SLOW.search(command)]
    if "stanchion init" in block:
        shutil.rmtree(folder / "safety", ignore_errors=True)
    give_patterns(folder / "home/.cache/stanchion")
    codes = folder / ".codes"
    codes.write_text("")
    tell = f'\necho "$?" >>{shlex.quote(str(codes))}\n'
    done = subprocess.run(
        ["bash", "-uo", "pipefail", "-c", "".join(command + tell for command in asked)],
        cwd=folder,
        env={
            "PATH": PATH,
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "http_proxy": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = f"{block}\n{done.stdout}\n{done.stderr}"
    ended = [int(code) for code in codes.read_text().split()]
    assert len(ended) == len(asked), f"{len(ended)} of {len(asked)} commands were run:\n{said}"
    wrong = [(c, code) for c, code in zip(asked, ended, strict=True) if code not in allowed_codes(c)]
    assert wrong == [], said
    assert "unexpected error" not in done.stderr, said
    assert "Traceback" not in done.stderr, said


def run_python(block: str, *, names: dict[str, Any], page: str) -> None:
    """Run a block; where a comment stands below an expression, it is the expression's value."""
    lines = block.splitlines()
    for statement in ast.parse(block).body:
        if not isinstance(statement, ast.Expr):
            exec(compile(ast.Module([statement], []), page, "exec"), names)
            continue
        value = eval(compile(ast.Expression(statement.value), page, "eval"), names)
        below = lines[statement.end_lineno] if statement.end_lineno < len(lines) else ""
        if value is not None and below.startswith("# "):
            assert repr(value) == below.removeprefix("# "), page


def test_a_command_that_did_not_run_or_failed_is_seen(tmp_path: Path) -> None:
    assert allowed_codes("stanchion gate latest --explain") == {0, 1, 3}
    assert allowed_codes("STANCHION_POLICY=x stanchion --quiet check safety") == {0, 1, 3}
    assert allowed_codes("stanchion eval show latest") == {0}
    run_bash("echo My card is 4111 1111 1111 1111. >a.txt\nstanchion scan a.txt\ntrue", folder=tmp_path)
    with pytest.raises(AssertionError, match="0 of 2 commands were run"):
        run_bash("exit 0\ntrue", folder=tmp_path)
    wrong = "stanchion policy test default --text hi --expect block"
    for block in (wrong, "false\ntrue", "stanchion check nowhere", "true | false"):
        with pytest.raises(AssertionError):
            run_bash(block, folder=tmp_path)
    with pytest.raises(AssertionError):
        run_python("1 + 1\n# 3\n", names={}, page="here")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or not path.is_relative_to(ROOT) or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in HEADING.findall(text)]
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def test_decisions_are_numbered_once_and_titled_alike() -> None:
    numbers = []
    for page in (ROOT / "docs/adr").glob("*.md"):
        number = int(page.name[:4])
        first = page.read_text(encoding="utf-8").splitlines()[0]
        assert re.match(rf"# 0*{number}\. [\w`]", first), page.name
        numbers.append(number)
    assert len(numbers) == len(set(numbers))
