"""How tests ask a detector: one text in, findings out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from stanchion.core.finding import DetectorInput, Finding
from stanchion.core.origin import Origin
from stanchion.detectors.registry import Registry
from stanchion.detectors.views import build_views


@cache
def registry() -> Registry:
    return Registry()


@cache
def detector(name: str) -> Any:
    return registry().create(name)


def read(name: str, text: str, *, least: float = 0.5, **context: Sequence[str]) -> list[Finding]:
    """Findings of a packaged detector at or above a score."""
    return ask(detector(name), text, least=least, **context)


def ask(asked: Any, text: str, *, least: float = 0.5, **context: Sequence[str]) -> list[Finding]:
    given = DetectorInput(
        view_set=build_views(text), origin=Origin.USER, context={k: tuple(v) for k, v in context.items()}
    )
    return [finding for finding in asked.detect(given) if finding.score >= least]


def span(text: str, finding: Finding) -> str:
    return text[finding.location.start : finding.location.end]
