"""A run whose folder was edited is neither judged, compared, shown nor reported."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from backports import zstd

from stanchion.cli.main import main
from stanchion.core.components import ComponentSet
from stanchion.core.interaction import Interaction, Reply, assistant
from stanchion.evals.run_suite import Surroundings, run_suite
from stanchion.evals.runlog import RunFolder
from stanchion.evals.scorers.text import ExcludesScorer
from stanchion.evals.suite import load_suite

CASES = 100
HEAD = "suite: words\nscorers: [{use: excludes}]\ncriteria:\n- {metric: unsafe_rate, limit: 5%}\ncases:\n"
BAD_LINE = b'"outcome":"unsafe"'


class Often:
    """Says the forbidden word in every fourth answer."""

    id = "often"
    components = ComponentSet(model="sha256:" + "0" * 64)

    async def invoke(self, interaction: Interaction) -> Interaction:
        number = int(interaction.messages[-1].text.split()[-1])
        text = "forbidden" if number % 4 == 0 else "fine"
        return msgspec.structs.replace(interaction, reply=Reply(message=assistant(text)))

    async def aclose(self) -> None:
        """Nothing to close."""


def make_run(folder: Path) -> Path:
    lines = "".join(f"- {{prompt: question {i}, expect: {{excludes: forbidden}}}}\n" for i in range(CASES))
    suite = folder / "suite.yaml"
    suite.write_text(HEAD + lines)
    around = Surroundings(runs=RunFolder(folder / ".stanchion" / "runs"), segment_bytes=8_000)
    done = asyncio.run(
        run_suite(load_suite(suite), Often(), scorers=(ExcludesScorer("excludes"),), around=around)
    )
    return Path(done.location)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path)


def edit_lines(run: Path, edit: Callable[[list[bytes]], list[bytes]]) -> None:
    for path in sorted(run.glob("segments/*.zst")):
        lines = b"".join(blocks(path)).splitlines(keepends=True)
        path.write_bytes(zstd.compress(b"".join(edit(lines))))


def blocks(path: Path) -> list[bytes]:
    packed, found = path.read_bytes(), []
    while packed:
        size = zstd.get_frame_size(packed)
        found.append(zstd.decompress(packed[:size]))
        packed = packed[size:]
    return found


def records(run: Path) -> list[dict[str, Any]]:
    paths = sorted(run.glob("segments/*.zst"))
    return [json.loads(line) for path in paths for line in b"".join(blocks(path)).splitlines()]


def flip(run: Path) -> None:
    edit_lines(run, lambda lines: [line.replace(b'"unsafe"', b'"safe"') for line in lines])


def delete(run: Path) -> None:
    edit_lines(run, lambda lines: [line for line in lines if BAD_LINE not in line])


def reorder(run: Path) -> None:
    edit_lines(run, lambda lines: lines[::-1])


def truncate(run: Path) -> None:
    sorted(run.glob("segments/*.zst"))[-1].unlink()


def edit_summary(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    counts = summary["counts"]
    summary["counts"] = {**counts, "safe": CASES, "unsafe": 0}
    (run / "summary.json").write_text(json.dumps(summary))


def edit_header(run: Path) -> None:
    header = json.loads((run / "run.json").read_text())
    header["header"]["target_id"] = "another"
    (run / "run.json").write_text(json.dumps(header))


def hide_in_the_index(run: Path) -> None:
    with sqlite3.connect(run / "index.sqlite") as db:
        db.execute("INSERT INTO superseded SELECT segment, start FROM results WHERE outcome = 'unsafe'")
    db.close()
    summary = json.loads((run / "summary.json").read_text())
    summary["counts"]["unsafe"] = 0
    (run / "summary.json").write_text(json.dumps(summary))


def without_index(change: Callable[[Path], None]) -> Callable[[Path], None]:
    def both(run: Path) -> None:
        change(run)
        for path in run.glob("index.sqlite*"):
            path.unlink()

    return both


CHANGES = {
    "flip": flip,
    "delete": delete,
    "reorder": reorder,
    "truncate": truncate,
    "summary": edit_summary,
    "header": edit_header,
    "index": hide_in_the_index,
    "flip, no index": without_index(flip),
    "delete, no index": without_index(delete),
    "truncate, no index": without_index(truncate),
}


def test_the_run_is_judged_as_long_as_it_is_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(run.glob("segments/*.zst"))) > 2
    assert main(["gate", "latest"]) == 1
    assert "25 of 100" in capsys.readouterr().out
    assert main(["eval", "show", "latest"]) == 0


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_run_is_refused_by_whatever_reads_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    other = make_run(tmp_path)
    CHANGES[name](run)
    report = tmp_path / "report.json"
    for command in (
        ["gate", run.name, "-o", str(report)],
        ["eval", "show", run.name, "-o", str(report)],
        ["eval", "compare", run.name, other.name, "-o", str(report)],
        ["eval", "compare", other.name, run.name],
    ):
        assert main(command) == 1, command
        told = capsys.readouterr()
        assert "the run log was changed" in told.err, command
        assert "PASS" not in told.out
    assert not report.exists()


def test_a_flipped_record_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(run)
    assert main(["gate", "latest"]) == 1
    assert "record 1 (segment 1, byte 0) does not fit the chain" in capsys.readouterr().err


def test_one_case_of_a_changed_run_is_not_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = records(run)[1]["r"]["case_id"]
    assert main(["eval", "show", "latest", name]) == 0
    capsys.readouterr()
    flip(run)
    assert main(["eval", "show", "latest", name]) == 1
    assert "the run log was changed" in capsys.readouterr().err


def test_a_changed_baseline_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path)
    flip(run)
    criteria = tmp_path / "gate.yaml"
    criteria.write_text(f"criteria:\n- {{metric: unsafe_rate, limit: 90%, baseline: {{run: {run.name}}}}}\n")
    assert main(["gate", "latest", "--criteria", str(criteria)]) == 1
    assert "the run log was changed" in capsys.readouterr().err


def test_without_its_summary_and_its_end_the_rest_counts_as_not_judged(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "summary.json").unlink()
    without_index(truncate)(run)
    (run / "criteria.json").write_text('[{"metric": "unsafe_rate", "limit": 0.9, "error_budget": 0.01}]')
    assert main(["gate", "latest"]) == 3
    out = capsys.readouterr().out
    assert "INVALID" in out
    assert "have no judgement" in out


def test_a_finished_run_with_less_than_was_planned_does_not_pass(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody who writes a new chain end and new counts still cannot make up the missing cases."""
    sorted(run.glob("segments/*.zst"))[-1].unlink()
    lines = records(run)
    summary = json.loads((run / "summary.json").read_text())
    outcomes = [line["r"]["outcome"] for line in lines]
    counts = {"safe": outcomes.count("safe"), "unsafe": outcomes.count("unsafe")}
    summary |= {"results_digest": "sha256:" + lines[-1]["h"], "counts": summary["counts"] | counts}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "criteria.json").write_text('[{"metric": "unsafe_rate", "limit": 0.9, "error_budget": 0.01}]')
    assert main(["gate", "latest"]) == 3
    assert "have no judgement" in capsys.readouterr().out
