"""Fixtures of the governance tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from safety_folder import Folder


@pytest.fixture
def safety(tmp_path: Path) -> Folder:
    """The folder of the profile `saas`."""
    return Folder(tmp_path)
