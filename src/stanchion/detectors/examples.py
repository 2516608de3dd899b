"""The tests that patterns carry: every example is found by its pattern, no counter-example is."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from stanchion.detectors.matching import findings_from_hits
from stanchion.detectors.patterns import Pattern
from stanchion.detectors.scan import Scanner
from stanchion.detectors.views import build_views


class ExampleFailure(msgspec.Struct, frozen=True):
    """An example that went wrong, by its number in the file (1-based); never its text."""

    pattern: str
    kind: str
    number: int
    what: str


class ExampleReport(msgspec.Struct, frozen=True):
    """What was run, and what failed."""

    patterns: int
    examples: int
    counter_examples: int
    failures: tuple[ExampleFailure, ...]


def run_examples(scanner: Scanner) -> ExampleReport:
    """Every example of every pattern of a scanner, through views, validators and context rules."""
    patterns = scanner.patterns
    return ExampleReport(
        patterns=len(patterns),
        examples=sum(len(pattern.examples) for pattern in patterns),
        counter_examples=sum(len(pattern.counter_examples) for pattern in patterns),
        failures=tuple(failure for pattern in patterns for failure in _failures(scanner, pattern)),
    )


def _failures(scanner: Scanner, pattern: Pattern) -> Iterator[ExampleFailure]:
    for number, text in enumerate(pattern.examples, 1):
        if not is_found(scanner, pattern, text):
            yield ExampleFailure(pattern.id, "example", number, "is not found")
    for number, text in enumerate(pattern.counter_examples, 1):
        if is_found(scanner, pattern, text):
            yield ExampleFailure(pattern.id, "counter-example", number, "is found")


def is_found(scanner: Scanner, pattern: Pattern, text: str) -> bool:
    """Whether the pattern makes a finding in the text."""
    view_set = build_views(text)
    hits = [hit for hit in scanner.hits_for(view_set, pattern.detector) if hit.pattern is pattern]
    return bool(findings_from_hits(pattern.detector, "", hits, view_set))
