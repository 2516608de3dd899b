"""SARIF logs: the shape that code-scanning pages read."""

from __future__ import annotations

from stanchion.core.errors import Problem
from stanchion.files.sarif import SarifResult, from_problem, sarif_log


def test_log_has_one_run_with_its_rules_once() -> None:
    results = [
        SarifResult(rule="a", message="m", file="x y/ä.yaml", line=2, column=3, end_line=2, end_column=9),
        SarifResult(
            rule="b", message="m", file="/abs/f", level="note", fingerprint="f1", properties={"n": 1}
        ),
        SarifResult(rule="a", message="m", file="f"),
    ]
    log = sarif_log(results, tool_version="1.2", rules={"a": "Rule A"})
    (run,) = log["runs"]
    assert (log["version"], run["columnKind"]) == ("2.1.0", "unicodeCodePoints")
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["a", "b"]
    assert run["tool"]["driver"]["rules"][0]["shortDescription"] == {"text": "Rule A"}
    first, second, third = run["results"]
    assert [row["ruleIndex"] for row in run["results"]] == [0, 1, 0]
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "x%20y/%C3%A4.yaml"
    assert place["region"] == {"startLine": 2, "startColumn": 3, "endLine": 2, "endColumn": 9}
    assert second["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "file:///abs/f"
    assert second["partialFingerprints"] == {"stanchion/v1": "f1"}
    assert "region" not in third["locations"][0]["physicalLocation"]


def test_problem_becomes_a_result() -> None:
    problem = Problem(file="f", line=1, column=2, rule="r", message="m.", hint="h.", severity="warning")
    result = from_problem(problem)
    assert (result.level, result.message, result.line, result.column) == ("warning", "m. h.", 1, 2)
