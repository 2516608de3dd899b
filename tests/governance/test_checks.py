"""Each link of a safety folder, broken once: found, at its place, with what would be right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safety_folder import Folder

from stanchion.core.clock import SystemClock
from stanchion.core.errors import UsageError
from stanchion.detectors.calibration_file import sealed, write_calibration
from stanchion.detectors.registry import Registry
from stanchion.governance.checks import check_paths
from stanchion.governance.rules import RULES

BROKEN: list[dict[str, str]] = yaml.safe_load(
    Path(__file__).with_name("broken_links.yaml").read_text(encoding="utf-8")
)["broken"]


@pytest.mark.parametrize("change", BROKEN, ids=[f"{c['file']}:{c['place']}".strip() for c in BROKEN])
def test_a_broken_link_is_found_at_its_place(safety: Folder, change: dict[str, str]) -> None:
    file, place = change["file"], change["place"]
    safety.change(file, change["old"], change["new"])
    text = next(p for p in (safety.feature / file, safety.path / file) if p.exists()).read_text()
    where = place
    if not place[0].isdigit():
        assert text.count(place) == 1, place
        offset = text.index(place) + (len("system: ") if place.startswith("system") else 0)
        where = f"{text.count(chr(10), 0, offset) + 1}:{offset - text.rfind(chr(10), 0, offset)}"
    found = safety.said()
    assert any(line.startswith(f"{file}:{where}: ") and change["said"] in line for line in found), found


def test_a_policy_that_extends_nothing_that_exists_is_a_problem(safety: Folder) -> None:
    safety.change("policy.yaml", "extends: [../../baseline.yaml]", "extends: [../../baselin.yaml]")
    found = "\n".join(safety.said())
    assert "there is no" in found
    assert "baselin.yaml" in found


def test_all_problems_of_all_files_come_at_once(safety: Folder) -> None:
    safety.change("controls.yaml", "mitigates: [ tenant-leak ]", "mitigates: [ a ]")
    safety.change("case.yaml", "tier: 1", "tier: 9")
    safety.change("org.yaml", "organisation: Change this name", "organization: x")
    (safety.feature / "monitors.yaml").write_text("version: 1\nmonitors: [\n")
    rules = [problem.rule for problem in safety.check().problems]
    assert {"unknown-risk", "value", "unknown-key", "missing-key", "yaml-syntax"} <= set(rules)
    assert len(rules) == len(set(safety.said()))


def test_ids_are_unique_in_a_feature(safety: Folder) -> None:
    safety.change("controls.yaml", "id: stop-cross-tenant", "id: tenant-leak")
    assert any(
        "id 'tenant-leak' is used twice; the first is the risk in risks.yaml, line" in line
        for line in safety.said()
    )


@pytest.mark.parametrize("name", ["case.yaml", "risks.yaml", "controls.yaml", "evals.yaml", "policy.yaml"])
def test_a_missing_file_is_a_problem_and_the_rest_is_checked(safety: Folder, name: str) -> None:
    (safety.feature / name).unlink()
    assert f"{name}: this file is missing." in "\n".join(safety.said())


def test_a_file_that_nothing_reads_is_a_problem(safety: Folder) -> None:
    (safety.feature / "risk.yaml").write_text("")
    (safety.feature / "suite").mkdir()
    found = "\n".join(safety.said())
    assert "risk.yaml: nothing reads a file of this name. Did you mean 'risks.yaml'?" in found
    assert "suite: nothing reads a file of this name. Did you mean 'suites'?" in found


@pytest.mark.parametrize(
    ("file", "old", "new", "rule"),
    [
        ("risks.yaml", "id: tenant-leak\n", "id: tenant-leak-2\n", "uncontrolled-risk"),
        (
            "evals.yaml",
            "verifies: [ stop-cross-tenant, tenant-leak ]",
            "verifies: [ over-refusal ]",
            "unverified-risk",
        ),
        ("monitors.yaml", "detects: [ tenant-leak ]", "detects: [ over-refusal ]", "unmonitored-risk"),
    ],
)
def test_gaps_are_warnings(safety: Folder, file: str, old: str, new: str, rule: str) -> None:
    safety.change(file, old, new)
    found = [problem for problem in safety.check().problems if problem.rule == rule]
    assert [problem.severity for problem in found] == ["warning"]


def test_an_overdue_review_is_a_warning(safety: Folder) -> None:
    path = safety.feature / "risks.yaml"
    path.write_text(path.read_text().replace("review_by: 2027", "review_by: 2025"))
    report = safety.check()
    assert {problem.rule for problem in report.problems} == {"review-due"}
    assert (report.errors, report.warnings) == (0, 6)


def test_what_changed_since_it_was_pinned_is_suspect(safety: Folder) -> None:
    (safety.feature / "prompts/system.txt").write_text("Another prompt.\n")
    (problem,) = safety.check().problems
    assert (problem.rule, problem.severity) == ("suspect", "warning")
    assert "component 'system-prompt'" in problem.message


def test_pinned_policy_and_suite_are_compared(safety: Folder) -> None:
    wrong = "sha256:" + "0" * 64
    safety.change("controls.yaml", "rule: cross-tenant}", f"rule: cross-tenant, digest: '{wrong}'}}")
    pinned = f"suite: suites/tenant-leak.yaml\n  suite_digest: '{wrong}'"
    safety.change("evals.yaml", "suite: suites/tenant-leak.yaml", pinned)
    said = [problem.message for problem in safety.check().problems if problem.rule == "suspect"]
    assert len(said) == 2


def test_a_suite_without_an_eval_is_checked_all_the_same(safety: Folder) -> None:
    (safety.feature / "suites/extra.yaml").write_text("suite: extra\ncases: [{promt: x}]\n")
    found = "\n".join(safety.said())
    assert "extra.yaml:1:1: no eval uses this suite." in found
    assert "unknown key 'promt'" in found


def test_criteria_come_from_the_eval_or_from_the_suite(safety: Folder) -> None:
    path = safety.feature / "evals.yaml"
    text = path.read_text()
    head, _, _ = text.partition("  criteria:\n")
    path.write_text(head)
    assert "nothing could be judged" in "\n".join(safety.said())
    suite = safety.feature / "suites/direct-injection.yaml"
    suite.write_text(suite.read_text() + "criteria:\n- {metric: unsafe_rate, limit: 1%}\n")
    assert "nothing could be judged" not in "\n".join(safety.said())


def test_a_path_narrows_the_report(safety: Folder) -> None:
    safety.change("controls.yaml", "mitigates: [ tenant-leak ]", "mitigates: [ a ]")
    safety.change("org.yaml", '"1":', '"7":')
    assert [p.rule for p in safety.check(safety.feature / "controls.yaml").problems] == ["unknown-risk"]
    assert "unknown-tier" not in [p.rule for p in safety.check(safety.feature).problems]
    assert "unknown-tier" in [p.rule for p in safety.check(safety.root).problems]


def test_environment_need_not_be_set_for_a_check(safety: Folder) -> None:
    safety.change(
        "policy.yaml",
        "extends: [../../baseline.yaml]",
        "extends: [../../baseline.yaml]\nredaction: {key: '${env:REDACTION_KEY}'}",
    )
    assert safety.said() == []


def test_loose_policies_and_suites_are_checked_by_themselves(tmp_path: Path, safety: Folder) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    (tmp_path / "loose/safety-free").mkdir()
    policy, suite, other = loose / "p.yaml", loose / "s.yaml", loose / "o.yaml"
    policy.write_text("version: 1\nextends: [defalt]\n")
    suite.write_text("suite: s\ncases: [{prompt: ''}]\n")
    other.write_text("a: 1\n")
    found = {Path(problem.file).name for problem in safety.check(policy, suite).problems}
    assert found == {"p.yaml", "s.yaml"}
    with pytest.raises(UsageError, match="is in no safety folder"):
        safety.check(other)


def test_missing_path_says_how_to_begin(tmp_path: Path, safety: Folder) -> None:
    with pytest.raises(UsageError, match="stanchion init"):
        safety.check(tmp_path / "nope")


def test_a_folder_of_another_kind_says_so(tmp_path: Path, safety: Folder) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(UsageError, match="is not in a safety folder"):
        safety.check(tmp_path / "x")


def test_every_rule_is_described() -> None:
    source = Path(__file__).parents[2] / "src/stanchion"
    written = {
        rule
        for folder in ("governance", "files")
        for path in (source / folder).glob("*.py")
        for found in re.findall(r'rule="([a-z-]+)"|report\([^"]*?"([a-z]+-[a-z-]+)"', path.read_text())
        for rule in found
        if rule
    }
    assert len(written) > 25
    assert written <= set(RULES)
    assert all(text and not text.endswith(".") for text in RULES.values())


GARBAGE = st.sampled_from(
    ["", "  - x", "version: 2", "x: [", "\t", "id: {a: b}", "? y", "  title: 5", "- null", "{}"]
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_to_any_file_ends_in_a_report(safety: Folder, data: st.DataObject) -> None:
    """Lines are dropped, doubled or replaced: `check` reports, and never falls over."""
    files = sorted(safety.path.rglob("*.yaml"))
    path = data.draw(st.sampled_from(files))
    before = path.read_text()
    lines = before.splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    match data.draw(st.sampled_from(["drop", "double", "replace", "cut"])):
        case "drop":
            del lines[number]
        case "double":
            lines.insert(number, lines[number])
        case "replace":
            lines[number] = data.draw(GARBAGE)
        case _:
            lines = lines[:number]
    path.write_text("\n".join(lines))
    try:
        for problem in safety.check().problems:
            assert problem.message
    finally:
        path.write_text(before)


EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/*/safety"))


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_every_example_is_sound(path: Path) -> None:
    report = check_paths([path], clock=SystemClock(), detectors=Registry().ids())
    assert [problem.render() for problem in report.problems if problem.severity == "error"] == []
    assert report.files > 10


def test_a_calibration_of_another_version_is_told_at_its_line_in_the_policy(safety: Folder) -> None:
    made = sealed(
        made_at=SystemClock().now(),
        stanchion="0.1.0",
        detector={"id": "injection.patterns", "version": "0+old"},
        threshold=0.4,
        guarantees=[
            {
                "risk": "false alarms",
                "limit": 0.01,
                "confidence": 0.95,
                "units": 300,
                "method": "m",
                "statement": "s",
            }
        ],
        evidence={"benign": 300, "false_alarms": 0, "false_alarms_at_most": 0.01},
        data=[],
        sketch={"edges": [0.0], "counts": [300]},
    )
    write_calibration(safety.feature / "calibrations/patterns.json", made)
    path = safety.feature / "policy.yaml"
    text = path.read_text()
    assert "\ndetectors:" not in text
    path.write_text(
        f"{text}\ndetectors:\n  injection.patterns:\n    calibration: calibrations/patterns.json\n"
    )
    line = path.read_text().split("\n").index("    calibration: calibrations/patterns.json") + 1
    found = [one for one in safety.check().problems if one.rule == "calibration"]
    assert [(Path(one.file).name, one.line, one.column) for one in found] == [("policy.yaml", line, 18)]
    assert "made for version 0+old" in found[0].message
