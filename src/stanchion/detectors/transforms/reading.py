"""One reading of a text, and the way back to the original through all the readings it was made from."""

from __future__ import annotations

from typing import Any

from stanchion.detectors.transforms.offsets import OffsetMap
from stanchion.detectors.transforms.triggers import Signs, Trigger, trigger_finder

_BLOCK = 1024
_CONTINUATION = bytes(range(0x80, 0xC0))


class TextView:
    """One reading. `parent` is the reading it was made from, None for `raw`.

    Two shares of its characters, in [0, 1], say what a later reading shows in clear: `encoded` of what was
    decoded, `apart` of words whose letters stood apart. `is_skeleton` says that look-alikes are resolved.
    """

    __slots__ = (
        "_data", "_marks", "_signs", "apart", "encoded", "family", "is_skeleton", "name", "offsets", "parent",
        "prospect", "sighting", "text",
    )  # fmt: skip

    def __init__(self, name: str, text: str, parent: TextView | None, offsets: OffsetMap | None) -> None:
        self.name = name
        self.family = name.partition(":")[0]
        self.text = text
        self.parent = parent
        self.offsets = offsets
        self.encoded = 0.0
        self.apart = 0.0
        self.is_skeleton = False
        self.sighting: tuple[object, Any] | None = None  # by whom it was looked at last, and what was seen
        self.prospect: tuple[object, Any] | None = None  # the same of what may be in its parts
        self._signs: Signs | None = None
        self._data: bytes | None = None
        self._marks: list[int] | None = None

    @property
    def data(self) -> bytes:
        """The text in UTF-8, for automata; a lone surrogate is one `?`, so that the count stays."""
        if self._data is None:
            self._data = self.text.encode("utf-8", "replace")
        return self._data

    @property
    def is_ascii(self) -> bool:
        """Whether all characters are below 128."""
        return self.text.isascii()

    @property
    def triggers(self) -> Trigger:
        """Which decoders the text may need."""
        return self.signs.triggers

    @property
    def signs(self) -> Signs:
        """The triggers, and whether there are digits and long runs; looked for once."""
        signs = self._signs
        if signs is None:
            signs = self._signs = trigger_finder().find(self.data)
        return signs

    def named(self, name: str) -> TextView:
        """The same reading under another name."""
        view = TextView(name, self.text, self.parent, self.offsets)
        view._data, view._signs, view.sighting = self._data, self._signs, self.sighting
        view.prospect = self.prospect
        return view

    def character(self, offset: int) -> int:
        """The code point at a byte offset of `data`."""
        if len(self.data) == len(self.text):
            return offset
        if self._marks is None:
            self._marks = _character_counts(self.data)
        block, rest = divmod(offset, _BLOCK)
        return self._marks[block] + len(self.data[offset - rest : offset].translate(None, _CONTINUATION))

    def to_original(self, start: int, end: int) -> tuple[int, int]:
        """The half-open span of the original that made `text[start:end]`."""
        view: TextView | None = self
        while view is not None:
            if view.offsets is not None:
                start, end = view.offsets.to_parent(start, end)
            view = view.parent
        return start, end

    def __repr__(self) -> str:
        return f"TextView({self.name!r}, {len(self.text)} characters)"


def _character_counts(data: bytes) -> list[int]:
    """How many code points begin before each block of bytes."""
    counts = [0]
    for start in range(0, len(data), _BLOCK):
        counts.append(counts[-1] + len(data[start : start + _BLOCK].translate(None, _CONTINUATION)))
    return counts
