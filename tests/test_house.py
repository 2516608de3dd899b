"""The rules of the house that no linter knows: ceilings, names, empty inner packages, quiet imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/stanchion"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if "data" not in path.relative_to(SOURCE).parts)
FILE_LINES = 500
FUNCTION_LINES = 60
POSITIONAL = 4
EXCEPTIONS: frozenset[str] = frozenset()  # stays empty
FORBIDDEN_MODULES = {
    "utils",
    "util",
    "common",
    "helpers",
    "helper",
    "manager",
    "managers",
    "misc",
    "controls",
}
FORBIDDEN_CLASSES = {"Span"}


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def python_files() -> list[Path]:
    folders = ("src", "tests", "bench", "examples", "training")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_no_file_is_longer_than_the_ceiling() -> None:
    long = {place(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}
    assert {p: n for p, n in long.items() if n > FILE_LINES and p not in EXCEPTIONS} == {}


def test_no_function_is_longer_than_the_ceiling() -> None:
    long = {
        f"{place(path)}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in python_files()
        for node in functions(path)
    }
    assert {p: n for p, n in long.items() if n > FUNCTION_LINES} == {}


def test_no_function_takes_more_than_four_by_position() -> None:
    """Commands are apart: Typer calls them by keyword. So is what a callback is given and does not use."""
    wide = []
    for path in MODULES:
        if path.parent.name == "cli":
            continue
        for node in functions(path):
            names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
            counted = [each for each in names if each not in ("self", "cls") and not each.startswith("_")]
            if len(counted) > POSITIONAL:
                wide.append(f"{place(path)}:{node.lineno} {node.name}({', '.join(counted)})")
    assert wide == []


def test_names_say_something() -> None:
    parts = {part.removesuffix(".py") for path in MODULES for part in path.relative_to(SOURCE).parts}
    assert parts & FORBIDDEN_MODULES == set()
    classes = {
        node.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    assert classes & FORBIDDEN_CLASSES == set()


def test_inner_packages_are_empty() -> None:
    inner = [path for path in SOURCE.rglob("__init__.py") if path.parent != SOURCE]
    assert [place(path) for path in inner if path.read_text(encoding="utf-8").strip()] == []


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in MODULES if path.parent != SOURCE}
    assert [place(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_no_module_imports_from_the_root() -> None:
    found = [
        f"{place(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.module == "stanchion" and not node.level)
        or (isinstance(node, ast.ImportFrom) and node.level)
        or (isinstance(node, ast.Import) and any(alias.name == "stanchion" for alias in node.names))
    ]
    assert [p for p in found if not p.startswith("src/stanchion/__init__.py")] == []


def test_silenced_warnings_name_their_code() -> None:
    bare = re.compile(r"#\s*(noqa(?!:)|type:\s*ignore(?!\[))")
    found = [
        f"{place(path)}:{number}"
        for path in MODULES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if bare.search(line)
    ]
    assert found == []


def test_nothing_in_the_source_names_this_machine() -> None:
    bad = re.compile(r"/(?:work|root|home/\w+)/\w")
    found = [
        f"{place(path)}:{number}"
        for path in (*MODULES, *(ROOT / "docs").rglob("*.md"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if bad.search(line)
    ]
    assert found == []


def test_the_public_names_exist_and_are_few() -> None:
    import stanchion

    assert len(stanchion.__all__) <= 20
    assert all(getattr(stanchion, name) is not None for name in stanchion.__all__)


CLEAN_IMPORT = textwrap.dedent(
    """
    import builtins, importlib, socket, sys, threading

    def refuse(*a, **k):
        raise AssertionError("a module reached outside when it was imported")

    import stanchion
    names = sys.argv[1].split(",")
    plain_print, started = print, threading.active_count()
    socket.socket.connect = socket.socket.bind = socket.create_connection = refuse
    socket.getaddrinfo = refuse
    builtins.print = refuse
    failed = []
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
    if threading.active_count() != started:
        failed.append(f"threads were started: {threading.enumerate()}")
    plain_print("\\n".join(failed))
    """
)


def module_names() -> list[str]:
    names = []
    for path in MODULES:
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def by_package() -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for each in module_names():
        parts = each.split(".")
        groups.setdefault(parts[1] if len(parts) > 2 else "(top)", []).append(each)
    return groups


@pytest.mark.parametrize("package", sorted(by_package()))
def test_every_module_imports_in_a_fresh_process_without_reaching_outside(package: str) -> None:
    """Each package in a process of its own, in reverse order, so that no module leans on an earlier one."""
    names = sorted(by_package()[package], reverse=True)
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:stanchion", "-c", CLEAN_IMPORT, ",".join(names)],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"},
    )
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "", "")
