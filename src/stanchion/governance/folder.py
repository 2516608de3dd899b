"""The layout of a safety folder, and its files read one by one with every problem kept.

```
safety/
  org.yaml  baseline.yaml  keys/
  features/<feature>/
    case.yaml  components.yaml  threats.yaml  risks.yaml  controls.yaml  evals.yaml  monitors.yaml
    policy.yaml  tools.cedar  invariants.yaml  prompts/  suites/  runbooks/  approvals/  waivers/
```
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from stanchion.core.errors import Problem, UsageError, near_matches
from stanchion.files.schema import FileModel, Loaded, attempt_file
from stanchion.governance.case import (
    CaseFile,
    ComponentsFile,
    ControlsFile,
    EvalsFile,
    MonitorsFile,
    RisksFile,
    RunbookFile,
    ThreatsFile,
)
from stanchion.governance.organisation import OrganisationFile

ORGANISATION = "org.yaml"
BASELINE = "baseline.yaml"
POLICY = "policy.yaml"
REQUIRED = ("case.yaml", "components.yaml", "risks.yaml", "controls.yaml", "evals.yaml", POLICY)
OPTIONAL = ("threats.yaml", "monitors.yaml", "invariants.yaml", "gate.yaml")
FOLDERS = ("suites", "runbooks", "approvals", "waivers", "prompts")
_TOP_NAMES = (ORGANISATION, BASELINE, "kpis.yaml")

M = TypeVar("M", bound=FileModel)


@dataclass(slots=True)
class Feature:
    """One feature's files; a part is `None` when it is missing or has problems."""

    name: str
    folder: Path
    case: Loaded[CaseFile] | None = None
    components: Loaded[ComponentsFile] | None = None
    threats: Loaded[ThreatsFile] | None = None
    risks: Loaded[RisksFile] | None = None
    controls: Loaded[ControlsFile] | None = None
    evals: Loaded[EvalsFile] | None = None
    monitors: Loaded[MonitorsFile] | None = None
    runbooks: list[Loaded[RunbookFile]] = field(default_factory=list)
    broken_runbooks: bool = False

    @property
    def policy_path(self) -> Path:
        """Where its guard policy is."""
        return self.folder / POLICY


@dataclass(slots=True)
class SafetyFolder:
    """A whole safety folder as it was read, and what was wrong with single files."""

    path: Path
    organisation: Loaded[OrganisationFile] | None = None
    features: list[Feature] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    @property
    def baseline_path(self) -> Path:
        """Where the organisation's policy is."""
        return self.path / BASELINE


def find_safety_folder(path: Path) -> Path:
    """The safety folder that a path is, holds, or lies in.

    Raises:
        UsageError: when there is none.
    """
    if not path.exists():
        raise UsageError(f"there is no {str(path)!r}.", hint="Make a safety folder: stanchion init")
    if (path / "safety" / ORGANISATION).is_file():
        return path / "safety"
    for candidate in (path, *path.absolute().parents):
        if (candidate / ORGANISATION).is_file() or (candidate / "features").is_dir():
            return candidate
    raise UsageError(
        f"{str(path)!r} is not in a safety folder.",
        hint=f"A safety folder holds {ORGANISATION} and features/. Make one: stanchion init",
    )


def read_folder(path: Path, *, env: Mapping[str, str] | None) -> SafetyFolder:
    """Read every case file below a safety folder; policies and suites are left to their own readers."""
    folder = SafetyFolder(path)
    folder.organisation = _read(folder, path / ORGANISATION, OrganisationFile, env)
    for entry in sorted(path.iterdir()):
        if entry.is_file() and entry.suffix in (".yaml", ".yml") and entry.name not in _TOP_NAMES:
            folder.problems.append(_unknown_file(entry, _TOP_NAMES))
    features = path / "features"
    if features.is_dir():
        for entry in sorted(features.iterdir()):
            if entry.is_dir() and not entry.name.startswith("."):
                folder.features.append(_read_feature(folder, entry, env))
    if not folder.features:
        folder.problems.append(
            Problem(
                file=str(path),
                rule="no-features",
                message="the safety folder holds no feature.",
                hint="Add one: stanchion init --feature NAME",
                severity="warning",
            )
        )
    return folder


def read_cases(path: Path, *, env: Mapping[str, str] | None) -> SafetyFolder:
    """Only `org.yaml` and each feature's `case.yaml`: who decides, and each feature's tier."""
    folder = SafetyFolder(path)
    folder.organisation = _read(folder, path / ORGANISATION, OrganisationFile, env)
    for file in sorted((path / "features").glob("*/case.yaml")):
        feature = Feature(file.parent.name, file.parent)
        feature.case = _read(folder, file, CaseFile, env)
        folder.features.append(feature)
    return folder


def _read_feature(folder: SafetyFolder, path: Path, env: Mapping[str, str] | None) -> Feature:
    feature = Feature(path.name, path)
    feature.case = _read(folder, path / "case.yaml", CaseFile, env)
    feature.components = _read(folder, path / "components.yaml", ComponentsFile, env)
    feature.risks = _read(folder, path / "risks.yaml", RisksFile, env)
    feature.controls = _read(folder, path / "controls.yaml", ControlsFile, env)
    feature.evals = _read(folder, path / "evals.yaml", EvalsFile, env)
    if (path / "threats.yaml").is_file():
        feature.threats = _read(folder, path / "threats.yaml", ThreatsFile, env)
    if (path / "monitors.yaml").is_file():
        feature.monitors = _read(folder, path / "monitors.yaml", MonitorsFile, env)
    if not feature.policy_path.is_file():
        folder.problems.append(_missing(feature.policy_path))
    for file in sorted((path / "runbooks").glob("*.y*ml")):
        loaded = _read(folder, file, RunbookFile, env)
        if loaded is None:
            feature.broken_runbooks = True
        else:
            feature.runbooks.append(loaded)
    folder.problems.extend(_strangers(path))
    return feature


def _read(
    folder: SafetyFolder, path: Path, model: type[M], env: Mapping[str, str] | None
) -> Loaded[M] | None:
    if not path.is_file():
        folder.problems.append(_missing(path))
        return None
    folder.files.append(path)
    loaded, problems = attempt_file(path, model, env=env)
    folder.problems.extend(problems)
    return loaded


def _missing(path: Path) -> Problem:
    return Problem(
        file=str(path),
        rule="missing-file",
        message="this file is missing.",
        hint="`stanchion init --dry-run` shows what one looks like.",
    )


def _strangers(path: Path) -> Iterator[Problem]:
    known = (*REQUIRED, *OPTIONAL)
    for entry in sorted(path.iterdir()):
        is_yaml = entry.is_file() and entry.suffix in (".yaml", ".yml")
        if is_yaml and entry.name not in known:
            yield _unknown_file(entry, known)
        elif entry.is_dir() and entry.name not in FOLDERS and near_matches(entry.name, FOLDERS):
            yield _unknown_file(entry, FOLDERS)


def _unknown_file(path: Path, known: tuple[str, ...]) -> Problem:
    near = near_matches(path.name, known)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(known)}."
    return Problem(
        file=str(path), rule="unknown-file", message="nothing reads a file of this name.", hint=hint
    )
