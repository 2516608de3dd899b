"""All readings of one text: raw, folded, decoded, spaced, and its segments, each with the way back.

Names of views are `family` or `family:how`: `raw`, `folded`, `folded:compat`, `decoded:base64`,
`decoded:url+hex`, `spaced`, `segment:html_comment`. Patterns name families. Nothing is made before somebody
asks for it, and a reading that equals an earlier one is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from stanchion.detectors.transforms.offsets import OffsetMap
from stanchion.detectors.transforms.triggers import Trigger


class ViewOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How far a text is unfolded.

    `max_depth` counts decodings of decodings; `max_characters` bounds all decoded text of one `ViewSet`
    together. What is left out is named in `notices`.
    """

    rot13: bool = False
    max_depth: int = 3
    max_characters: int = 1 << 20
    max_segments: int = 256


DEFAULT_OPTIONS = ViewOptions()
_BLOCK = 1024
_CONTINUATION = bytes(range(0x80, 0xC0))


class Notice(msgspec.Struct, frozen=True):
    """A limit that cut a reading short: which, and the span of the original that was not read."""

    signal: str
    start: int
    end: int


class TextView:
    """One reading. `parent` is the reading it was made from, None for `raw`."""

    __slots__ = ("_data", "_marks", "_offsets", "family", "name", "parent", "text")

    def __init__(self, name: str, text: str, parent: TextView | None, offsets: OffsetMap | None) -> None:
        self.name = name
        self.family = name.partition(":")[0]
        self.text = text
        self.parent = parent
        self._offsets = offsets
        self._data: bytes | None = None
        self._marks: list[int] | None = None

    @property
    def data(self) -> bytes:
        """The text in UTF-8, for automata; a lone surrogate is one `?`, so that the count stays."""
        if self._data is None:
            self._data = self.text.encode("utf-8", "replace")
        return self._data

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
            if view._offsets is not None:
                start, end = view._offsets.to_parent(start, end)
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


class TextViewSet:
    """All readings of one text, made on first use and shared by all detectors. For one thread at a time."""

    __slots__ = (
        "_notices",
        "_options",
        "_readings",
        "_segments",
        "_signals",
        "_triggers",
        "memo",
        "original",
        "raw",
    )

    def __init__(self, original: str, options: ViewOptions = DEFAULT_OPTIONS) -> None:
        self.original = original
        self.raw = TextView("raw", original, None, None)
        self.memo: dict[str, Any] = {}
        self._options = options
        self._triggers: Trigger | None = None
        self._readings: tuple[TextView, ...] | None = None
        self._segments: tuple[TextView, ...] | None = None
        self._signals: frozenset[str] = frozenset()
        self._notices: tuple[Notice, ...] = ()

    @property
    def views(self) -> Sequence[TextView]:
        """Every reading, `raw` first, segments last."""
        return (*self.readings, *self.segments)

    @property
    def readings(self) -> tuple[TextView, ...]:
        """The readings of the whole text: raw, folded, decoded, spaced."""
        if self._readings is None:
            self._readings = (self.raw,)
        return self._readings

    @property
    def segments(self) -> tuple[TextView, ...]:
        """Parts of the text that stand on their own: comments, links, fences, quotes, leaves, cells."""
        if self._segments is None:
            self._segments = ()
        return self._segments

    @property
    def folded(self) -> TextView:
        """The most normalised reading of the text as it stands: `folded`, or `raw` where nothing changed."""
        return next((view for view in self.readings if view.name == "folded"), self.raw)

    @property
    def signals(self) -> frozenset[str]:
        """Which transforms changed something (`zero_width`, `base64`, ...), and which limits were hit."""
        self.readings  # noqa: B018 - the signals are made with the readings
        return self._signals

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What was cut short, with its place."""
        self.readings  # noqa: B018
        return self._notices

    def offer_triggers(self, triggers: Trigger) -> None:
        """What an automaton already saw in `raw`, so that nobody looks twice."""
        self._triggers = triggers

    def note(self, notice: Notice) -> None:
        """Remember a limit that was hit while the views were read."""
        self._notices = (*self.notices, notice)

    def family(self, name: str) -> tuple[TextView, ...]:
        """The views of one family: `raw`, `folded`, `spaced`, `decoded` or `segment`."""
        of = self.segments if name == "segment" else self.readings
        return tuple(view for view in of if view.family == name)


def build_views(text: str, *, options: ViewOptions = DEFAULT_OPTIONS) -> TextViewSet:
    """The readings of a text; total for every `str`, in time linear in its length."""
    return TextViewSet(text, options)
