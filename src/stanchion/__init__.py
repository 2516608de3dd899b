"""Stanchion: the safety-engineering layer for LLM applications.

The names below load on first use, so that `import stanchion` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stanchion.core.decision import Decision, Effect
    from stanchion.core.errors import BlockedError, StanchionError
    from stanchion.core.finding import Finding, Location, Severity
    from stanchion.core.interaction import Interaction, Message, ToolCall, ToolResult
    from stanchion.guard.answers import Checked
    from stanchion.guard.pipeline import Guard
    from stanchion.guard.policy import Policy, load_policy

__version__ = "0.1.0"

_HOMES = {
    "BlockedError": "stanchion.core.errors",
    "Checked": "stanchion.guard.answers",
    "Decision": "stanchion.core.decision",
    "Effect": "stanchion.core.decision",
    "Finding": "stanchion.core.finding",
    "Guard": "stanchion.guard.pipeline",
    "Interaction": "stanchion.core.interaction",
    "Location": "stanchion.core.finding",
    "Message": "stanchion.core.interaction",
    "Policy": "stanchion.guard.policy",
    "Severity": "stanchion.core.finding",
    "StanchionError": "stanchion.core.errors",
    "ToolCall": "stanchion.core.interaction",
    "ToolResult": "stanchion.core.interaction",
    "load_policy": "stanchion.guard.policy",
}

__all__ = [
    "BlockedError",
    "Checked",
    "Decision",
    "Effect",
    "Finding",
    "Guard",
    "Interaction",
    "Location",
    "Message",
    "Policy",
    "Severity",
    "StanchionError",
    "ToolCall",
    "ToolResult",
    "__version__",
    "load_policy",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'stanchion' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
