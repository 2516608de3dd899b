"""Ways back from a rewritten text to the text it was made from.

A transform gives a new text and an `OffsetMap`. The map answers one question: which half-open span of the
parent made this half-open span of mine? A chain of views asks one map after the other.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Protocol


class OffsetMap(Protocol):
    """From offsets of a rewritten text to offsets of its parent."""

    def to_parent(self, start: int, end: int) -> tuple[int, int]:
        """The smallest span of the parent that made `[start, end)`; both are code points."""
        ...


class Shifted:
    """The text is the slice of its parent that begins at `base`."""

    __slots__ = ("base",)

    def __init__(self, base: int) -> None:
        self.base = base

    def to_parent(self, start: int, end: int) -> tuple[int, int]:
        """The same span, moved."""
        return start + self.base, end + self.base


class PerCharacter:
    """For each character, the span of the parent that made it."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, starts: array[int], ends: array[int]) -> None:
        self._starts = starts
        self._ends = ends

    def to_parent(self, start: int, end: int) -> tuple[int, int]:
        """From the first character's start to the last character's end."""
        if not self._starts:
            return 0, 0
        if start >= len(self._starts):
            return self._ends[-1], self._ends[-1]
        if end <= start:
            return self._starts[start], self._starts[start]
        return self._starts[start], self._ends[min(end, len(self._ends)) - 1]


class Pieces:
    """The text is a row of pieces: copied ones map character by character, rewritten ones as a whole."""

    __slots__ = ("_copied", "_lengths", "_parent_ends", "_parent_starts", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._lengths: list[int] = []
        self._parent_starts: list[int] = []
        self._parent_ends: list[int] = []
        self._copied: list[bool] = []

    def add(self, start: int, length: int, parent: tuple[int, int], *, copied: bool) -> None:
        """Append a piece; `start` must be where the last one ended, `length` above 0."""
        self._starts.append(start)
        self._lengths.append(length)
        self._parent_starts.append(parent[0])
        self._parent_ends.append(parent[1])
        self._copied.append(copied)

    def to_parent(self, start: int, end: int) -> tuple[int, int]:
        """The union of what the touched pieces came from."""
        if not self._starts:
            return 0, 0
        if end <= start:
            point = self._begin(start)
            return point, point
        return self._begin(start), self._finish(end)

    def _begin(self, start: int) -> int:
        piece = bisect_right(self._starts, start) - 1
        inside = start - self._starts[piece]
        if inside >= self._lengths[piece]:
            return self._parent_ends[piece]
        return self._parent_starts[piece] + (inside if self._copied[piece] else 0)

    def _finish(self, end: int) -> int:
        piece = bisect_right(self._starts, end - 1) - 1
        if not self._copied[piece]:
            return self._parent_ends[piece]
        return min(self._parent_starts[piece] + end - self._starts[piece], self._parent_ends[piece])


class Rewriter:
    """Builds a rewritten text and its map from left to right.

    Stretches that no `replace` names are copied; `finish` copies the rest.
    """

    __slots__ = ("_length", "_parts", "_pieces", "_read", "_source")

    def __init__(self, source: str) -> None:
        self._source = source
        self._pieces = Pieces()
        self._parts: list[str] = []
        self._read = 0
        self._length = 0

    def replace(self, start: int, end: int, text: str) -> None:
        """Put `text` in the place of `source[start:end]`; calls come in order and do not overlap."""
        self._copy_to(start)
        self._read = end
        if text:
            self._pieces.add(self._length, len(text), (start, end), copied=False)
            self._parts.append(text)
            self._length += len(text)

    def replace_mapped(self, text: str, spans: list[tuple[int, int]], end: int) -> None:
        """Put `text` where each character has its own span of the source; read on from `end`."""
        self._copy_to(spans[0][0] if spans else end)
        for span in spans:
            self._pieces.add(self._length, 1, span, copied=False)
            self._length += 1
        self._parts.append(text)
        self._read = end

    def finish(self) -> tuple[str, Pieces]:
        """The whole text and the way back."""
        self._copy_to(len(self._source))
        return "".join(self._parts), self._pieces

    def _copy_to(self, end: int) -> None:
        if end > self._read:
            self._pieces.add(self._length, end - self._read, (self._read, end), copied=True)
            self._parts.append(self._source[self._read : end])
            self._length += end - self._read
            self._read = end
