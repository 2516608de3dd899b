"""Expected effects of a policy: cases in a file, tried on the real detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from pydantic import Field

from stanchion.core.decision import Effect, Surface
from stanchion.core.origin import Origin
from stanchion.files.schema import FileModel, load_file
from stanchion.guard.pipeline import Guard


class PolicyCase(FileModel):
    """One text and the effect it should have.

    `rules`, where given, must be among the rules that applied.
    """

    id: Annotated[str, Field(min_length=1)]
    text: str
    surface: Surface = Surface.INPUT
    origin: Origin | None = None
    expect: Effect
    rules: tuple[str, ...] = ()


class PolicyCases(FileModel):
    """A file of cases."""

    version: Literal[1]
    cases: Annotated[tuple[PolicyCase, ...], Field(min_length=1)]


class CaseOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a case. The case's text is not part of it."""

    id: str
    passed: bool
    expected: str
    effect: str
    rule_ids: tuple[str, ...]
    missing_rules: tuple[str, ...]
    failed_checks: tuple[str, ...]


def load_cases(path: Path) -> tuple[PolicyCase, ...]:
    """The cases of a file.

    Raises:
        FilesError: with every problem of the file.
    """
    return load_file(path, PolicyCases).value.cases


def run_case(guard: Guard, case: PolicyCase) -> CaseOutcome:
    """Try one case. A check that did not run fails the case, whatever the effect."""
    decision = guard.check(case.text, surface=case.surface, origin=case.origin).decision
    missing = tuple(rule_id for rule_id in case.rules if rule_id not in decision.rule_ids)
    failed = tuple(record.detector for record in decision.checks if record.status.value != "ran")
    return CaseOutcome(
        id=case.id,
        passed=decision.effect is case.expect and not missing and not failed,
        expected=case.expect.value,
        effect=decision.effect.value,
        rule_ids=decision.rule_ids,
        missing_rules=missing,
        failed_checks=failed,
    )
