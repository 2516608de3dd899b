"""A place for each test: a folder, a home and a cache of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from stanchion_command import Place, take_over_compiled_patterns


@pytest.fixture(scope="session")
def warm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the packaged patterns compiled, shared by the tests of a session."""
    cache = tmp_path_factory.mktemp("cache")
    take_over_compiled_patterns(cache)
    return cache


@pytest.fixture
def place(tmp_path: Path, warm_cache: Path) -> Place:
    """An empty folder to run commands in."""
    return Place(tmp_path, warm_cache)
