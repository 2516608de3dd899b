"""A report as data and as text: JSON, Markdown, JUnit XML, SARIF."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

from stanchion.core.codec import to_builtins
from stanchion.evals.report import wording
from stanchion.evals.report.model import Arm, Comparison, Failure, Report
from stanchion.evals.results import Outcome
from stanchion.evals.verdict import CriterionVerdict, Verdict, VerdictOutcome
from stanchion.files.sarif import SarifResult, sarif_log
from stanchion.stats.wording import points_between

SCHEMA = "stanchion/report/v1"
_MARK = {
    VerdictOutcome.PASS: "✅",
    VerdictOutcome.FAIL: "❌",
    VerdictOutcome.INCONCLUSIVE: "❔",
    VerdictOutcome.INVALID: "⚠️",
}


def render_json(report: Report) -> str:
    """The whole report as data; verdicts carry their digest."""
    return json.dumps(report_data(report), indent=2, ensure_ascii=False) + "\n"


def report_data(report: Report) -> dict[str, Any]:
    """The report as plain JSON values."""
    data: dict[str, Any] = {"schema": SCHEMA, **to_builtins(report)}
    for arm, row in zip(report.arms, data["arms"], strict=True):
        if arm.verdict is not None:
            row["verdict"] = verdict_data(arm.verdict)
    return data


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """A verdict as plain JSON values, with its digest and exit code."""
    return {"digest": verdict.digest, "exit_code": int(verdict.exit_code), **to_builtins(verdict)}


def render_markdown(report: Report) -> str:
    """Short enough for a comment on a pull request."""
    return "\n".join(_markdown_lines(report)) + "\n"


def _markdown_lines(report: Report) -> Iterator[str]:
    yield f"## {_md(report.title)}"
    yield ""
    for arm in report.arms:
        if arm.verdict is not None:
            outcome = arm.verdict.outcome
            yield f"{_MARK[outcome]} **{outcome.value.upper()}** {_md(arm.name)}: {_md(arm.verdict.reason)}  "
    if report.comparison is not None and report.comparison.rows:
        yield from _markdown_comparison(report.comparison)
    for arm in report.arms:
        yield from _markdown_arm(arm)
    for note in report.notes:
        yield f"> {_md(note)}"
    yield ""
    yield f"<sub>Stanchion {report.version}, {report.made_at:%Y-%m-%d %H:%M} UTC. "
    yield "The bound that decides is one-sided and exact; unjudged results never count for a pass.</sub>"


def _markdown_comparison(comparison: Comparison) -> Iterator[str]:
    yield ""
    arms = f"{_md(comparison.before)} | {_md(comparison.after)}"
    yield f"| failures by category | {arms} | difference | new failures |"
    yield "|---|---:|---:|---:|---:|"
    for row in comparison.rows:
        name = f"{row.category} ({wording.CONCERN_TITLE[row.concern]}, {wording.kind_words(row.target_kind)})"
        yield (
            f"| {_md(name)} | {wording.rate_words(row.before)} | {wording.rate_words(row.after)} "
            f"| {points_between(row.evidence.low, row.evidence.high)} | {row.evidence.only_now} |"
        )


def _markdown_arm(arm: Arm) -> Iterator[str]:
    yield ""
    counts = arm.summary.counts
    yield (
        f"**{_md(arm.name)}**: {counts.judged} of {counts.total} judged, {counts.unsafe} failed, "
        f"{counts.error} errors, {counts.unscored} unscored, {counts.skipped} skipped."
    )
    if arm.verdict is not None:
        yield ""
        yield "| criterion | verdict | counts | exact bound | limit | reason |"
        yield "|---|---|---:|---:|---:|---|"
        for one in arm.verdict.criteria:
            yield (
                f"| {_md(one.id)} | {_MARK[one.outcome]} {one.outcome.value} | {wording.evidence_words(one)} "
                f"| {wording.bound_words(one)} | {wording.limit_words(one)} | {_md(one.reason)} |"
            )
    if arm.failures:
        yield ""
        shown = arm.failures[:10]
        more = len(arm.failures) - len(shown) + arm.failures_left_out
        yield f"<details><summary>{len(shown) + more} results that failed or could not be judged</summary>"
        yield ""
        yield from (f"* `{failure.case_id}` {_md(failure_words(failure))}" for failure in shown)
        if more:
            yield f"* and {more} more"
        yield "</details>"


def failure_words(failure: Failure) -> str:
    """A failure in one line: category, outcome, scorer and reason."""
    told = ": ".join(part for part in (failure.scorer, failure.reason) if part)
    return f"{failure.category or 'no category'}, {failure.outcome.value}" + (f" ({told})" if told else "")


def _md(text: str) -> str:
    """Text that cannot break out of a table cell or become markup."""
    for char in "\\`*_{}[]<>|":
        text = text.replace(char, f"\\{char}")
    return " ".join(text.split())


def render_junit(report: Report) -> str:
    """JUnit XML: one test per criterion, and one per result that failed or could not be judged."""
    root = ET.Element("testsuites", name=_xml(report.title))
    for arm in report.arms:
        _junit_criteria(root, arm)
        _junit_results(root, arm)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _junit_criteria(root: ET.Element, arm: Arm) -> None:
    criteria = arm.verdict.criteria if arm.verdict else ()
    failures = sum(c.outcome is VerdictOutcome.FAIL for c in criteria)
    errors = sum(c.outcome in (VerdictOutcome.INCONCLUSIVE, VerdictOutcome.INVALID) for c in criteria)
    suite = ET.SubElement(
        root,
        "testsuite",
        name=_xml(f"{arm.name}: criteria"),
        tests=str(len(criteria)),
        failures=str(failures),
        errors=str(errors),
        time=f"{arm.summary.elapsed_s:.3f}",
    )
    for criterion in criteria:
        case = ET.SubElement(suite, "testcase", classname=_xml(arm.name), name=_xml(criterion.id))
        _junit_verdict(case, criterion)


def _junit_verdict(case: ET.Element, criterion: CriterionVerdict) -> None:
    if criterion.outcome is VerdictOutcome.PASS:
        return
    tag = "failure" if criterion.outcome is VerdictOutcome.FAIL else "error"
    node = ET.SubElement(case, tag, type=criterion.outcome.value, message=_xml(criterion.reason))
    node.text = _xml(f"{wording.evidence_words(criterion)}; {wording.bound_words(criterion)}")


def _junit_results(root: ET.Element, arm: Arm) -> None:
    counts = arm.summary.counts
    suite = ET.SubElement(
        root,
        "testsuite",
        name=_xml(f"{arm.name}: results"),
        tests=str(counts.total),
        failures=str(counts.unsafe),
        errors=str(counts.error + counts.unscored),
        skipped=str(counts.skipped),
    )
    tags = {Outcome.UNSAFE: "failure", Outcome.SKIPPED: "skipped"}
    for failure in arm.failures:
        name = f"{failure.case_id} repeat {failure.repeat}" if failure.repeat else failure.case_id
        case = ET.SubElement(suite, "testcase", classname=_xml(failure.category or arm.name), name=_xml(name))
        tag = tags.get(failure.outcome, "error")
        attributes = {} if tag == "skipped" else {"type": failure.outcome.value}
        ET.SubElement(case, tag, attributes, message=_xml(failure_words(failure)))


def _xml(text: str) -> str:
    """Text without the characters that XML 1.0 forbids."""
    return "".join(
        c if c in "\t\n\r" or 0x20 <= ord(c) < 0xD800 or 0xE000 <= ord(c) < 0xFFFE else "?" for c in text
    )


def render_sarif(report: Report) -> str:
    """SARIF: criteria that do not pass, and results that failed, as results of a run."""
    results = [result for arm in report.arms for result in _sarif_results(arm)]
    log = sarif_log(results, tool_version=report.version)
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _sarif_results(arm: Arm) -> Iterator[SarifResult]:
    file = f"suite/{arm.header.suite_id}"
    for criterion in arm.verdict.criteria if arm.verdict else ():
        if criterion.outcome is not VerdictOutcome.PASS:
            level = "error" if criterion.outcome is VerdictOutcome.FAIL else "warning"
            yield SarifResult(
                rule=f"criterion/{criterion.id}",
                message=f"{criterion.outcome.value.upper()}: {criterion.reason}",
                file=file,
                level=level,
                fingerprint=f"{arm.name}/{criterion.id}",
            )
    for failure in arm.failures:
        yield SarifResult(
            rule=f"case/{failure.category or 'none'}",
            message=f"{arm.name}, case {failure.case_id}: {failure_words(failure)}",
            file=file,
            level="error" if failure.outcome is Outcome.UNSAFE else "warning",
            fingerprint=f"{arm.name}/{failure.case_id}/{failure.repeat}",
        )
