"""From one text to all readings of the whole of it: fold, decode and fold again, put words together."""

from __future__ import annotations

import msgspec

from stanchion.detectors.transforms.decoders import decoding_edits, rot13
from stanchion.detectors.transforms.folding import composed, skeleton, visible
from stanchion.detectors.transforms.offsets import Rewriter
from stanchion.detectors.transforms.reading import TextView
from stanchion.detectors.transforms.spelling import respelled
from stanchion.detectors.transforms.triggers import DECODING, SPELLING, Trigger, find_triggers


class ViewOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How far a text is unfolded.

    `max_depth` counts decodings of decodings. `max_run` is the longest encoded run that is decoded, in
    characters; `max_characters` is how much of a text is unfolded at all. What is left out is in `notices`.
    """

    rot13: bool = False
    max_depth: int = 3
    max_run: int = 65_536
    max_characters: int = 4_000_000
    max_segments: int = 512


class Notice(msgspec.Struct, frozen=True):
    """A limit that cut a reading short: which, and the span of the original that was not read."""

    signal: str
    start: int
    end: int


class Unfolding:
    """The readings of one text as they are made, with the signals and notices on the way."""

    def __init__(self, raw: TextView, options: ViewOptions) -> None:
        self.views: list[TextView] = [raw]
        self.signals: set[str] = set()
        self.notices: list[Notice] = []
        self._options = options
        self._seen = {raw.text}

    def run(self, triggers: Trigger | None) -> None:
        """Make every reading; `triggers` are those of the raw text, None when nobody looked yet."""
        raw = self._limited(self.views[0])
        if raw is not self.views[0] or triggers is None:
            triggers = find_triggers(raw.data)
        plain, folded = self._fold(raw, "", triggers)
        if plain is not raw:
            triggers = find_triggers(plain.data)
        self._respell(folded, "", triggers)
        self._decode(plain, triggers)
        if self._options.rot13:
            self._rotate(plain)

    def _limited(self, raw: TextView) -> TextView:
        limit = self._options.max_characters
        if len(raw.text) <= limit:
            return raw
        self._notice("unfold_limit", raw, limit, len(raw.text))
        return TextView("raw", raw.text[:limit], raw, None)

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
        return plain, self._add("folded", how, TextView("", text, plain, offsets))

    def _decode(self, view: TextView, triggers: Trigger) -> None:
        steps: list[str] = []
        while triggers & DECODING:
            edits = decoding_edits(view.text, triggers & DECODING, self._options.max_run)
            for edit in edits:
                if edit.is_cut:
                    self._notice("oversize_run", view, edit.start, edit.end)
            edits = [edit for edit in edits if not edit.is_cut]
            if not edits:
                break
            if len(steps) == self._options.max_depth:
                self._notice("decode_depth", view, edits[0].start, edits[-1].end)
                break
            rewriter = Rewriter(view.text)
            for edit in edits:
                rewriter.replace(edit.start, edit.end, edit.text, unit=edit.unit)
            names = sorted({edit.decoder for edit in edits})
            self.signals.update(names)
            steps.append("+".join(names))
            how = ">".join(steps)
            text, offsets = rewriter.finish()
            decoded = self._add("decoded", how, TextView("", text, view, offsets))
            triggers = find_triggers(decoded.data)
            view, folded = self._fold(decoded, how, triggers)
            if view is not decoded:
                triggers = find_triggers(view.data)
            self._respell(folded, how, triggers)

    def _respell(self, folded: TextView, how: str, triggers: Trigger) -> None:
        if not folded.text.isascii():
            triggers |= find_triggers(folded.data) & SPELLING
        if triggers & SPELLING:
            text, offsets = respelled(folded.text, triggers, self.signals)
            if text != folded.text:
                self._add("spaced", how, TextView("", text, folded, offsets))

    def _rotate(self, plain: TextView) -> None:
        self.signals.add("rot13")
        self._add("decoded", "rot13", TextView("", rot13(plain.text), plain, None))

    def _add(self, family: str, how: str, view: TextView) -> TextView:
        """The view under its name; one that equals an earlier one is made, but not listed."""
        named = TextView(f"{family}:{how}" if how else family, view.text, view.parent, view.offsets)
        if view.text not in self._seen:
            self._seen.add(view.text)
            self.views.append(named)
        return named

    def _notice(self, signal: str, view: TextView, start: int, end: int) -> None:
        self.signals.add(signal)
        notice = Notice(signal, *view.to_original(start, end))
        if notice not in self.notices:
            self.notices.append(notice)
