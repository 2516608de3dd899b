"""Options of the wrong type or value are refused where they are written, for every packaged detector."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_registry import NEEDS

from stanchion.core.errors import FilesError, UsageError
from stanchion.detectors.options import GIVEN, OptionError
from stanchion.detectors.registry import BUILTIN, Registry
from stanchion.guard.pipeline import Guard

# None of them is what an option of the other types takes; what fits one is taken.
VALUES: tuple[Any, ...] = ("x", 1.5, [1], ["a"], {"a": "b"}, True, -1, 10**30, float("nan"), "", None, [None])


def options_of(name: str) -> list[str]:
    factory = Registry().factory(name)
    taken = [
        p.name
        for p in inspect.signature(factory).parameters.values()
        if p.kind is not p.VAR_KEYWORD and p.name not in {*GIVEN, "base"}
    ]
    return [*taken, "minimum", "no_such_option"]


@pytest.mark.parametrize("name", BUILTIN)
def test_no_option_of_any_type_is_an_unexpected_error(name: str, tmp_path: Path) -> None:
    """Taken, or refused as a usage error: nothing else."""
    if [part for part in NEEDS.get(name, ()) if find_spec(part) is None]:
        pytest.skip(f"{name} needs {NEEDS[name]}")
    registry, refused = Registry(), 0
    for option in options_of(name):
        for value in VALUES:
            given = {option: value, "base": tmp_path} if option == "folder" else {option: value}
            try:
                registry.create(name, **given)
            except UsageError:
                refused += 1
    assert refused >= len(VALUES)  # at least the one that does not exist


@pytest.mark.parametrize(
    ("detector", "written", "line", "said"),
    [
        ("content", "minimum: high", 6, "option 'minimum' has another type"),
        ("content", "locales: [a]", 6, "option 'locales' has another type"),
        ("content", "categories: content.hate", 6, "option 'categories' has another type"),
        ("content", "minimum: 3", 6, "minimum 3 is not a score"),
        ("moderation.openai", "minimum: '0.5'", 6, "option 'minimum' has another type"),
        ("model.generative_guard", "deadline_s: x", 6, "option 'deadline_s' has another type"),
        ("leakage", "minimum: 0.4", 6, "option 'minimum' does not"),
        ("judge", "votes: 100", 6, "votes are 1 to 9"),
        ("judge", "rubric: contnt", 6, "unknown rubric 'contnt'. Did you mean 'content'"),
        ("content", "minimun: 0.4", 6, "option 'minimun' does not exist. Did you mean 'minimum'"),
        ("judge", "scanner: 1", 6, "option 'scanner' does not exist"),
    ],
)
def test_a_refused_option_is_told_with_its_place(
    detector: str, written: str, line: int, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        f"version: 1\nextends: [default]\ndetectors:\n  {detector}:\n    options:\n      {written}\n"
    )
    with pytest.raises(FilesError, match=f"policy.yaml:{line}:") as caught:
        Guard.load(file)
    assert said in str(caught.value)
    assert yaml.safe_load(file.read_text())["detectors"][detector]["options"]


def test_what_is_wrong_in_an_extended_file_is_told_there(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "version: 1\nextends: [default]\ndetectors:\n  content:\n    options: {minimum: high}\n"
    )
    (tmp_path / "policy.yaml").write_text("version: 1\nextends: [base.yaml]\n")
    with pytest.raises(FilesError, match=r"base.yaml:5:24: .*'minimum' has another type"):
        Guard.load(tmp_path / "policy.yaml")


def test_an_option_of_no_file_names_itself() -> None:
    with pytest.raises(OptionError, match=r"'minimum' has another type \(should be a valid number"):
        Registry().create("content", minimum="high")
