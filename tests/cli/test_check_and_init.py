"""`stanchion init` and `stanchion check` as a person runs them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pattern_cache import give_patterns
from stanchion.cli.main import main


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def safety(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    assert main(["init", "--profile", "saas"]) == 0
    capfd.readouterr()
    return tmp_path / "safety"


def break_it(safety: Path) -> None:
    path = safety / "features/assistant/case.yaml"
    path.write_text(path.read_text().replace("owner: engineer", "owner: enginer"))


def test_init_then_check_is_clean(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--profile", "regulated", "--feature", "advice"]) == 0
    out, err = capfd.readouterr()
    assert "safety/features/advice/case.yaml" in out
    assert "next: stanchion check safety" in err
    assert main(["check"]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "0 problems, 0 warnings" in err


@pytest.mark.parametrize("profile", ["startup", "saas", "devtools", "consumer", "regulated"])
def test_the_commands_that_init_prints_work_and_the_stand_in_does_not_pass(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], profile: str
) -> None:
    give_patterns(tmp_path / ".cache" / "stanchion")
    assert main(["init", "my folder", "--profile", profile]) == 0
    _, err = capfd.readouterr()
    check, run = (shlex.split(line)[1:] for line in re.findall(r": (stanchion .*)$", err, re.MULTILINE))
    assert main(check) == 0
    assert main([*run, "--format", "json"]) == 0
    counts = json.loads(capfd.readouterr().out)["arms"][0]["summary"]["counts"]
    assert (counts["safe"], counts["unsafe"]) == (0, 6)


def test_check_of_a_folder_that_cannot_be_read_exits_2(
    safety: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert main(["check"]) == 2
    err = capfd.readouterr().err
    assert "safety: cannot be read: Permission denied." in err
    assert "Let the user that runs the check" in err


@pytest.mark.parametrize("place", ["/proc/foo", "/dev/null/x"])
def test_init_where_nothing_can_be_written_exits_2(place: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["init", place]) == 2
    err = capfd.readouterr().err
    assert f"cannot write a safety folder into '{place}'" in err
    assert "stanchion init DIR" in err


def test_init_dry_run_lists_and_writes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--dry-run", "--format", "json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert plan["dry_run"] is True
    assert "safety/org.yaml" in plan["files"]
    assert list(tmp_path.iterdir()) == []


def test_init_refuses_to_overwrite(safety: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in safety.rglob("*") if path.is_file()}
    assert main(["init", "--profile", "saas"]) == 2
    assert "nothing is overwritten" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in safety.rglob("*") if path.is_file()} == before
    assert main(["init", "--dry-run"]) == 0
    assert "(exists: init would refuse)" in capfd.readouterr().out


def test_init_with_an_unknown_profile_exits_2(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--profile", "sas"]) == 2
    assert "Did you mean 'saas'?" in capfd.readouterr().err


def test_check_prints_problems_on_stdout_and_exits_1(safety: Path, capfd: pytest.CaptureFixture[str]) -> None:
    break_it(safety)
    assert main(["check", "safety"]) == 1
    out, err = capfd.readouterr()
    assert out == (
        "safety/features/assistant/case.yaml:5:8: unknown owner 'enginer'. Did you mean 'engineer'?\n"
    )
    assert "1 problem, 0 warnings" in err


def test_check_gives_the_same_as_data(safety: Path, capfd: pytest.CaptureFixture[str]) -> None:
    break_it(safety)
    assert main(["check", "--format", "json"]) == 1
    report = json.loads(capfd.readouterr().out)
    assert (report["errors"], report["warnings"], report["features"]) == (1, 0, ["assistant"])
    (problem,) = report["problems"]
    assert (problem["line"], problem["column"], problem["rule"]) == (5, 8, "unknown-owner")


def test_check_writes_sarif(safety: Path, capfd: pytest.CaptureFixture[str]) -> None:
    break_it(safety)
    assert main(["check", "--format", "sarif"]) == 1
    log = json.loads(capfd.readouterr().out)
    (result,) = log["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "safety/features/assistant/case.yaml"
    assert place["region"] == {"startLine": 5, "startColumn": 8}
    assert log["runs"][0]["tool"]["driver"]["rules"][0]["id"] == "unknown-owner"


def test_warnings_fail_only_when_asked(safety: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (safety / "features/assistant/prompts/system.txt").write_text("changed\n")
    assert main(["check"]) == 0
    assert "components.yaml:8:11: warning: component 'system-prompt'" in capfd.readouterr().out
    assert main(["check", "--strict"]) == 1


def test_check_without_a_safety_folder_exits_2(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "Make a safety folder: stanchion init" in err


def test_the_settings_name_the_folder(
    safety: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    safety.rename(tmp_path / "risk")
    (tmp_path / "stanchion.yaml").write_text("safety_folder: risk\n")
    assert main(["check"]) == 0
    capfd.readouterr()
    (tmp_path / "stanchion.yaml").write_text("safety_foldr: risk\n")
    assert main(["check"]) == 2
    assert "stanchion.yaml:1:1: unknown key 'safety_foldr'" in capfd.readouterr().err
