"""Packaged data files, by name: the one way to read `stanchion/data`."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable


def data_path(*parts: str) -> Traversable:
    """A packaged file or folder below `stanchion/data`."""
    return resources.files("stanchion").joinpath("data", *parts)


def read_data_text(*parts: str) -> str:
    """The text of a packaged file (UTF-8)."""
    return data_path(*parts).read_text(encoding="utf-8")


def read_data_bytes(*parts: str) -> bytes:
    """The bytes of a packaged file."""
    return data_path(*parts).read_bytes()
