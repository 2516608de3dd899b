"""Ways back from a rewritten text to the text it was made from.

A transform gives a new text and an `OffsetMap`. The map answers one question: which half-open span of the
parent made this half-open span of mine? A chain of views asks one map after the other.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

_ROW = 5  # numbers that tell one piece


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
    """Each character was made by one character of the parent: the one at `origins[i]`."""

    __slots__ = ("_origins",)

    def __init__(self, origins: array[int]) -> None:
        self._origins = origins

    def to_parent(self, start: int, end: int) -> tuple[int, int]:
        """From the first character's origin to behind the last character's origin."""
        if not self._origins:
            return 0, 0
        first = self._origins[start] if start < len(self._origins) else self._origins[-1] + 1
        return first, first if end <= start else self._origins[end - 1] + 1


class Pieces:
    """The text is a row of pieces; in each, every `made` characters came from `read` of the parent.

    A copied piece is (1, 1), a percent escape (1, 3), base64 (3, 4); a piece that maps only as a whole has
    its own two lengths.
    """

    __slots__ = ("_ends", "_made", "_parents", "_read", "_starts")

    def __init__(self, rows: Sequence[int] = ()) -> None:
        """`rows` holds, one piece after the other: start, start and end in the parent, made, read."""
        packed = array("L", rows)
        self._starts, self._parents, self._ends = packed[0::_ROW], packed[1::_ROW], packed[2::_ROW]
        self._made, self._read = packed[3::_ROW], packed[4::_ROW]

    def to_parent(self, start: int, end: int) -> tuple[int, int]:
        """The union of what the touched units came from."""
        if not self._starts:
            return 0, 0
        first = self._first(start)
        return first, first if end <= start else self._last(end)

    def _first(self, start: int) -> int:
        piece = bisect_right(self._starts, start) - 1
        units = (start - self._starts[piece]) // self._made[piece]
        return min(self._parents[piece] + units * self._read[piece], self._ends[piece])

    def _last(self, end: int) -> int:
        piece = bisect_right(self._starts, end - 1) - 1
        units = (end - 1 - self._starts[piece]) // self._made[piece] + 1
        return min(self._parents[piece] + units * self._read[piece], self._ends[piece])


class Rewriter:
    """Builds a rewritten text and its map from left to right.

    Stretches that no `replace` names are copied; `finish` copies the rest.
    """

    __slots__ = ("_length", "_parts", "_read", "_rows", "_source")

    def __init__(self, source: str) -> None:
        self._source = source
        self._rows: list[int] = []
        self._parts: list[str] = []
        self._read = 0
        self._length = 0

    def replace(self, start: int, end: int, text: str, *, unit: tuple[int, int] | None = None) -> None:
        """Put `text` in the place of `source[start:end]`; calls come in order and do not overlap.

        `unit` is (characters of `text`, characters of the source) that belong together; the whole by default.
        """
        read = self._read
        if start > read:
            self._rows += (self._length, read, start, 1, 1)
            self._parts.append(self._source[read:start])
            self._length += start - read
        self._read = end
        if text:
            made = len(text)
            self._rows += (self._length, start, end, *(unit or (made, end - start)))
            self._parts.append(text)
            self._length += made

    def keep_every_other(self, start: int, end: int) -> None:
        """Of `source[start:end]` keep the first character, the third and so on; in order, as `replace` is."""
        self.replace(start, start, "")
        kept = self._source[start:end:2]
        rows, length = self._rows, self._length
        for number in range(len(kept)):
            place = start + 2 * number
            rows += (length + number, place, place + 1, 1, 1)
        self._parts.append(kept)
        self._length += len(kept)
        self._read = end

    def finish(self) -> tuple[str, Pieces]:
        """The whole text and the way back."""
        end = len(self._source)
        self.replace(end, end, "")
        return "".join(self._parts), Pieces(self._rows)
