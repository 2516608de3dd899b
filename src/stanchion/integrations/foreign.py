"""Other people's packages, imported when they are used and not before."""

from __future__ import annotations

import importlib
from typing import Any

from stanchion.core.errors import UsageError


def load(module: str, *, package: str, what: str) -> Any:
    """A module of somebody else's package.

    Raises:
        UsageError: when the package is not installed, in one line that says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{what} needs the package {package!r}, which is not installed.",
            hint=f"Install it: pip install {package}",
        ) from error
