"""All readings of one text: raw, folded, decoded, spaced, and its segments, each with the way back.

Names of views are `family` or `family:how`: `raw`, `folded`, `folded:compat`, `decoded:base64`,
`decoded:url>hex`, `spaced`, `segment:html_comment`. Patterns name families. Nothing is made before somebody
asks for it, and a reading that equals an earlier one is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stanchion.detectors.transforms.reading import TextView
from stanchion.detectors.transforms.triggers import Trigger
from stanchion.detectors.transforms.unfolding import Notice, Unfolding, ViewOptions

__all__ = ["Notice", "TextView", "TextViewSet", "ViewOptions", "build_views"]

DEFAULT_OPTIONS = ViewOptions()


class TextViewSet:
    """All readings of one text, made on first use and shared by all detectors. For one thread at a time."""

    __slots__ = (
        "_notices", "_options", "_readings", "_segments", "_signals", "_triggers", "memo", "original", "raw",
        "ruled_out",
    )  # fmt: skip

    goes_on = False  # whether more of the text may follow

    def __init__(
        self, original: str, options: ViewOptions = DEFAULT_OPTIONS, *, raw: TextView | None = None
    ) -> None:
        """`raw` is the raw reading of the same text, where there is one already."""
        self.original = original
        self.raw = raw or TextView("raw", original, None, None)
        self.memo: dict[str, Any] = {}
        self.ruled_out: tuple[object, bool] | None = None  # by whom it was told last, and what
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
            if self._is_plain():
                self._readings = (self.raw,)
            else:
                self._unfold()
        return self._readings or (self.raw,)

    @property
    def segments(self) -> tuple[TextView, ...]:
        """Parts of the text that stand on their own: comments, links, fences, quotes, leaves, cells."""
        if self._segments is None:
            from stanchion.detectors.transforms.segments import find_segments

            limit = self._options.max_segments
            found, is_complete = find_segments(self.original[: self._options.max_characters], limit)
            self._segments = tuple(TextView(f"segment:{s.kind}", s.text, self.raw, s.offsets) for s in found)
            if not is_complete:
                start = self._segments[-1].to_original(0, 0)[0]
                self.note(Notice("segment_limit", start, len(self.original)))
        return self._segments

    @property
    def folded(self) -> TextView:
        """The most normalised reading of the text as it stands: `folded`, or `raw` where nothing changed."""
        return next((view for view in self.readings if view.name == "folded"), self.raw)

    @property
    def signals(self) -> frozenset[str]:
        """Which transforms changed something (`zero_width`, `base64`, ...), and which limits were hit."""
        if self._readings is None:
            self.readings  # noqa: B018 - the signals are made with the readings
        return self._signals

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What was cut short, with its place."""
        self.readings  # noqa: B018 - so are the notices
        return self._notices

    def offer_triggers(self, triggers: Trigger) -> None:
        """What an automaton already saw in `raw`, so that nobody looks twice."""
        self._triggers = triggers

    def take_as_plain(self) -> bool:
        """No trigger fires in `raw`: whether there is then no other reading, and nothing odd about it."""
        self.offer_triggers(Trigger.NONE)
        return len(self.readings) == 1 and not self._signals

    def note(self, notice: Notice) -> None:
        """Remember a limit that was hit while the views were read."""
        self._notices = (*self.notices, notice)
        self._signals |= {notice.signal}

    def family(self, name: str) -> tuple[TextView, ...]:
        """The views of one family: `raw`, `folded`, `spaced`, `decoded` or `segment`."""
        of = self.segments if name == "segment" else self.readings
        return tuple(view for view in of if view.family == name)

    def _is_plain(self) -> bool:
        return (
            self._triggers == Trigger.NONE
            and self.original.isascii()
            and len(self.original) <= self._options.max_characters
            and not self._options.rot13
        )

    def _unfold(self) -> None:
        unfolding = Unfolding(self.raw, self._options)
        unfolding.run(self._triggers)
        self._readings = tuple(unfolding.views)
        self._signals = frozenset(unfolding.signals)
        self._notices = tuple(unfolding.notices)


def build_views(
    text: str, *, options: ViewOptions = DEFAULT_OPTIONS, raw: TextView | None = None
) -> TextViewSet:
    """The readings of a text; total for every `str`, in time linear in its length. `raw` as for the class."""
    return TextViewSet(text, options, raw=raw)
