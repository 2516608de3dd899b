"""A report says the same in every form, escapes what it shows, and is written whole or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from rich.console import Console

from stanchion.core.components import ComponentSet
from stanchion.core.errors import UsageError
from stanchion.evals.criteria import CriterionModel
from stanchion.evals.gate import GateContext, gate
from stanchion.evals.report import charts
from stanchion.evals.report.formats import render_json, render_junit, render_markdown, render_sarif
from stanchion.evals.report.html import render_html
from stanchion.evals.report.model import (
    Comparison,
    PairedRow,
    Report,
    build_report,
    durations,
    rate,
    summarise,
)
from stanchion.evals.report.terminal import render_terminal
from stanchion.evals.report.write import write_report
from stanchion.evals.results import (
    CaseResult,
    Concern,
    Outcome,
    OutcomeCounts,
    RunHeader,
    RunSummary,
    Score,
    TargetKind,
    Transcript,
    Turn,
)
from stanchion.evals.rundata import RunData
from stanchion.evals.verdict import PairedEvidence

NOW = datetime(2026, 11, 1, 9, 30, tzinfo=UTC)
HOSTILE = "<script>alert('x')</script> & \x00 | `*_"


def case(index: int, outcome: Outcome, **fields: object) -> CaseResult:
    scores = (Score(scorer="canary", version="1", outcome=outcome, reason="the canary was in the answer"),)
    base: dict[str, object] = {"category": "injection.direct", "scores": scores, "latency_ms": 100.0 + index}
    return CaseResult(case_id=f"case-{index}", outcome=outcome, **(base | fields))  # type: ignore[arg-type]


def run(name: str, rows: list[CaseResult]) -> RunData:
    header = RunHeader(
        run_id=f"run_{name}",
        suite_id="support",
        suite_digest="sha256:" + "1" * 64,
        target_id=name,
        components=ComponentSet(),
        started_at=NOW,
    )
    counts = OutcomeCounts(
        safe=sum(r.outcome is Outcome.SAFE for r in rows),
        unsafe=sum(r.outcome is Outcome.UNSAFE for r in rows),
    )
    summary = RunSummary(run_id=header.run_id, finished_at=NOW, counts=counts, elapsed_s=12.5)
    criteria = [CriterionModel(metric="unsafe_rate", limit=0.05, why="a leak reaches a customer")]
    context = GateContext(header=header, summary=summary, now=NOW)
    return RunData(
        header=header,
        summary=summary,
        open_results=lambda: iter(rows),
        verdict=gate(rows, criteria, context),
        title=name,
    )


@pytest.fixture
def report() -> Report:
    transcript = Transcript(
        turns=(Turn(kind="user", text=HOSTILE),), reply=(Turn(kind="assistant", text="<PERSON_1> said"),)
    )
    bad = [case(i, Outcome.UNSAFE, transcript=transcript) for i in range(60)]
    unguarded = run("unguarded", bad + [case(i + 60, Outcome.SAFE) for i in range(60)])
    guarded = run("guarded", [case(i, Outcome.SAFE, guard_ms=0.4) for i in range(120)])
    evidence = PairedEvidence(
        baseline_run="run_unguarded",
        pairs=120,
        only_now=0,
        only_before=60,
        difference=-0.5,
        low=-0.59,
        high=-0.41,
        confidence=0.95,
        method="Tango",
        p_value=1.7e-18,
    )
    row = PairedRow(
        category="injection.direct",
        concern=Concern.SAFETY,
        target_kind=TargetKind.REAL,
        before=rate(60, 120),
        after=rate(0, 120),
        evidence=evidence,
    )
    return build_report(
        [unguarded, guarded],
        title=f"Support assistant {HOSTILE}",
        made_at=NOW,
        version="0.1.0",
        comparison=Comparison(before="unguarded", after="guarded", rows=(row,)),
        notes=["A small model is weak."],
        facts={"model": "tiny"},
    )


def test_every_rate_in_the_page_has_its_interval_and_the_verdicts_lead(report: Report) -> None:
    page = render_html(report)
    assert page.index(">FAIL<") < page.index("By category")
    assert ">PASS<" in page
    assert "60 of 120: <b>50.0 %</b>" in page
    assert "41.1 % to 58.9 %" in page  # Wilson, 60 of 120
    assert "at most 2.5 %" in page  # Clopper-Pearson, 0 of 120, one-sided


def test_nothing_from_outside_becomes_markup(report: Report) -> None:
    page = render_html(report)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    markdown = render_markdown(report)
    assert "<script>" not in markdown
    assert "\n| " in markdown


def test_the_page_needs_nothing_from_anywhere(report: Report) -> None:
    page = render_html(report)
    body = page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    body = body.replace('xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    for needle in ("http://", "https://", "@import", "url(", " src="):
        assert needle not in body


def test_the_words_of_the_first_failures_are_marked_for_paper(report: Report) -> None:
    page = render_html(report)
    assert page.count('<details class="printed">') == 10
    assert page.count("<details>") == 40, "50 failures are shown, the others without words on paper"
    assert "only the first 10 are shown with their words" in page


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("pdftotext")), reason="needs chromium and pdftotext"
)
def test_failed_words_are_on_paper(tmp_path: Path) -> None:
    def transcript(number: int) -> Transcript:
        asked = (Turn(kind="system", text="Keep the SECRET."), Turn(kind="user", text=f"asked-{number}-end"))
        return Transcript(turns=asked, reply=(Turn(kind="assistant", text=f"replied-{number}-end"),))

    bad = [case(i, Outcome.UNSAFE, transcript=transcript(i)) for i in range(14)]
    arms = [run("unguarded", bad)]
    write_report(tmp_path / "r.html", build_report(arms, title="Paper", made_at=NOW, version="0.1.0"))
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'u'}"]
    pdf = tmp_path / "r.pdf"
    subprocess.run(
        [*browser, f"--print-to-pdf={pdf}", str(tmp_path / "r.html")],
        check=True,
        capture_output=True,
        timeout=120,
    )
    paper = subprocess.run(["pdftotext", str(pdf), "-"], check=True, capture_output=True, text=True).stdout
    for number in range(14):
        assert (f"asked-{number}-end" in paper) == (number < 10)
        assert (f"replied-{number}-end" in paper) == (number < 10)
    assert paper.count("Keep the SECRET.") == 1, "a system prompt that is the same is printed once"


def test_charts_are_drawn_where_the_renderer_is_installed(report: Report) -> None:
    page = render_html(report)
    assert page.count("<svg") == (3 if charts.available() else 0)


def test_without_the_renderer_the_tables_remain(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "available", lambda: False)
    page = render_html(report)
    assert "<svg" not in page
    assert "60 of 120" in page


def test_json_carries_digest_and_exit_code_and_tells_inconclusive_from_invalid(report: Report) -> None:
    data = json.loads(render_json(report))
    verdicts = [arm["verdict"] for arm in data["arms"]]
    assert [v["outcome"] for v in verdicts] == ["fail", "pass"]
    assert [v["exit_code"] for v in verdicts] == [1, 0]
    assert verdicts[0]["digest"] == report.verdicts[0].digest


def test_junit_counts_agree_with_its_nodes(report: Report) -> None:
    root = ET.fromstring(render_junit(report))
    criteria = root.findall("testsuite")[0]
    assert criteria.get("failures") == str(len(criteria.findall("testcase/failure"))) == "1"
    results = root.findall("testsuite")[1]
    assert results.get("failures") == "60"
    assert len(results.findall("testcase/failure")) == 50  # the rest is in the run log


def test_sarif_names_each_criterion_that_does_not_pass(report: Report) -> None:
    log = json.loads(render_sarif(report))
    results = log["runs"][0]["results"]
    assert results[0]["ruleId"] == "criterion/unsafe_rate"
    assert results[0]["level"] == "error"


def test_the_terminal_shows_verdict_counts_and_difference(report: Report) -> None:
    out = StringIO()
    Console(file=out, width=140, color_system=None).print(render_terminal(report))
    text = out.getvalue()
    assert "FAIL   60/120  ≤ 57.9 %" in text
    assert "PASS    0/120  ≤ 2.5 %" in text
    assert "-59.0 to -41.0 points" in text
    assert "guard p50 0.40 ms" in text


@pytest.mark.parametrize("extension", [".html", ".json", ".md", ".sarif", ".xml"])
def test_a_report_is_written_by_its_extension(report: Report, tmp_path: Path, extension: str) -> None:
    path = write_report(tmp_path / "new" / f"report{extension}", report)
    assert path.stat().st_size > 500
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_unknown_extension_says_what_is_allowed(report: Report, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no report is written as '.htm'.*Did you mean '.html'"):
        write_report(tmp_path / "report.htm", report)


def test_a_place_that_cannot_be_written_leaves_nothing_behind(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.json", report)
    (tmp_path / "report.json").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(tmp_path / "report.json", report)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "report.json"]


def test_a_case_that_broke_before_scoring_is_counted_as_not_judged() -> None:
    broken = CaseResult(
        case_id="x", outcome=Outcome.ERROR, category="injection.direct", error="DeadlineError"
    )
    arm = summarise(run("r", [broken, case(1, Outcome.SAFE)]))
    assert [(row.failed.n, row.unjudged) for row in arm.slices] == [(1, 1)]
    assert arm.failures[0].reason == "DeadlineError"


def test_cached_answers_do_not_count_as_the_models_speed() -> None:
    rows = [
        case(1, Outcome.SAFE),
        case(2, Outcome.SAFE, is_cached=True),
        case(3, Outcome.SAFE, reused_from="d"),
    ]
    arm = summarise(run("r", rows))
    assert arm.latency.n == 1


def test_scripted_answers_stand_apart_from_the_models() -> None:
    rows = [case(1, Outcome.SAFE), case(2, Outcome.UNSAFE, target_kind=TargetKind.SCRIPTED)]
    arm = summarise(run("r", rows))
    assert [(row.target_kind, row.failed.hits) for row in arm.slices] == [
        (TargetKind.REAL, 0),
        (TargetKind.SCRIPTED, 1),
    ]


def test_quantiles_are_nearest_ranks() -> None:
    found = durations([float(v) for v in range(1, 101)])
    assert (found.p50_ms, found.p95_ms, found.max_ms, found.n) == (50.0, 95.0, 100.0, 100)
    assert msgspec.to_builtins(durations([]))["n"] == 0
