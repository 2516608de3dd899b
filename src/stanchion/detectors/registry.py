"""Detectors by id: a table of lazy factories, and what is installed under the entry points `stanchion.detectors`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stanchion.core.finding import AsyncDetector, Detector
from stanchion.detectors.scan import Scanner

ENTRY_POINT_GROUP = "stanchion.detectors"
Factory = Callable[..., Detector | AsyncDetector]

BUILTIN: Mapping[str, str] = {
    "secrets": "stanchion.detectors.secrets:create",
    "pii": "stanchion.detectors.pii:create",
    "injection.patterns": "stanchion.detectors.injection:create_patterns",
    "injection.linear": "stanchion.detectors.injection:create_linear",
    "leakage": "stanchion.detectors.leakage:create",
    "refusal": "stanchion.detectors.refusal:create",
    "custom": "stanchion.detectors.custom:create",
}


class Registry:
    """Makes detectors; every factory is called as `create(scanner=..., **options)`."""

    def __init__(self, scanner: Scanner | None = None) -> None:
        self._scanner = scanner

    def ids(self) -> tuple[str, ...]:
        """All ids that can be made, sorted."""
        return tuple(sorted(BUILTIN))

    def create(self, detector_id: str, **options: Any) -> Detector | AsyncDetector:
        """A detector.

        Raises:
            UnknownNameError: when nothing is registered under the id.
            UsageError: when it does not take these options.
        """
        raise NotImplementedError
