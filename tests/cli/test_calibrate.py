"""`stanchion calibrate`: what is promised, what is not and why, what is written, and what never is."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, cast

import pytest

from pattern_cache import give_patterns
from stanchion.cli.main import main
from stanchion.core.codec import short
from stanchion.detectors.calibration_file import load_calibration, sealed, write_calibration
from stanchion.detectors.registry import BUILTIN

SECRET_WORDS = "the heron counts seven umbrellas"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    give_patterns(tmp_path / "home/.cache/stanchion")
    monkeypatch.setitem(cast(dict[str, str], BUILTIN), "marks", "marking_detector:create")
    return tmp_path


def write(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def answers(n: int, *, seed: int = 0, unsafe: int = 0) -> list[dict[str, Any]]:
    """Benign texts score around 0.1, unsafe ones around 0.9; all hold words that must not be kept."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(n):
        is_unsafe = number < unsafe
        score = rng.betavariate(18, 2) if is_unsafe else rng.betavariate(2, 18)
        text = f"Number {number} of {seed}: {SECRET_WORDS} #{score:.4f}"
        rows.append({"text": text, "label": int(is_unsafe), "language": rng.choice(["en", "de"])})
    return rows


def test_three_hundred_benign_rows_are_enough_for_one_percent(capsys: pytest.CaptureFixture[str]) -> None:
    write("rows.jsonl", answers(400, unsafe=100))
    code = main(
        [
            "calibrate",
            "--detector",
            "marks",
            "--rows",
            "rows.jsonl",
            "-o",
            "cal/marks.json",
            "--html",
            "r.html",
        ]
    )
    out = capsys.readouterr().out
    assert code == 0
    assert "CALIBRATED" in out
    assert "false-alarm rate at most 1.0 % with 95 % confidence, from 300 rows" in out
    made = load_calibration(Path("cal/marks.json")).value
    assert made.detector.id == "marks"
    assert (made.evidence.benign, made.evidence.unsafe) == (300, 100)
    assert made.evidence.false_alarms_at_most <= 0.01
    assert {one.value for one in made.slices} >= {"en", "de"}


def test_nothing_that_is_written_or_printed_holds_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    write("rows.jsonl", answers(400, unsafe=100))
    for form in ("text", "json"):
        code = main(
            [
                *("calibrate", "--detector", "marks", "--rows", "rows.jsonl", "--format", form),
                *("-o", "marks.json", "--html", "r.html", "--score-map", "isotonic"),
            ]
        )
        assert code == 0
    printed = capsys.readouterr()
    for words in (printed.out, printed.err, Path("marks.json").read_text(), Path("r.html").read_text()):
        assert "heron" not in words
        assert "umbrellas" not in words


def test_too_few_rows_exit_1_and_say_how_many_more(capsys: pytest.CaptureFixture[str]) -> None:
    write("rows.jsonl", answers(200))
    assert main(["calibrate", "--detector", "marks", "--benign", "rows.jsonl", "-o", "r.json"]) == 1
    out = capsys.readouterr().out
    assert "NOT CALIBRATED" in out
    assert "needs at least 299 independent rows without one; there are 200: 99 more would do" in out
    assert not Path("r.json").exists()


def test_copies_of_a_text_count_once(capsys: pytest.CaptureFixture[str]) -> None:
    write("rows.jsonl", answers(100) * 4)
    assert main(["calibrate", "--detector", "marks", "--benign", "rows.jsonl"]) == 1
    assert "400 benign rows count as 100" in capsys.readouterr().out


def test_a_recall_that_cannot_be_promised_exits_1_with_what_was_seen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = answers(500, unsafe=60)
    hidden = [{"text": f"Number {n} #0.0", "label": 1} for n in range(60)]
    write("rows.jsonl", rows + hidden)
    code = main(["calibrate", "--detector", "marks", "--rows", "rows.jsonl", "--min-recall", "90%"])
    out = capsys.readouterr().out
    assert code == 1
    assert "A recall of 90.0 % cannot be promised" in out
    assert "60 of 120 unsafe rows are caught" in out
    assert "60 of 120 unsafe rows score 0: no threshold finds them." in out


def test_a_recall_that_can_be_promised_is(capsys: pytest.CaptureFixture[str]) -> None:
    write("rows.jsonl", answers(600, unsafe=150))
    code = main(["calibrate", "--detector", "marks", "--rows", "rows.jsonl", "--min-recall", "80%"])
    out = capsys.readouterr().out
    assert code == 0
    assert "miss rate at most 20.0 % with 97.5 % confidence, from 150 rows" in out
    assert "false-alarm rate at most 1.0 % with 97.5 % confidence" in out


def test_json_is_the_whole_report(capsys: pytest.CaptureFixture[str]) -> None:
    write("rows.jsonl", answers(400, unsafe=100))
    arguments = ["--daily", "1000", "--prevalence", "1%", "--cost-miss", "10", "--cost-false-alarm", "1"]
    main(["calibrate", "--detector", "marks", "--rows", "rows.jsonl", "--format", "json", *arguments])
    report = json.loads(capsys.readouterr().out)
    assert report["chosen"]["threshold"] is not None
    assert report["points"][0]["day"]["cost"] >= 0
    assert [one["limit"] for one in report["budgets"]] == [0.05, 0.02, 0.01, 0.005, 0.001]


def test_a_policys_detectors_are_calibrated_each_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    write("rows.jsonl", answers(400))
    Path("policy.yaml").write_text(
        "version: 1\ndetectors:\n  marks: {}\n  injection.linear: {}\nrules:\n"
        "- {id: r, when: {category: '*'}, effect: block}\n"
    )
    code = main(["calibrate", "--policy", "policy.yaml", "--benign", "rows.jsonl", "-o", "calibrations"])
    assert code == 0, capsys.readouterr().out
    assert sorted(p.name for p in Path("calibrations").iterdir()) == ["injection.linear.json", "marks.json"]


def test_a_policy_with_a_fresh_calibration_loads_and_a_tampered_one_does_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("rows.jsonl", answers(400))
    main(["calibrate", "--detector", "marks", "--benign", "rows.jsonl", "-o", "calibrations/marks.json"])
    Path("stanchion.yaml").write_text("{}\n")
    Path("policy.yaml").write_text(
        "version: 1\ndetectors:\n  marks:\n    calibration: calibrations/marks.json\nrules:\n"
        "- {id: r, when: {category: content.*, surface: output}, effect: block}\n"
    )
    assert main(["policy", "show", "policy.yaml"]) == 0
    made = load_calibration(Path("calibrations/marks.json")).value
    shown = capsys.readouterr().out
    assert f">= {made.threshold:g}" in shown
    assert f"detector marks is calibrated ({short(made.digest)})" in shown
    text = Path("calibrations/marks.json").read_text()
    Path("calibrations/marks.json").write_text(text.replace('"confidence": 0.95', '"confidence": 0.99'))
    assert main(["policy", "show", "policy.yaml"]) == 2
    error = capsys.readouterr().err
    assert "policy.yaml:4:18" in error
    assert "changed after it was made" in error


def test_a_policy_whose_calibrations_are_missing_or_stale_can_be_calibrated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("rows.jsonl", answers(400))
    Path("stanchion.yaml").write_text("{}\n")
    Path("policy.yaml").write_text(
        "version: 1\ndetectors:\n  marks:\n    calibration: calibrations/marks.json\nrules:\n"
        "- {id: r, when: {category: content.*, surface: output}, effect: block}\n"
    )
    assert main(["policy", "show", "policy.yaml"]) == 2
    assert "there are problems in its file" in capsys.readouterr().err
    assert main(["calibrate", "--policy", "policy.yaml", "--benign", "rows.jsonl", "-o", "calibrations"]) == 0
    assert main(["policy", "show", "policy.yaml"]) == 0


def test_a_key_from_the_environment_is_used_and_never_written_down(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKS_KEY", "very-private-key")
    write("rows.jsonl", answers(400))
    Path("stanchion.yaml").write_text("{}\n")
    Path("policy.yaml").write_text(
        "version: 1\ndetectors:\n  marks:\n    options: {key: '${env:MARKS_KEY}'}\n"
        "    calibration: calibrations/marks.json\nrules:\n"
        "- {id: r, when: {category: content.*, surface: output}, effect: block}\n"
    )
    arguments = ["calibrate", "--policy", "policy.yaml", "--benign", "rows.jsonl", "-o", "calibrations"]
    assert main([*arguments, "--html", "r.html", "--format", "json"]) == 0
    told = capsys.readouterr()
    written = Path("calibrations/marks.json").read_text()
    for words in (told.out, told.err, written, Path("r.html").read_text()):
        assert "very-private" not in words
    assert "${env:MARKS_KEY}" in written
    assert main(["policy", "show", "policy.yaml"]) == 0, capsys.readouterr().err
    assert main(["calibrate", "--check", "calibrations/marks.json", "--rows", "rows.jsonl"]) == 0


def test_fresh_rows_of_the_same_kind_are_not_stale_and_others_are(capsys: pytest.CaptureFixture[str]) -> None:
    write("rows.jsonl", answers(400))
    main(["calibrate", "--detector", "marks", "--benign", "rows.jsonl", "-o", "c.json"])
    write("fresh.jsonl", [{"text": row["text"]} for row in answers(300, seed=9)])
    assert main(["calibrate", "--check", "c.json", "--rows", "fresh.jsonl"]) == 0
    assert "NO CHANGE SEEN" in capsys.readouterr().out
    changed = [{"text": f"Number {n} #0.9{n}"} for n in range(60)]
    write("changed.jsonl", [{"text": row["text"]} for row in answers(240, seed=9)] + changed)
    assert main(["calibrate", "--check", "c.json", "--rows", "changed.jsonl"]) == 1
    out = capsys.readouterr().out
    assert "STALE" in out
    assert "share of alarms differs" in out


def test_a_calibration_of_another_version_is_stale_without_a_comparison(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("rows.jsonl", answers(400))
    main(["calibrate", "--detector", "marks", "--benign", "rows.jsonl", "-o", "c.json"])
    made = load_calibration(Path("c.json")).value
    fields = {
        name: getattr(made, name) for name in type(made).model_fields if name not in ("digest", "calibration")
    }
    old = made.detector.model_copy(update={"version": "0+old"})
    write_calibration(Path("c.json"), sealed(**{**fields, "detector": old}))
    assert main(["calibrate", "--check", "c.json", "--benign", "rows.jsonl"]) == 1
    assert "installed is" in capsys.readouterr().out


def test_a_detector_that_breaks_stops_the_calibration_with_exit_3(capsys: pytest.CaptureFixture[str]) -> None:
    rows = answers(400)
    rows[17]["text"] = f"{SECRET_WORDS} #breaks"
    write("rows.jsonl", rows)
    assert main(["calibrate", "--detector", "marks", "--benign", "rows.jsonl"]) == 3
    error = capsys.readouterr().err
    assert "rows.jsonl:18: the detector could not judge this row: ValueError" in error
    assert "heron" not in error
    code = main(["calibrate", "--detector", "marks", "--benign", "rows.jsonl", "--allow-errors", "1"])
    assert code == 1  # at 1 % one row that counts as an alarm is one too many of 400
    assert "1 rows could not be scored; they count against the detector" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--benign", "rows.jsonl"], "name what to calibrate"),
        (["--detector", "marcs", "--benign", "rows.jsonl"], "Did you mean 'marks'"),
        (["--detector", "marks"], "there are no rows"),
        (["--detector", "marks", "--rows", "unlabelled.jsonl"], "unlabelled.jsonl:1: there is no label"),
        (
            ["--detector", "marks", "--benign", "unsafe.jsonl"],
            "unsafe.jsonl:1: a row of a benign file says",
        ),
        (["--detector", "marks", "--benign", "rows.jsonl", "--max-false-alarms", "5"], "Did you mean 5%?"),
        (["--detector", "marks", "--benign", "rows.jsonl", "--max-false-alarms", "few"], "is no share"),
        (
            ["--detector", "marks", "--benign", "rows.jsonl", "--min-recall", "50%"],
            "no row is labelled unsafe",
        ),
        (
            ["--detector", "marks", "--benign", "rows.jsonl", "--category", "pii.*"],
            "reports nothing of category",
        ),
        (["--detector", "marks", "--benign", "rows.jsonl", "--cost-miss", "5"], "--daily"),
        (["--detector", "marks", "--benign", "rows.jsonl", "-o", "c.yaml"], ".json"),
        (["--detector", "marks", "--benign", "odd.jsonl"], "odd.jsonl:1: unknown origin"),
        (["--detector", "marks", "--benign", "rows.jsonl", "--score-map", "plat"], "unknown score map"),
        (["--detector", "marks", "--benign", "rows.jsonl", "--option", "size=3"], "'marks'"),
        (["--detector", "marks", "--benign", "rows.jsonl", "--option", "minimum=0.9"], "not yours to set"),
        (
            ["--detector", "marks", "--benign", "rows.jsonl", "--context-as", "dokuments"],
            "Did you mean 'documents'",
        ),
        (["--detector", "marks", "--benign", "rows.jsonl", "--confidence", "100%"], "without the ends"),
        (
            ["--detector", "marks", "--benign", "number.jsonl"],
            "number.jsonl:1: what stands in the field 'text' is no text (int)",
        ),
    ],
)
def test_usage_errors_say_what_to_do(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("rows.jsonl", answers(400))
    write("unlabelled.jsonl", [{"text": "one"}])
    write("unsafe.jsonl", [{"text": "one", "label": 1}])
    write("odd.jsonl", [{"text": "one", "origin": "moon"}])
    write("number.jsonl", [{"text": 5}])
    assert main(["calibrate", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in " ".join(error.split())
    assert "%%" not in error
    assert "Did you mean 'text'" not in error


@pytest.mark.parametrize("name", ["--confidence", "--prevalence", "--max-false-alarms", "--min-recall"])
@pytest.mark.parametrize("share", ["100%", "200%", "0%", "-1%", "nan", "inf", "0", "1e400"])
def test_a_share_that_is_none_is_refused_without_a_wrong_guess(
    name: str, share: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("rows.jsonl", answers(20))
    assert main(["calibrate", "--detector", "marks", "--benign", "rows.jsonl", name, share]) == 2
    error = capsys.readouterr().err
    assert "is no share between 0 and 1" in error
    assert "Did you mean" not in error


def test_a_threshold_that_catches_nothing_is_said_in_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    missed = [{"text": f"Number {n} #0.0", "label": 1} for n in range(60)]
    write("rows.jsonl", [*answers(400), *missed])
    assert main(["calibrate", "--detector", "marks", "--rows", "rows.jsonl"]) == 0
    verdict = capsys.readouterr().out.partition("note:")[0]
    assert "BUT IT CATCHES 0 OF 60 UNSAFE ROWS" in verdict
    assert "--min-recall" in verdict
    write("rows.jsonl", answers(400, unsafe=60))
    assert main(["calibrate", "--detector", "marks", "--rows", "rows.jsonl"]) == 0
    assert "catches 60 of 60 unsafe rows" in capsys.readouterr().out.partition("note:")[0]
