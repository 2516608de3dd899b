"""Every packaged pattern is checked here, because the package reads its own catalogues without a check."""

from __future__ import annotations

from pathlib import Path

import pytest
from reading import registry

from stanchion.core.resources import data_path
from stanchion.detectors.catalogue import CatalogueModel, check_catalogue, load_packaged
from stanchion.detectors.examples import is_found
from stanchion.detectors.patterns import Pattern
from stanchion.files.schema import load_file

FILES = sorted(Path(str(data_path("patterns"))).glob("*.yaml"))
PATTERNS = registry().scanner.patterns


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_packaged_catalogue_has_no_problem(path: Path) -> None:
    assert check_catalogue(load_file(path, CatalogueModel)) == []


def test_ids_are_given_once_in_the_whole_package() -> None:
    assert len(FILES) >= 5
    ids = [pattern.id for pattern in PATTERNS]
    assert len(ids) == len(set(ids)) >= 300


def test_reading_without_a_check_gives_the_same_patterns() -> None:
    from stanchion.detectors.catalogue import load_catalogue

    smallest = min(FILES, key=lambda path: path.stat().st_size)
    assert load_packaged(smallest) == load_catalogue(smallest)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.id)
def test_examples_are_found_and_counter_examples_are_not(pattern: Pattern) -> None:
    scanner = registry().scanner
    assert pattern.examples
    assert [text for text in pattern.examples if not is_found(scanner, pattern, text)] == []
    assert [text for text in pattern.counter_examples if is_found(scanner, pattern, text)] == []
