"""Every profile writes a folder that works, and the profiles differ in what matters."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from safety_folder import NOW, Folder

from stanchion.core.codec import digest_bytes
from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.evals.suite import load_suite
from stanchion.files.schema import load_file
from stanchion.governance.case import CaseFile, ComponentsFile, EvalsFile, RisksFile
from stanchion.governance.folder import FOLDERS, OPTIONAL, REQUIRED
from stanchion.governance.organisation import OrganisationFile
from stanchion.governance.scaffold import _as_yaml, plan_scaffold, profiles
from stanchion.guard.policy import load_policy

PROFILES = ("startup", "saas", "devtools", "consumer", "regulated")
TODAY = date(2026, 11, 23)


def test_these_are_the_profiles() -> None:
    assert tuple(profiles()) == PROFILES


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_passes_its_check_without_a_warning(tmp_path: Path, profile: str) -> None:
    folder = Folder(tmp_path, profile)
    report = folder.check()
    assert [p.render() for p in report.problems] == []
    assert report.features == ("assistant",)
    written = list(folder.path.rglob("*.yaml"))
    assert report.files == len(written), "a file was written that nothing checked"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_file_and_folder_of_the_layout_is_written(tmp_path: Path, profile: str) -> None:
    folder = Folder(tmp_path, profile)
    names = {entry.name for entry in folder.feature.iterdir()}
    assert {*REQUIRED, "threats.yaml", "monitors.yaml", "suites", "runbooks", "prompts", "target.py"} == names
    assert names <= {*REQUIRED, *OPTIONAL, *FOLDERS, "target.py"}


def test_profiles_differ_in_risks_tier_limits_freshness_and_policy(tmp_path: Path) -> None:
    seen: dict[str, list[object]] = {}
    for profile in PROFILES:
        folder = Folder(tmp_path / profile, profile)
        case = load_file(folder.feature / "case.yaml", CaseFile).value
        org = load_file(folder.path / "org.yaml", OrganisationFile).value
        risks = load_file(folder.feature / "risks.yaml", RisksFile).value
        evals = load_file(folder.feature / "evals.yaml", EvalsFile).value
        policy = load_policy(folder.feature / "policy.yaml")
        criterion = evals.evals[0].criteria[0]
        seen[profile] = [
            case.tier,
            len(org.roles),
            criterion.limit,
            criterion.min_n,
            org.freshness.eval_max_age,
            frozenset(risk.id for risk in risks.risks),
            policy.digest,
        ]
    columns = list(zip(*seen.values(), strict=True))
    assert columns[0] == (0, 1, 1, 2, 3)
    assert list(columns[1]) == sorted(columns[1])
    assert list(columns[2]) == sorted(columns[2], reverse=True)
    assert list(columns[3]) == sorted(columns[3])
    assert list(columns[4]) == sorted(columns[4], reverse=True)
    assert len(set(columns[5])) == len(set(columns[6])) == len(PROFILES)


@pytest.mark.parametrize("profile", PROFILES)
def test_min_n_is_what_the_limit_needs_when_nothing_fails(tmp_path: Path, profile: str) -> None:
    """Smallest n with (1 - limit)^n <= 1 - confidence: fewer cases can never pass."""
    folder = Folder(tmp_path, profile)
    criterion = load_file(folder.feature / "evals.yaml", EvalsFile).value.evals[0].criteria[0]
    alpha = 1 - criterion.confidence
    assert (1 - criterion.limit) ** criterion.min_n <= alpha * (1 + 1e-9)
    assert (1 - criterion.limit) ** (criterion.min_n - 1) > alpha


def test_suites_are_about_their_risk_and_can_be_streamed(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "regulated")
    for path in (folder.feature / "suites").glob("*.yaml"):
        suite = load_suite(path)
        cases = list(suite.cases())
        assert suite.id == path.stem
        assert len({case.id for case in cases}) == len(cases) >= 6
        assert suite.file.scorers


def test_prompt_is_pinned_by_its_digest(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    components = load_file(folder.feature / "components.yaml", ComponentsFile).value.components
    (prompt,) = [component for component in components if component.kind == "prompt"]
    assert prompt.digest == digest_bytes((folder.feature / prompt.locator).read_bytes())


def test_nothing_is_overwritten_and_nothing_is_half_written(tmp_path: Path) -> None:
    plan = plan_scaffold(tmp_path, profile="startup", feature="assistant", today=TODAY)
    case = tmp_path / "safety/features/assistant/case.yaml"
    case.parent.mkdir(parents=True)
    case.write_text("mine")
    with pytest.raises(UsageError, match="nothing is overwritten"):
        plan.write()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [case]
    assert case.read_text() == "mine"


@pytest.mark.parametrize("place", ["/proc/foo", "/dev/null/x", "x" * 300])
def test_a_place_that_cannot_be_written_is_told_with_what_to_do(place: str) -> None:
    with pytest.raises(UsageError, match=f"cannot write a safety folder into '{place}'.*stanchion init DIR"):
        plan_scaffold(Path(place), profile="startup", feature="assistant", today=TODAY).write()


def test_a_write_that_fails_half_way_leaves_no_file(tmp_path: Path) -> None:
    plan = plan_scaffold(tmp_path, profile="startup", feature="assistant", today=TODAY)
    blocked = tmp_path / "safety/features/assistant/prompts"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder must be")
    with pytest.raises(UsageError, match="prompts"):
        plan.write()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [blocked]


def test_planning_writes_nothing(tmp_path: Path) -> None:
    plan = plan_scaffold(tmp_path, profile="saas", feature="x", today=TODAY)
    assert len(plan.files) > 15
    assert list(tmp_path.iterdir()) == []


def test_a_second_feature_uses_the_folders_own_roles(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "startup")
    before = (folder.path / "org.yaml").read_text()
    plan_scaffold(tmp_path, profile="regulated", feature="second", today=TODAY).write()
    report = folder.check()
    assert [p.render() for p in report.problems if p.severity == "error"] == []
    assert report.features == ("assistant", "second")
    assert (folder.path / "org.yaml").read_text() == before


def test_unknown_profile_and_bad_name_say_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'startup'"):
        plan_scaffold(tmp_path, profile="start", feature="x", today=TODAY)
    for name in ("", "../x", "A", "a b", "-x", "x" * 61, "a\nb: c"):
        with pytest.raises(UsageError, match="is no name for a folder"):
            plan_scaffold(tmp_path, profile="startup", feature=name, today=TODAY)


@pytest.mark.parametrize("feature", ["0", "true", "no", "1e5", "null", "a-b-c", "2026-01-01"])
def test_names_that_look_like_other_types_stay_text(tmp_path: Path, feature: str) -> None:
    plan_scaffold(tmp_path, profile="startup", feature=feature, today=NOW.date()).write()
    case = load_file(tmp_path / f"safety/features/{feature}/case.yaml", CaseFile)
    assert case.value.feature == feature


@pytest.mark.parametrize(
    "text", ["plain words", "it's", "a: b", "- x", "", " x", "true", "5", "#x", "{x}", "é"]
)
def test_scalars_read_back_as_they_were(text: str) -> None:
    import yaml

    assert yaml.safe_load(f"k: {_as_yaml(text)}") == {"k": text}
