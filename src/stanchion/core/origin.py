"""Who could have written a text."""

from __future__ import annotations

from enum import StrEnum


class Origin(StrEnum):
    """Who could have written a text; `unknown` is never trusted."""

    SYSTEM = "system"
    USER = "user"
    MODEL = "model"
    TOOL_RESULT = "tool_result"
    TOOL_DEFINITION = "tool_definition"
    RETRIEVED = "retrieved"
    MEMORY = "memory"
    UNKNOWN = "unknown"

    @property
    def is_untrusted(self) -> bool:
        """Whether the text may come from a third party that neither operates nor uses the feature."""
        return self in _UNTRUSTED


_UNTRUSTED = frozenset(
    {Origin.TOOL_RESULT, Origin.TOOL_DEFINITION, Origin.RETRIEVED, Origin.MEMORY, Origin.UNKNOWN}
)
