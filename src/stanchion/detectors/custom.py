"""Patterns of the user's own, from catalogue files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stanchion.core.codec import short
from stanchion.core.errors import FilesError, Problem, UsageError
from stanchion.core.finding import Cost, DetectorInput, Finding, Reach, ReachKind
from stanchion.detectors.catalogue import load_catalogues
from stanchion.detectors.incremental import PatternReach
from stanchion.detectors.matching import findings_from_hits
from stanchion.detectors.scan import Scanner
from stanchion.files.document import attempt_document
from stanchion.files.references import project_root, resolve_inside

ID = "custom"


class CustomDetector(PatternReach):
    """Reports what the patterns of a scanner find whose ids begin with `custom.`."""

    id = ID
    reach = Reach(ReachKind.AUTOMATON)
    cost = Cost.MICROSECONDS

    def __init__(self, scanner: Scanner) -> None:
        self.scanner = self._scanner = scanner
        self.version = f"1+{short(scanner.digest_for(ID))}"
        self.categories = tuple(sorted({pattern.category for pattern in scanner.patterns_for(ID)}))

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings by position."""
        view_set = detector_input.view_set
        return findings_from_hits(self.id, self.version, self.scanner.hits_for(view_set, ID), view_set)


def create(*, scanner: Scanner, files: Sequence[str | Path] = (), base: Path | None = None) -> CustomDetector:
    """The detector for catalogue `files`, with an automaton of their own.

    With `base`, the folder of the policy that names them, files are relative to it and stay in its project.
    Without it they are opened as they are named. Without files the detector reports the `custom.` patterns of
    the given scanner.

    Raises:
        UsageError: when a file lies outside the project.
        FilesError: with every problem of every file; what is no catalogue at all is not quoted.
    """
    if not files:
        return CustomDetector(scanner)
    paths = [Path(file) if base is None else _inside(str(file), base) for file in files]
    try:
        catalogues = load_catalogues(paths, detectors=(ID,), cache_dir=scanner.cache_dir)
    except FilesError as error:
        raise FilesError(_unquoted(error.problems, paths)) from None
    return CustomDetector(Scanner(catalogues, cache_dir=scanner.cache_dir))


def _inside(file: str, base: Path) -> Path:
    try:
        return resolve_inside(file, folder=base, root=project_root(base / "policy.yaml"))
    except UsageError as error:
        raise UsageError(f"detector {ID!r}, option 'files': {error.message}", hint=error.hint) from error


def _unquoted(problems: Sequence[Problem], paths: Sequence[Path]) -> list[Problem]:
    """The problems, without those that would show what stands in a file of another kind."""
    others = {}
    for path in paths:
        document, _ = attempt_document(path)
        if document is not None and not _is_catalogue(document.value):
            others[document.file] = document.problem(
                (),
                rule="no-catalogue",
                message="this is no catalogue of patterns.",
                hint="A catalogue is a mapping with 'catalogue', 'version' and 'patterns'.",
            )
    return [problem for problem in problems if problem.file not in others] + list(others.values())


def _is_catalogue(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("patterns"), list)
