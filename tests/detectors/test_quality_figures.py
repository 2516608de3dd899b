"""The quality bench: what a figure may say, and that absent data is skipped with a reason."""

from __future__ import annotations

import gzip
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "detection"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("figures")


def figure(figures: Any, *, k: int, n: int, goal: str = "") -> Any:
    return figures.Figure(
        detector="d",
        version="1",
        threshold=0.5,
        source="s",
        digest="0",
        measure="recall",
        k=k,
        n=n,
        goal=goal,
    )


@pytest.mark.parametrize(
    ("k", "goal", "status"),
    [(95, ">= 95 %", "met"), (94, ">= 95 %", "missed"), (2, "<= 2 %", "met"), (3, "<= 2 %", "missed"),
     (50, "", "not gated")],
)  # fmt: skip
def test_a_goal_is_judged_by_the_rate(figures: Any, k: int, goal: str, status: str) -> None:
    assert figure(figures, k=k, n=100, goal=goal).status == status


def test_a_figure_without_cases_or_with_a_vague_goal_is_refused(figures: Any) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        figure(figures, k=0, n=0)
    with pytest.raises(ValueError, match="is no goal"):
        figure(figures, k=1, n=2, goal="high")


def test_rows_are_read_with_their_digest_and_split_by_id(figures: Any, tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": "x", "label": i % 2} for i in range(200)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    plain, packed = figures.read_source(tmp_path, "a.jsonl"), figures.read_source(tmp_path, "b.jsonl.gz")
    assert plain.rows == packed.rows == rows
    assert plain.digest != packed.digest
    first, second = plain.half("A"), plain.half("B")
    assert len(first.rows) + len(second.rows) == 200
    assert 60 < len(first.rows) < 140
    assert not {row["id"] for row in first.rows} & {row["id"] for row in second.rows}


def test_absent_data_is_skipped_with_a_reason(figures: Any, tmp_path: Path) -> None:
    source = figures.read_source(tmp_path, "none.jsonl")
    measured = figures.Measured(detector="secrets", threshold=0.5)
    (line,) = measured.by_label(source)
    assert isinstance(line, figures.Skipped)
    assert "none.jsonl" in line.reason


@pytest.mark.parametrize("form", ["text", "json", "markdown"])
def test_the_runner_names_what_it_skips(tmp_path: Path, form: str) -> None:
    command = [sys.executable, str(BENCH / "quality.py"), "--only", "refusal", "--data", str(tmp_path)]
    done = subprocess.run([*command, "--format", form], capture_output=True, text=True, check=True)
    assert "refusal/xstest_completions.train.jsonl is not in the data folder" in done.stdout


def test_an_unknown_area_is_named(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "quality.py"), "--only", "refusals", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown area: refusals" in done.stderr
