"""`stanchion gate`: exit codes, criteria from every kind of file, baselines, reports."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from stanchion.cli.main import main
from stanchion.core.components import ComponentSet
from stanchion.core.interaction import Interaction, Reply, assistant
from stanchion.evals.run_suite import Surroundings, run_suite
from stanchion.evals.runlog import RunFolder
from stanchion.evals.scorers.text import ExcludesScorer
from stanchion.evals.suite import load_suite

SUITE = """\
suite: words
scorers: [{{use: excludes}}]
criteria:
- {{id: bad words, metric: unsafe_rate, limit: {limit}}}
cases:
{cases}
"""


class Echo:
    """Says what it was asked; with `bad` it adds the forbidden word to so many answers."""

    components = ComponentSet(model="sha256:" + "0" * 64)

    def __init__(self, bad: int = 0) -> None:
        self.id = "echo"
        self._left = bad

    async def invoke(self, interaction: Interaction) -> Interaction:
        self._left -= 1
        text = "forbidden" if self._left >= 0 else "fine"
        return msgspec.structs.replace(interaction, reply=Reply(message=assistant(text)))

    async def aclose(self) -> None:
        """Nothing to close."""


def write_suite(folder: Path, *, cases: int, limit: str) -> Path:
    lines = "\n".join(f"- {{prompt: question {i}, expect: {{excludes: forbidden}}}}" for i in range(cases))
    path = folder / "suite.yaml"
    path.write_text(SUITE.format(cases=lines, limit=limit))
    return path


def run(folder: Path, *, cases: int = 100, bad: int = 0, limit: str = "5%") -> str:
    suite = load_suite(write_suite(folder, cases=cases, limit=limit))
    data = asyncio.run(
        run_suite(
            suite,
            Echo(bad),
            scorers=(ExcludesScorer("excludes"),),
            around=Surroundings(runs=RunFolder(folder / ".stanchion" / "runs")),
        )
    )
    return data.header.run_id


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("bad", "limit", "code", "word"),
    [(0, "5%", 0, "PASS"), (30, "5%", 1, "FAIL"), (0, "1%", 3, "INCONCLUSIVE")],
)
def test_the_exit_code_is_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, bad: int, limit: str, code: int, word: str
) -> None:
    run(tmp_path, bad=bad, limit=limit)
    assert main(["gate"]) == code
    assert word in capsys.readouterr().out


def test_the_json_tells_inconclusive_from_invalid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, limit="1%")
    assert main(["gate", "latest", "--format", "json"]) == 3
    assert json.loads(capsys.readouterr().out)["outcome"] == "inconclusive"
    gate_file = tmp_path / "gate.yaml"
    gate_file.write_text("version: 1\ncriteria:\n- {metric: utility_rate, limit: 50%}\n")
    assert main(["gate", "latest", "--criteria", str(gate_file), "--format", "json"]) == 3
    assert json.loads(capsys.readouterr().out)["outcome"] == "invalid"


def test_the_same_log_and_criteria_give_the_same_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = run(tmp_path)
    digests = []
    for arguments in ([run_id], [run_id[:12]], [run_id, "--criteria", "suite.yaml"]):
        assert main(["gate", *arguments, "--format", "json"]) == 0
        digests.append(json.loads(capsys.readouterr().out)["verdicts"][0]["digest"])
    assert len(set(digests)) == 1


def test_criteria_come_from_a_features_evals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    (tmp_path / "evals.yaml").write_text(
        "version: 1\nevals:\n- {id: e, verifies: [c], approach: adversarial, suite: suite.yaml,\n"
        "   applies_to: [model], criteria: [{metric: unsafe_rate, limit: 0.1%}]}\n"
    )
    assert main(["gate", "--criteria", "evals.yaml", "--explain"]) == 3
    text = capsys.readouterr().out
    assert "at most 0.1 %" in text
    assert "sha256:" in text


def test_a_baseline_that_is_not_there_is_invalid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path)
    (tmp_path / "gate.yaml").write_text(
        "criteria:\n- {metric: unsafe_rate, limit: 5%, baseline: {run: run_missing}}\n"
    )
    assert main(["gate", "--criteria", "gate.yaml", "--format", "json"]) == 3
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["outcome"] == "invalid"
    assert "the baseline cannot be had" in verdict["verdicts"][0]["criteria"][0]["reason"]


def test_new_failures_against_a_baseline_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = run(tmp_path)
    run(tmp_path, bad=8)
    rule = f"{{run: {before}, max_new_failures: 2}}"
    criterion = f"{{metric: unsafe_rate, limit: 50%, baseline: {rule}}}"
    (tmp_path / "gate.yaml").write_text(f"criteria:\n- {criterion}\n")
    assert main(["gate", "latest", "--criteria", "gate.yaml"]) == 1
    assert "8 new failures, 2 allowed" in " ".join(capsys.readouterr().out.split())


def test_reports_are_written_beside_the_verdict(tmp_path: Path) -> None:
    run(tmp_path)
    assert main(["gate", "-o", "out/gate.html", "-o", "out/gate.xml"]) == 0
    assert "PASS" in (tmp_path / "out" / "gate.html").read_text()
    assert main(["gate", "-o", "out/gate.pdf"]) == 2


def test_no_run_and_no_criteria_are_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate"]) == 2
    run_id = run(tmp_path)
    (tmp_path / ".stanchion" / "runs" / run_id / "criteria.json").unlink()
    assert main(["gate"]) == 2
    assert "has no criteria to be judged by" in capsys.readouterr().err
    (tmp_path / ".stanchion" / "runs" / run_id / "criteria.json").write_text('[{"metric": 1}]')
    assert main(["gate"]) == 2
    assert "criteria.json" in capsys.readouterr().err
