"""The version of the installed package, for records and reports."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1)
def package_version() -> str:
    """The installed version, such as `0.1.0`."""
    from importlib.metadata import version

    return version("stanchion")
