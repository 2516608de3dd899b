"""From one text to all readings of the whole of it: fold, decode and fold again, put words together."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import msgspec

from stanchion.detectors.transforms.decoders import decoding_edits, rot13
from stanchion.detectors.transforms.edits import OPAQUE, Edit
from stanchion.detectors.transforms.folding import composed, skeleton, visible
from stanchion.detectors.transforms.offsets import Rewriter
from stanchion.detectors.transforms.reading import TextView
from stanchion.detectors.transforms.reversal import mirrored, words_mirrored
from stanchion.detectors.transforms.spelling import joined, respelled
from stanchion.detectors.transforms.triggers import DECODING, SPELLING, Trigger


class ViewOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How far a text is unfolded.

    `max_depth` counts decodings of decodings. `max_run` is the longest encoded run that is decoded, in
    characters; `max_characters` is how much of a text is unfolded at all; `max_views` is the number of
    readings of one text, which also have eight times its characters at most (and 65,536 on top). What is left
    out is in `notices`.
    """

    rot13: bool = False
    max_depth: int = 4
    max_run: int = 65_536
    max_characters: int = 4_000_000
    max_segments: int = 512
    max_views: int = 24


class Notice(msgspec.Struct, frozen=True):
    """A limit that cut a reading short: which, and the span of the original that was not read."""

    signal: str
    start: int
    end: int


class _Level(NamedTuple):
    """A text to be unfolded: itself, the steps that led to it, and its triggers."""

    view: TextView
    steps: tuple[str, ...]
    triggers: Trigger

    @property
    def how(self) -> str:
        """The second half of the names of this level's views."""
        return ">".join(self.steps)


_ROOM, _FREE_ROOM = 8, 65_536  # characters of all readings together, for each one of the text and on top
_TURNED = frozenset({"reversed", "reversed_words", "rot13"})  # not twice: the second undoes the first


class Unfolding:
    """The readings of one text as they are made, with the signals and notices on the way."""

    def __init__(self, raw: TextView, options: ViewOptions) -> None:
        self.views: list[TextView] = [raw]
        self.signals: set[str] = set()
        self.notices: list[Notice] = []
        self._options = options
        self._seen = {raw.text}
        self._levels: deque[_Level] = deque()
        self._room = _FREE_ROOM + _ROOM * len(raw.text)

    def run(self, triggers: Trigger | None) -> None:
        """Make every reading; `triggers` are those of the raw text, None when nobody looked yet."""
        raw = self._limited(self.views[0])
        if raw is not self.views[0] or triggers is None:
            triggers = raw.triggers
        self._levels.append(_Level(raw, (), triggers))
        while self._levels:
            self._unfold(self._levels.popleft())

    def _limited(self, raw: TextView) -> TextView:
        limit = self._options.max_characters
        if len(raw.text) <= limit:
            return raw
        self._notice("unfold_limit", raw, limit, len(raw.text))
        return TextView("raw", raw.text[:limit], raw, None)

    def _unfold(self, level: _Level) -> None:
        """All readings of one level; what it leads to is put in the queue."""
        view, triggers = level.view, level.triggers
        plain, folded = self._fold(view, level.how, triggers)
        if plain is not view:
            triggers = plain.triggers
        if not (triggers & DECODING and self._decode(plain, level, triggers)):
            self._respell(folded, level, triggers)  # else the next level is respelled, with all that is here
        if triggers & Trigger.REVERSED and _TURNED.isdisjoint(level.steps):
            self.signals.add("reversed")
            self._turn(mirrored(folded), level, "reversed")
            self._turn(words_mirrored(folded), level, "reversed_words")
        if self._options.rot13 and not level.steps:
            self.signals.add("rot13")
            self._turn(TextView("", rot13(plain.text), plain, None), level, "rot13")

    def _fold(self, view: TextView, how: str, triggers: Trigger) -> tuple[TextView, TextView]:
        """The view without invisible characters and compatibility forms, and that with look-alikes read."""
        if view.text.isascii() and not triggers & Trigger.CONTROLS:
            return view, view
        text, offsets = visible(view.text, self.signals)
        plain = view if offsets is None else TextView("", text, view, offsets)
        text, offsets = composed(plain.text, self.signals)
        plain = plain if offsets is None else TextView("", text, plain, offsets)
        text, offsets = skeleton(plain.text, self.signals)
        if text == plain.text:
            return (view, view) if plain is view else (self._add("folded", how, plain),) * 2
        if plain is not view:
            plain = self._add("folded", f"compat+{how}" if how else "compat", plain)
        folded = self._add("folded", how, TextView("", text, plain, offsets))
        folded.is_skeleton = True
        return plain, folded

    def _respell(self, folded: TextView, level: _Level, triggers: Trigger) -> None:
        if not folded.text.isascii():
            triggers |= folded.triggers & SPELLING
        if not triggers & SPELLING:
            return
        together = joined(folded.text) if triggers & Trigger.SPACED else None
        text, folded.apart = respelled(folded.text if together is None else together.text, self.signals)
        if together is not None:
            self.signals.add("spaced")
            folded.apart = max(folded.apart, together.share)
        if text != folded.text:
            offsets = None if together is None else together.offsets
            self._add("spaced", level.how, TextView("", text, folded, offsets))
        if together is not None:
            view = TextView("", together.text, folded, together.offsets)
            if view.triggers & DECODING:
                self._decode(view, level._replace(steps=(*level.steps, "spaced")), view.triggers)

    def _decode(self, view: TextView, level: _Level, triggers: Trigger) -> bool:
        """Put the view with what is encoded in it in clear in the queue; whether that is a new text."""
        edits: list[Edit] = []
        for edit in decoding_edits(view.text, triggers & DECODING, self._options.max_run):
            if edit.is_cut:
                name = "opaque_run" if edit.decoder == OPAQUE else "oversize_run"
                self._notice(name, view, edit.start, edit.end)
            else:
                edits.append(edit)
        if not edits:
            return False
        if len(level.steps) >= self._options.max_depth:
            self._notice("decode_depth", view, edits[0].start, edits[-1].end)
            return False
        rewriter = Rewriter(view.text)
        for edit in edits:
            rewriter.replace(edit.start, edit.end, edit.text, unit=edit.unit)
        view.encoded = sum(edit.end - edit.start for edit in edits) / len(view.text)
        names = sorted({edit.decoder for edit in edits})
        self.signals.update(names)
        text, offsets = rewriter.finish()
        return self._queue(TextView("", text, view, offsets), (*level.steps, "+".join(names)))

    def _turn(self, view: TextView, level: _Level, step: str) -> None:
        if len(level.steps) < self._options.max_depth:
            self._queue(view, (*level.steps, step))

    def _queue(self, view: TextView, steps: tuple[str, ...]) -> bool:
        """Unfold the view later, under its name; one that equals an earlier one leads nowhere new."""
        if view.text in self._seen:
            return False
        count = len(self.views)
        named = self._add("decoded", ">".join(steps), view)
        if len(self.views) == count:
            return False
        self._levels.append(_Level(named, steps, named.triggers))
        return True

    def _add(self, family: str, how: str, view: TextView) -> TextView:
        """The view under its name; one that equals an earlier one is made, but not listed."""
        named = view.named(f"{family}:{how}" if how else family)
        if view.text not in self._seen:
            self._room -= len(view.text)
            if len(self.views) >= self._options.max_views or self._room < 0:
                self._notice("view_limit", view, 0, len(view.text))
                return named
            self._seen.add(view.text)
            self.views.append(named)
        return named

    def _notice(self, signal: str, view: TextView, start: int, end: int) -> None:
        self.signals.add(signal)
        notice = Notice(signal, *view.to_original(start, end))
        if notice not in self.notices:
            self.notices.append(notice)
