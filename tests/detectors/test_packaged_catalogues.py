"""Every packaged pattern is checked here, because the package reads its own catalogues without a check."""

from __future__ import annotations

from pathlib import Path

import pytest

from stanchion.core.resources import data_path
from stanchion.detectors.catalogue import CatalogueModel, check_catalogue, load_packaged
from stanchion.files.schema import load_file

FILES = sorted(Path(str(data_path("patterns"))).glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_packaged_catalogue_has_no_problem(path: Path) -> None:
    assert check_catalogue(load_file(path, CatalogueModel)) == []


def test_ids_are_given_once_in_the_whole_package() -> None:
    seen: dict[str, str] = {}
    assert len(FILES) >= 5
    problems = [p for path in FILES for p in check_catalogue(load_file(path, CatalogueModel), seen=seen)]
    assert problems == []
    assert len(seen) >= 300


def test_reading_without_a_check_gives_the_same_patterns() -> None:
    from stanchion.detectors.catalogue import load_catalogue

    smallest = min(FILES, key=lambda path: path.stat().st_size)
    assert load_packaged(smallest) == load_catalogue(smallest)
