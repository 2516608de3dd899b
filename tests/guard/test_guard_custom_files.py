"""A policy's own pattern files stay inside its project, and other files are never quoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from stanchion.core.decision import Effect
from stanchion.core.errors import FilesError, StanchionError, UsageError
from stanchion.detectors.registry import Registry
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy import read_policy

CATALOGUE = """catalogue: mine
version: 1
source: made for this test
patterns:
- id: custom.ticket
  pattern: 'TICKET-[0-9]{4}'
  category: custom.pattern
  score: 0.9
  examples: ['TICKET-1234']
  counter_examples: ['TICKET']
"""


def project(folder: Path, file: str, more: str = "") -> Path:
    """A project with its root mark, a policy two folders down, and a file outside of it."""
    (folder / "outside.yaml").write_text(CATALOGUE)
    (folder / "outside.txt").write_text("hunter2-outside")
    root = folder / "project"
    (root / "policies").mkdir(parents=True)
    (root / "stanchion.yaml").write_text("version: 1\n")
    (root / "mine.yaml").write_text(CATALOGUE)
    (root / "notes.txt").write_text("hunter2-inside")
    (root / "env.yaml").write_text("password: hunter2-inside\n")
    policy = root / "policies" / "policy.yaml"
    policy.write_text(
        "version: 1\n"
        f"detectors: {{custom: {{options: {{files: ['{file}']{more}}}}}}}\n"
        "rules: [{id: r, when: {category: custom.pattern}, effect: block}]\n"
    )
    return policy


def test_a_file_elsewhere_in_the_project_is_read(tmp_path: Path) -> None:
    made = Guard.load(project(tmp_path, "../mine.yaml"))

    assert made.check("see TICKET-1234").decision.effect is Effect.BLOCK


@pytest.mark.parametrize("file", ["../../outside.yaml", "../../outside.txt", "../link.yaml", "/etc/hostname"])
def test_a_file_outside_the_project_is_refused_unread(tmp_path: Path, file: str) -> None:
    policy = project(tmp_path, file)
    (tmp_path / "project" / "link.yaml").symlink_to(tmp_path / "outside.yaml")

    with pytest.raises(
        UsageError, match=r"detector 'custom', option 'files': path '.*' (leaves|is absolute)"
    ) as e:
        Guard.load(policy)
    assert "hunter2" not in str(e.value)


def test_a_policy_cannot_say_where_its_files_start(tmp_path: Path) -> None:
    policy = project(tmp_path, "outside.yaml", f", base: '{tmp_path}'")

    with pytest.raises(FilesError, match="option 'base' is not for policies"):
        read_policy(policy, detectors=Registry().ids())


@pytest.mark.parametrize("file", ["../notes.txt", "../env.yaml"])
def test_what_is_no_catalogue_is_not_quoted(tmp_path: Path, file: str) -> None:
    with pytest.raises(StanchionError, match="this is no catalogue of patterns") as caught:
        Guard.load(project(tmp_path, file))

    assert "hunter2" not in str(caught.value)
    assert "password" not in str(caught.value)


def test_a_catalogue_with_a_mistake_is_explained_as_before(tmp_path: Path) -> None:
    policy = project(tmp_path, "../mine.yaml")
    broken = CATALOGUE.replace("score: 0.9", "score: high")
    (tmp_path / "project" / "mine.yaml").write_text(broken)

    with pytest.raises(FilesError, match=r"mine\.yaml:8:10: patterns\[0\]\.score"):
        Guard.load(policy)


def test_an_unknown_detector_is_told_together_with_what_the_schema_says(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nmedai: block\ndetectors: {pi: {}, pii: {threshold: 2}}\n")

    with pytest.raises(FilesError) as caught:
        read_policy(policy, detectors=("pii", "secrets"))
    found = [(problem.line, problem.rule) for problem in caught.value.problems]

    assert len(found) == 3
    assert (3, "unknown-detector") in found
