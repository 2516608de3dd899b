"""At most so many findings of a text, and one more that covers the rest.

A hostile text can hold any number of suspect windows. The worst are told apart; the others become one finding
from the first of them to the end of the last, so that what acts on findings by their place (a redaction)
reaches all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Place(Protocol):
    """Something found at a place of the original, half-open."""

    @property
    def start(self) -> int:
        """Offset of its first character."""
        ...

    @property
    def end(self) -> int:
        """Offset after its last character."""
        ...


S = TypeVar("S", bound=Place)


def worst_apart_of(
    spans: Sequence[S], strength: Callable[[S], float], *, most: int
) -> tuple[list[S], list[S]]:
    """The strongest spans that do not overlap, at most `most`; then what overlaps none of them.

    Both by strength; of equals the earlier one comes first.
    """
    kept: list[S] = []
    left: list[S] = []
    for span in sorted(spans, key=lambda s: (-strength(s), s.start)):
        if all(span.start >= other.end or other.start >= span.end for other in kept):
            (kept if len(kept) < most else left).append(span)
    return kept, left


def covering(spans: Sequence[Place]) -> tuple[int, int]:
    """From the first of the spans to the end of the last; `spans` is not empty."""
    return min(span.start for span in spans), max(span.end for span in spans)


def rest_reason(reason: str, windows: int) -> str:
    """The reason of the finding that covers `windows` suspect places beyond those told apart."""
    places = "place" if windows == 1 else "places"
    return f"{reason}; {windows} more such {places} in this span, not told apart"
