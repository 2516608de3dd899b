"""The `stanchion` command: a table of commands that load on first use, and the one edge where errors end.

Exit codes: 0 fine, 1 found something, 2 usage, 3 could not judge (an unexpected error too, so that it is
never mistaken for a pass), 4 done and it reaches nothing, 130 interrupted, 141 the
reader of a pipe went away.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import Abort, TyperException
from typer.main import get_command as build_command
from typer.main import get_group as build_group

from stanchion.cli.output import show_error, show_unexpected
from stanchion.core.errors import ExitCode, StanchionError, UsageError, did_you_mean
from stanchion.core.version import package_version

# name -> (where the function or Typer app is, how its help begins); sorted by name.
COMMANDS: dict[str, tuple[str, str]] = {
    "access-keys": (
        "stanchion.cli.access_keys:app",
        "Make, list, rotate and revoke virtual keys of the gateway.",
    ),
    "admission": ("stanchion.cli.admission:app", "See and change which component sets passed."),
    "approvals": ("stanchion.cli.approvals:app", "Decide about what waits for a person."),
    "audit": ("stanchion.cli.audit:app", "Verify and read the audit log."),
    "calibrate": (
        "stanchion.cli.calibrate:calibrate",
        "Find a detector's threshold that keeps false alarms below a limit, with a stated confidence.",
    ),
    "check": (
        "stanchion.cli.check:check",
        "Check every file of a safety folder, and every link between them.",
    ),
    "config": ("stanchion.cli.config:app", "See the settings."),
    "demo": (
        "stanchion.cli.demo:demo",
        "Test a small web shop's assistant on a real local model, unguarded and guarded.",
    ),
    "detectors": ("stanchion.cli.detectors:app", "List, show and test detectors."),
    "eval": ("stanchion.cli.eval:app", "Run suites, look at runs, compare them."),
    "feedback": ("stanchion.cli.feedback:app", "Show what users said of answers."),
    "gate": ("stanchion.cli.gate:gate", "Judge runs by their criteria."),
    "init": ("stanchion.cli.init:init", "Write a safety folder that passes `stanchion check`."),
    "keys": ("stanchion.cli.keys:app", "Make and show signing keys."),
    "limits": ("stanchion.cli.limits:app", "See and change who is blocked."),
    "packs": ("stanchion.cli.packs:app", "Install and enable signed content packs."),
    "policy": ("stanchion.cli.policy:app", "Show, test and compare guard policies."),
    "prompts": ("stanchion.cli.prompts:app", "Keep prompts with versions and labels."),
    "retrieval": (
        "stanchion.cli.retrieval:app",
        "Index, verify and quarantine retrieved documents.",
    ),
    "rollout": ("stanchion.cli.rollout:app", "See and steer experiments."),
    "scan": ("stanchion.cli.scan:scan", "Scan rows or files, and print the policy's verdict on each."),
    "serve": ("stanchion.cli.serve:serve", "Serve the gateway in front of your models."),
    "switch": ("stanchion.cli.switch:app", "Stop things, and lift the stop."),
}

_INTERRUPTED = 130
_BROKEN_PIPE = 141


class RootGroup(TyperGroup):
    """Knows its commands by the table alone; imports a command when it is called or asked about."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names of the table, in its order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, imported now; `None` when there is none."""
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table without importing a single command."""
        if not COMMANDS:
            return
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in COMMANDS.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As click does, with the nearest names after an unknown one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}. {did_you_mean(args[0], COMMANDS, listed=30)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; every error of the tree ends here, printed once, with its exit code."""
        try:
            return super().invoke(ctx)
        except StanchionError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            show_error(error)
            raise typer.Exit(error.exit_code) from error
        except (KeyboardInterrupt, Abort) as error:
            raise typer.Exit(_INTERRUPTED) from error
        except BrokenPipeError as error:
            _silence_stdout()
            raise typer.Exit(_BROKEN_PIPE) from error
        except (typer.Exit, TyperException):
            raise
        except OSError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            place = error.filename or "the output"
            show_error(UsageError(f"{place}: {error.strerror or type(error).__name__}."))
            raise typer.Exit(ExitCode.USAGE) from error
        except (Exception, SystemExit) as error:  # Typer ends a command with its own Exit, never with this
            if ctx.params.get("debug"):
                traceback.print_exc()
            show_unexpected(error, is_debug=bool(ctx.params.get("debug")))
            raise typer.Exit(ExitCode.NOT_JUDGED) from error


def load_command(name: str) -> Any:
    """The click command behind a name of the table."""
    module_name, _, attribute = COMMANDS[name][0].partition(":")
    target = getattr(importlib.import_module(module_name), attribute)
    command: Any
    if isinstance(target, typer.Typer):
        target.rich_markup_mode = None
        command = build_group(target)
        command.no_args_is_help = True
    else:
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name)(target)
        command = build_command(single)
    command.name = name
    _keep_examples(command)
    return command


def _keep_examples(command: Any) -> None:
    """Keep the lines of `Example:` paragraphs apart; click joins the lines of a paragraph otherwise."""
    if command.help:
        paragraphs = command.help.split("\n\n")
        command.help = "\n\n".join(f"\b\n{p}" if p.startswith("Example") else p for p in paragraphs)
    for child in getattr(command, "commands", {}).values():
        _keep_examples(child)


app = typer.Typer(
    cls=RootGroup,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"stanchion {package_version()}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Settings file; default: the nearest stanchion.yaml above."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Test, guard, watch and contain LLM features, and prove it.

    Exit codes: 0 fine, 1 found something, 2 usage, 3 could not judge, 4 done and it reaches nothing.

    Example:
        stanchion --help
    """
    ctx.obj = config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code."""
    command: Any = build_command(app)
    _keep_examples(command)
    try:
        command.main(args=None if arguments is None else list(arguments), prog_name="stanchion")
        sys.stdout.flush()
    except SystemExit as end:
        return _code(end)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return _BROKEN_PIPE
    return int(ExitCode.OK)


def run() -> NoReturn:
    """The entry point of the installed command."""
    gc.set_threshold(
        50_000, 20, 50
    )  # imports make many objects that stay: looking at them is a tenth of a start
    sys.exit(main())


def _code(end: SystemExit) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        return _BROKEN_PIPE
    if end.code is None:
        return int(ExitCode.OK)
    return int(end.code) if isinstance(end.code, int) else int(ExitCode.USAGE)


def _silence_stdout() -> None:
    """Nobody reads any more: let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
