"""Text written backwards: the whole of it, or each word."""

from __future__ import annotations

import re

from stanchion.detectors.transforms.offsets import Rewriter
from stanchion.detectors.transforms.reading import TextView

_WORD = re.compile(r"[^\W_]{2,64}")


class Mirrored:
    """The parent from its end to its start."""

    __slots__ = ("_length",)

    def __init__(self, length: int) -> None:
        self._length = length

    def to_parent(self, start: int, end: int) -> tuple[int, int]:
        """The span that lies as far from the other end."""
        return self._length - end, self._length - start


def mirrored(view: TextView) -> TextView:
    """The characters from the last to the first."""
    return TextView("", view.text[::-1], view, Mirrored(len(view.text)))


def words_mirrored(view: TextView) -> TextView:
    """Each word backwards, the words in their order."""
    rewriter = Rewriter(view.text)
    for word in _WORD.finditer(view.text):
        rewriter.replace(word.start(), word.end(), word.group()[::-1])
    text, offsets = rewriter.finish()
    return TextView("", text, view, offsets)
