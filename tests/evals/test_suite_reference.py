"""Every option of a suite file is in its reference, and nothing else is."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from stanchion.evals import criteria, scorer_file, suite_file, target_file

PAGE = Path(__file__).parents[2] / "docs/reference/suite.md"
SHARED = set(scorer_file.ScorerModel.model_fields) | {"use"}
SECTIONS: dict[str, type[BaseModel]] = {
    "Suite": suite_file.SuiteFile,
    "Case": suite_file.CaseModel,
    "Defaults": suite_file.DefaultsModel,
    "Message": suite_file.MessageModel,
    "Call": suite_file.CallModel,
    "Document": suite_file.DocumentModel,
    "Tool": suite_file.ToolModel,
    "Sampling": suite_file.SamplingModel,
    "Expect": suite_file.ExpectModel,
    "Call rule": suite_file.CallRuleModel,
    "Argument rule": suite_file.ArgumentModel,
    "Dataset": suite_file.DatasetModel,
    "Splits": suite_file.SplitsModel,
    "Limits": suite_file.LimitsModel,
    "endpoint": target_file.EndpointTargetModel,
    "http": target_file.HttpTargetModel,
    "callable": target_file.CallableTargetModel,
    "local": target_file.LocalTargetModel,
    "scripted": target_file.ScriptedTargetModel,
    "recording": target_file.RecordingTargetModel,
    "detector": target_file.DetectorTargetModel,
    "guard": target_file.GuardTargetModel,
    "When": scorer_file.WhenModel,
    "Criterion": criteria.CriterionModel,
    "Slice": criteria.SliceModel,
    "Baseline": criteria.BaselineModel,
}
SCORERS = {
    model.model_fields["use"].annotation.__args__[0]: model
    for model in scorer_file.ScorerModel.__subclasses__()
}  # type: ignore[union-attr]


def sections() -> dict[str, str]:
    parts = re.split(r"^#{2,3} (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def keys_of(section: str) -> set[str]:
    return set(re.findall(r"^\| `([a-z_]+)` \|", sections()[section], flags=re.MULTILINE))


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_lists_exactly_the_keys_of_its_model(section: str) -> None:
    assert keys_of(section) == set(SECTIONS[section].model_fields)


@pytest.mark.parametrize("use", SCORERS)
def test_every_option_of_every_scorer_is_listed(use: str) -> None:
    own = set(SCORERS[use].model_fields) - SHARED
    titles = [
        title for title in sections() if title.startswith("Options of ") and use in re.findall(r"\w+", title)
    ]
    assert {key for title in titles for key in keys_of(title)} == own
    assert f"`{use}`" in sections()["Scorers"]


def test_the_shared_options_of_scorers_are_listed() -> None:
    assert keys_of("Scorers") >= SHARED


def test_no_section_is_about_something_that_is_not_there() -> None:
    about_scorers = {title for title in sections() if title.startswith("Options of ")}
    assert set(sections()) - about_scorers == {*SECTIONS, "Targets", "Scorers"}
