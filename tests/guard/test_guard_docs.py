"""The documentation says all there is, and its code runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from stanchion.detectors.registry import Registry
from stanchion.guard import policy_file
from stanchion.guard.policy import load_policy
from stanchion.guard.policy_cases import PolicyCase, load_cases

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "policy.md").read_text()
SECTIONS = [
    ("Top level", policy_file.PolicyFile),
    ("`detectors.<id>`", policy_file.DetectorEntry),
    ("`rules`", policy_file.RuleEntry),
    ("`rules`", policy_file.SelectorEntry),
    ("`limits`", policy_file.LimitsEntry),
    ("`media`", policy_file.MediaEntry),
    ("`retrieval`", policy_file.RetrievalEntry),
    ("`redaction`", policy_file.RedactionEntry),
    ("`streaming`", policy_file.StreamingEntry),
    ("`safe_completions`", policy_file.SafeCompletionsEntry),
    ("`tools`", policy_file.ToolsEntry),
    ("`tools`", policy_file.ToolEntry),
    ("`tools`", policy_file.ArgumentEntry),
    ("`waivers`", policy_file.WaiverEntry),
    ("Case files", PolicyCase),
]


def section(title: str) -> str:
    return REFERENCE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(title: str) -> set[str]:
    return set(re.findall(r"^\| `([a-z_]+)` \|", section(title), re.MULTILINE))


@pytest.mark.parametrize(("title", "model"), SECTIONS)
def test_every_option_of_the_file_is_documented(title: str, model: Any) -> None:
    assert set(model.model_fields) <= rows(title)


def test_nothing_is_documented_that_does_not_exist() -> None:
    for title in {title for title, _ in SECTIONS}:
        known = {name for other, model in SECTIONS if other == title for name in model.model_fields}
        assert rows(title) <= known


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_reference_load(tmp_path: Path) -> None:
    policy, cases = blocks("reference/policy.md", "yaml")
    (tmp_path / "policy.yaml").write_text(policy)
    (tmp_path / "cases.yaml").write_text(cases)

    assert load_policy(tmp_path / "policy.yaml").loosenings == ()
    assert [case.id for case in load_cases(tmp_path / "cases.yaml")] == ["opening-hours", "card"]


def test_the_how_to_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in blocks("how-to/guard-a-model-call.md", "python"):
        exec(compile(block, "guard-a-model-call.md", "exec"), names)
    shown = capsys.readouterr().out

    assert "You said: Card 4111 1111 1111 1111" in shown
    assert "'status': 'sent'" in shown
    assert "must be string" in shown
    assert Registry().ids()
