"""What a provider says of how it served a request: the tier, the configuration that answered.

Such words are for the client, and are told only where the client's API is the provider's own. They have the
form of a name, so that no text can pass as one of them; what has another form is left out.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import UNSET, UnsetType

from stanchion.core.interaction import Usage

NAME = r"^[A-Za-z][A-Za-z0-9_.-]{0,63}\Z"
_is_name = re.compile(NAME).match


def read_served(vendor: str, fields: dict[str, Any], names: tuple[str, ...]) -> dict[str, str] | UnsetType:
    """Those of the names that the provider says, as `vendor:name`; UNSET when it says none of them."""
    said = {
        f"{vendor}:{name}": value
        for name in names
        if isinstance(value := fields.get(name), str) and _is_name(value)
    }
    return said or UNSET


def served_by(vendor: str, usage: Usage) -> dict[str, str]:
    """What a provider of this vendor's APIs said, by the names of its API."""
    if usage.served is UNSET:
        return {}
    prefix = f"{vendor}:"
    return {
        name.removeprefix(prefix): value for name, value in usage.served.items() if name.startswith(prefix)
    }
