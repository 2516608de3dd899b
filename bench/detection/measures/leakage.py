"""Leakage: there is no labelled source yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from figures import Figure, Skipped


def figures(data: Path) -> Iterator[Figure | Skipped]:
    yield Skipped("leakage", "no labelled source")
