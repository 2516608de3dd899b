"""Patterns of the user's own, from catalogue files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stanchion.core.codec import short
from stanchion.core.finding import Cost, DetectorInput, Finding, Reach, ReachKind
from stanchion.detectors.catalogue import load_catalogues
from stanchion.detectors.matching import findings_from_hits
from stanchion.detectors.scan import Scanner

ID = "custom"


class CustomDetector:
    """Reports what the patterns of a scanner find whose ids begin with `custom.`."""

    id = ID
    reach = Reach(ReachKind.AUTOMATON)
    cost = Cost.MICROSECONDS

    def __init__(self, scanner: Scanner) -> None:
        self.scanner = scanner
        self.version = f"1+{short(scanner.digest_for(ID))}"
        self.categories = tuple(sorted({pattern.category for pattern in scanner.patterns_for(ID)}))

    def detect(self, detector_input: DetectorInput) -> Sequence[Finding]:
        """Findings by position."""
        view_set = detector_input.view_set
        return findings_from_hits(self.id, self.version, self.scanner.hits_for(view_set, ID), view_set)


def create(*, scanner: Scanner, files: Sequence[str | Path] = (), base: Path | None = None) -> CustomDetector:
    """The detector for catalogue `files` (relative to `base`), with an automaton of their own.

    Without files it reports the `custom.` patterns of the given scanner.

    Raises:
        FilesError: with every problem of every file.
    """
    if not files:
        return CustomDetector(scanner)
    paths = [(base or Path()) / file for file in files]
    catalogues = load_catalogues(paths, detectors=(ID,), cache_dir=scanner.cache_dir)
    return CustomDetector(Scanner(catalogues, cache_dir=scanner.cache_dir))
