"""Which of many spans overlap a span, without asking each of them."""

from __future__ import annotations

from collections.abc import Iterator

_BLOCK = 128  # characters


class Overlaps:
    """Numbered half-open spans by the blocks of text that they touch.

    `near` gives those that may overlap, lowest number first: the caller compares. Spans that lie apart cost
    nothing, so findings by the thousand are compared in time linear in the text.
    """

    __slots__ = ("_blocks",)

    def __init__(self) -> None:
        self._blocks: dict[int, list[int]] = {}

    def add(self, number: int, start: int, end: int) -> None:
        """Remember a span."""
        for block in range(start // _BLOCK, max(end - 1, start) // _BLOCK + 1):
            self._blocks.setdefault(block, []).append(number)

    def near(self, start: int, end: int) -> Iterator[int]:
        """The numbers of the spans that touch the same blocks."""
        blocks = range(start // _BLOCK, max(end - 1, start) // _BLOCK + 1)
        if len(blocks) == 1:
            yield from self._blocks.get(blocks[0], ())
            return
        yield from sorted({number for block in blocks for number in self._blocks.get(block, ())})
