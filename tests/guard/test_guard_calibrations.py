"""A policy that names a calibration uses its number, or does not load."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stanchion.core.decision import Surface
from stanchion.core.errors import FilesError
from stanchion.core.finding import Cost, DetectorInput, Finding, Location, Reach, ReachKind
from stanchion.core.origin import Origin
from stanchion.detectors.calibration_file import CalibrationFile, sealed, write_calibration
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy import read_policy

MADE = datetime(2026, 1, 1, tzinfo=UTC)


class Marks:
    """Scores a text by the number in it; leaves out what is below its option, as real detectors do."""

    categories = ("injection.direct", "injection.jailbreak")
    reach = Reach(ReachKind.MESSAGE)
    cost = Cost.MICROSECONDS

    def __init__(self, version: str, minimum: float = 0.5, words: str = "") -> None:
        self.id, self.version, self.minimum = "marks", version, minimum

    def detect(self, detector_input: DetectorInput) -> list[Finding]:
        score = float(detector_input.text)
        place = Location(start=0, end=len(detector_input.text))
        if score < self.minimum:
            return []
        return [
            Finding(
                detector="marks",
                version=self.version,
                category="injection.direct",
                score=score,
                location=place,
            )
        ]


class MarksRegistry:
    """One detector, whose version changes."""

    def __init__(self, version: str = "1+aaa") -> None:
        self.version = version

    def ids(self) -> tuple[str, ...]:
        return ("marks",)

    def create(self, detector_id: str, **options: Any) -> Marks:
        return Marks(self.version, **options)


def calibration(**changes: Any) -> CalibrationFile:
    fields: dict[str, Any] = {
        "made_at": MADE,
        "stanchion": "0.1.0",
        "detector": {"id": "marks", "version": "1+aaa", "takes_minimum": True},
        "threshold": 0.3,
        "guarantees": [
            {
                "risk": "false alarms",
                "limit": 0.01,
                "confidence": 0.95,
                "units": 300,
                "method": "m",
                "statement": "s",
            }
        ],
        "evidence": {"benign": 300, "false_alarms": 0, "false_alarms_at_most": 0.01},
        "data": [{"name": "benign.jsonl", "digest": "sha256:" + "0" * 64, "benign": 300, "unsafe": 0}],
        "sketch": {"edges": [0.0, 0.3], "counts": [300, 0]},
    }
    return sealed(**{**fields, **changes})


RULES = """rules:
- id: stop
  when: {category: injection.*}
  effect: block
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "stanchion.yaml").write_text("{}\n")
    write_calibration(tmp_path / "calibrations/marks.json", calibration())
    return tmp_path


def policy(project: Path, entry: str, name: str = "policy.yaml", head: str = "") -> Path:
    path = project / name
    path.write_text(f"version: 1\n{head}detectors:\n  marks:\n    {entry}\n{RULES}")
    return path


def test_the_threshold_is_the_calibrations_and_the_detector_reports_that_low(project: Path) -> None:
    path = policy(project, "calibration: calibrations/marks.json")
    guard = Guard.load(path, registry=MarksRegistry())
    assert guard.check("0.29").allowed
    assert not guard.check("0.31").allowed  # the detector alone would leave out what is below 0.5
    settings = guard.policy.detectors["marks"]
    assert settings.threshold == 0.3
    assert settings.calibrations == (calibration().digest,)
    assert settings.creation_options == {"minimum": 0.2999}
    assert [Path(source.file).name for source in guard.policy.sources] == ["policy.yaml", "marks.json"]


def problems_of(path: Path, registry: Any = None) -> list[str]:
    with pytest.raises(FilesError) as caught:
        read_policy(path, detectors=("marks",), registry=registry or MarksRegistry())
    return [one.render() for one in caught.value.problems]


def test_another_version_of_the_detector_is_an_error_with_file_and_line(project: Path) -> None:
    path = policy(project, "calibration: calibrations/marks.json")
    (told,) = problems_of(path, MarksRegistry("2+bbb"))
    assert told.startswith(f"{path}:4:18: calibration 'calibrations/marks.json' cannot be used:")
    assert "made for version 1+aaa of 'marks'; installed is 2+bbb" in told
    assert "stanchion calibrate" in told


def test_a_changed_file_is_an_error(project: Path) -> None:
    file = project / "calibrations/marks.json"
    value = json.loads(file.read_text())
    value["threshold"] = 0.9
    file.write_text(json.dumps(value))
    told = problems_of(policy(project, "calibration: calibrations/marks.json"))
    assert any("it was changed after it was made" in one for one in told)
    assert any(one.startswith(f"{project}/policy.yaml:4:18") for one in told)


def test_a_pinned_digest_holds_the_policy_to_one_file(project: Path) -> None:
    digest = calibration().digest
    entry = f"calibration: {{file: calibrations/marks.json, digest: '{digest}'}}"
    assert (
        read_policy(policy(project, entry), registry=MarksRegistry()).policy.detectors["marks"].threshold
        == 0.3
    )
    write_calibration(project / "calibrations/marks.json", calibration(threshold=0.8))
    (told,) = problems_of(policy(project, entry))
    assert "this policy is pinned to" in told


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("calibration: calibrations/nothing.json", "there is no such file"),
        ("calibration: ../outside.json", "leaves the root folder"),
        ("calibration: /etc/passwd", "is absolute"),
        ("{calibration: calibrations/marks.json, threshold: 0.2}", "both a threshold and a calibration"),
        ("calibration: [calibrations/marks.json, 7]", "calibration"),
        ("{calibration: calibrations/marks.json, options: {words: other}}", "other options"),
    ],
)
def test_what_cannot_be_used_does_not_load(project: Path, entry: str, said: str) -> None:
    assert any(said in one for one in problems_of(policy(project, entry)))


def test_a_calibration_of_another_detector_is_refused(project: Path) -> None:
    other = calibration(detector={"id": "pii", "version": "1+aaa"})
    write_calibration(project / "calibrations/marks.json", other)
    (told,) = problems_of(policy(project, "calibration: calibrations/marks.json"))
    assert "made for detector 'pii', not for 'marks'" in told


def test_origins_have_their_own_thresholds(project: Path) -> None:
    own = calibration(origins={"user": 0.3, "retrieved": 0.6}, threshold=0.7)
    write_calibration(project / "calibrations/marks.json", own)
    guard = Guard.load(policy(project, "calibration: calibrations/marks.json"), registry=MarksRegistry())
    assert not guard.check("0.4", surface=Surface.INPUT, origin=Origin.USER).allowed
    assert guard.check("0.4", surface=Surface.INPUT, origin=Origin.RETRIEVED).allowed
    assert not guard.check("0.65", surface=Surface.INPUT, origin=Origin.RETRIEVED).allowed
    assert guard.check("0.65", surface=Surface.INPUT, origin=Origin.UNKNOWN).allowed
    decision = guard.check("0.4", surface=Surface.INPUT, origin=Origin.RETRIEVED).decision
    assert [record.findings for record in decision.checks] == [0]


def test_a_calibration_of_some_categories_leaves_the_others(project: Path) -> None:
    some = {"id": "marks", "version": "1+aaa", "categories": ["injection.direct"]}
    write_calibration(project / "calibrations/marks.json", calibration(detector=some))
    path = policy(project, "calibration: calibrations/marks.json")
    settings = read_policy(path, registry=MarksRegistry()).policy.detectors["marks"]
    assert settings.threshold_for("injection.direct") == 0.3
    assert settings.threshold_for("injection.jailbreak") == 0.5


def test_a_calibration_is_a_number_before_policies_are_compared(project: Path) -> None:
    policy(project, "threshold: 0.4", "base.yaml")
    tighter = policy(project, "calibration: calibrations/marks.json", head="extends: [base.yaml]\n")
    assert read_policy(tighter, registry=MarksRegistry()).policy.detectors["marks"].threshold == 0.3
    write_calibration(project / "calibrations/marks.json", calibration(threshold=0.45))
    (told,) = problems_of(tighter)
    assert "detectors.marks.threshold is looser than in 'base.yaml': 0.4 became 0.45" in told


def test_a_threshold_of_an_origin_that_is_looser_needs_a_waiver(project: Path) -> None:
    policy(project, "threshold: 0.4", "base.yaml")
    own = calibration(origins={"user": 0.6})
    write_calibration(project / "calibrations/marks.json", own)
    (told,) = problems_of(
        policy(project, "calibration: calibrations/marks.json", head="extends: [base.yaml]\n")
    )
    assert "detectors.marks.origin_thresholds.*.user is looser" in told


def test_a_plain_threshold_over_a_calibration_ends_all_it_said(project: Path) -> None:
    write_calibration(project / "calibrations/marks.json", calibration(origins={"user": 0.35}))
    policy(project, "calibration: calibrations/marks.json", "base.yaml")
    path = policy(project, "threshold: 0.2", head="extends: [base.yaml]\n")
    settings = read_policy(path, registry=MarksRegistry()).policy.detectors["marks"]
    assert (settings.threshold, settings.calibrations, settings.origin_thresholds) == (0.2, (), {})


def test_a_disabled_detector_needs_no_fitting_calibration(project: Path) -> None:
    policy(project, "threshold: 0.4", "base.yaml")
    path = project / "policy.yaml"
    path.write_text(
        "version: 1\ndetectors:\n  marks: {enabled: false, calibration: calibrations/marks.json}\n"
        "  other: {threshold: 0.5}\n"
    )
    assert read_policy(path, registry=MarksRegistry("9+zzz")).policy.detectors["marks"].enabled is False
