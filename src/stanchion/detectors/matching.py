"""From hits of the automaton to findings: validator, context words, score, one finding per place."""

from __future__ import annotations

from collections.abc import Iterable

from stanchion.core.finding import Finding
from stanchion.detectors.scan import Hit
from stanchion.detectors.views import TextViewSet


def findings_from_hits(
    detector_id: str, version: str, hits: Iterable[Hit], view_set: TextViewSet
) -> list[Finding]:
    """What the hits amount to, by position: validators passed, context applied, doubles of other views merged."""
    raise NotImplementedError
