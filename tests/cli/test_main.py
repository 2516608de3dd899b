"""The edge where errors end: what is printed, where, and with which exit code."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stanchion.cli import main as main_module
from stanchion.cli.main import COMMANDS, app, load_command
from stanchion.cli.main import main as run_main
from stanchion.core.errors import (
    BlockedError,
    DatasetError,
    FilesError,
    IntegrityError,
    Problem,
    StanchionError,
    UnavailableError,
    UsageError,
)
from stanchion.core.version import package_version


def fails_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `stanchion explode` raise an error."""

    def explode() -> None:
        raise error

    monkeypatch.setattr(main_module, "_explode", explode, raising=False)
    monkeypatch.setitem(COMMANDS, "explode", ("stanchion.cli.main:_explode", "Fail."))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("what failed.", hint="Do this."), 2),
        (DatasetError("f.jsonl", 3, "what failed.", hint="Do this."), 2),
        (UnavailableError("what failed.", hint="Do this."), 3),
        (BlockedError("what failed.", reference="r", hint="Do this."), 1),
        (IntegrityError("what failed.", hint="Do this."), 1),
        (StanchionError("what failed.", hint="Do this."), 3),
    ],
)
def test_errors_of_the_tree_are_printed_once_on_stderr(
    error: StanchionError, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fails_with(error, monkeypatch)
    assert run_main(["explode"]) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("what failed.") == 1
    assert err.endswith("  Do this.\n")
    assert "Traceback" not in err


def test_problems_of_files_are_listed_one_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    problem = Problem(file="a.yaml", line=2, column=3, rule="r", message="wrong.", hint="Right it.")
    fails_with(FilesError([problem, problem]), monkeypatch)
    assert run_main(["explode"]) == 2
    assert capfd.readouterr().err.splitlines() == [
        "a.yaml:2:3: wrong. Right it.",
        "a.yaml:2:3: wrong. Right it.",
        "error: 2 problems found",
    ]


def test_an_unexpected_error_is_no_pass_and_shows_no_text(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fails_with(ValueError("with somebody's private text"), monkeypatch)
    assert run_main(["explode"]) == 3
    err = capfd.readouterr().err
    assert err.startswith("unexpected error: ValueError\n")
    assert "--debug" in err
    assert "private" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize("code", [0, None, 1, "words"])
def test_code_that_ends_the_process_ends_it_as_not_judged(
    code: object, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fails_with(SystemExit(code), monkeypatch)
    assert run_main(["explode"]) == 3
    assert capfd.readouterr().err.startswith("unexpected error: SystemExit\n")


def test_debug_prints_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fails_with(ValueError("the reason"), monkeypatch)
    assert run_main(["--debug", "explode"]) == 3
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert "the reason" in err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (typer.Abort(), 130)])
def test_interrupts_have_their_own_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fails_with(error, monkeypatch)
    assert run_main(["explode"]) == code
    assert "Traceback" not in capfd.readouterr().err


def test_the_test_runner_sees_the_same_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    fails_with(UnavailableError("x"), monkeypatch)
    assert CliRunner().invoke(app, ["explode"]).exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chek"], "No such command 'chek'. Did you mean 'check'?"),
        (["check", "--formt", "json"], "--formt"),
        (["check", "--format", "xml"], "'xml'"),
        (["--nope"], "--nope"),
    ],
)
def test_usage_errors_exit_2_and_say_what_would_be_right(
    arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert said in err


def test_version_and_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_main(["--version"]) == 0
    assert capfd.readouterr().out == f"stanchion {package_version()}\n"
    assert run_main(["--help"]) == 0
    text = capfd.readouterr().out
    for name, (_, short) in COMMANDS.items():
        assert name in text
        assert short.split()[0] in text


def test_help_imports_no_command() -> None:
    code = textwrap.dedent(
        """
        import sys
        from stanchion.cli.main import COMMANDS, main
        main(["--help"])
        homes = {place.partition(":")[0] for place, _ in COMMANDS.values()}
        heavy = {"numpy", "pydantic", "sqlalchemy", "aiohttp", "hyperscan", "yaml", "rich.console"}
        print(sorted((homes | heavy) & set(sys.modules)), file=sys.stderr)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_table_is_sorted_and_says_what_the_command_says() -> None:
    assert list(COMMANDS) == sorted(COMMANDS)
    for name, (_, short) in COMMANDS.items():
        command: Any = load_command(name)
        first = command.help.removeprefix("\b\n").split("\n")[0]
        assert first.startswith(short.removesuffix(".")), name


def test_a_closed_pipe_is_no_finding(tmp_path: Path) -> None:
    """`stanchion ... | head` must not look like exit 1, which means that something was found."""
    code = textwrap.dedent(
        """
        import sys
        import typer
        from stanchion.cli import main as m
        def flood() -> None:
            for _ in range(200_000):
                typer.echo("x" * 80)
        m.flood = flood
        m.COMMANDS["flood"] = ("stanchion.cli.main:flood", "Write much.")
        sys.exit(m.main(["flood"]))
        """
    )
    script = tmp_path / "flood.py"
    script.write_text(code)
    shell = f"'{sys.executable}' '{script}' | head -1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "141"
    assert done.stderr == ""
