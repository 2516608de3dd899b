"""What there is to say about a detector, as plain values."""

from __future__ import annotations

import inspect
from typing import Any

from stanchion.core.errors import StanchionError
from stanchion.core.finding import Reach, ReachKind
from stanchion.core.taxonomy import taxonomy
from stanchion.detectors.registry import Registry

_GIVEN = frozenset({"scanner", "models", "services", "base", "detector_id"})  # what a policy does not give


def describe(registry: Registry, name: str, *, in_detail: bool = False) -> dict[str, Any]:
    """A detector's id, provider, version, reach, cost and number of patterns.

    `in_detail` adds the options, the categories with titles and severities, and the ids of the patterns.

    Raises:
        UnknownNameError: when there is no such detector.
        UsageError: when it cannot be made.
    """
    detector = registry.create(name)
    patterns = registry.scanner.patterns_for(name.partition(".")[0]) if _reads_patterns(name) else ()
    parts = getattr(detector, "parts", (detector,))
    row: dict[str, Any] = {
        "id": name,
        "provider": registry.provider(name),
        "version": detector.version,
        "reach": ", ".join(dict.fromkeys(_reach(part.reach) for part in parts)),
        "cost": detector.cost.value,
        "patterns": len(patterns),
    }
    if in_detail:
        known = taxonomy()
        row["options"] = ", ".join(_options(registry, name))
        row["categories"] = [
            {"id": known[c].id, "title": known[c].title, "severity": known[c].severity.value}
            for c in detector.categories
        ]
        row["pattern_ids"] = [pattern.id for pattern in patterns]
    return row


def description_of_failure(registry: Registry, name: str, error: StanchionError) -> dict[str, Any]:
    """The row of a detector that cannot be made."""
    return {"id": name, "provider": registry.provider(name), "error": error.message, "hint": error.hint}


def _reads_patterns(name: str) -> bool:
    return name.partition(".")[2] in ("", "patterns")


def _reach(reach: Reach) -> str:
    return f"{reach.characters} characters" if reach.kind is ReachKind.BOUNDED else reach.kind.value


def _options(registry: Registry, name: str) -> list[str]:
    parameters = inspect.signature(registry.factory(name)).parameters.values()
    return [p.name for p in parameters if p.name not in _GIVEN and p.kind is not p.VAR_KEYWORD]
