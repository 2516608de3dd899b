"""What of a growing text is settled: up to where nothing that may still come changes the findings.

A place is settled when no live match of a pattern, in no reading of the text, could still include it, when
the words that decide about every match in front of it have been seen, and when it is not inside a run that a
decoder may be about to read. `settled` answers for a text in which things were found, `clear` for one in
which nothing was: then what is clear may leave without another look.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

from stanchion.core.finding import DetectorInput, Finding
from stanchion.detectors.expressions import compile_re2, translate
from stanchion.detectors.incremental_calm import POSSIBLE, possible_in_parts
from stanchion.detectors.patterns import Pattern
from stanchion.detectors.prefixes import UNREADABLE, begun, longest, opening
from stanchion.detectors.scan import Hit, Scanner
from stanchion.detectors.transforms.reading import TextView
from stanchion.detectors.transforms.triggers import Trigger
from stanchion.detectors.views import TextViewSet

BEFORE = 300  # characters in front of a place that any packaged detector reads
AFTER = 64  # characters behind a match that its meaning may depend on
_LEAD = 4  # characters in front of a search that its assertions may read
_USUAL = "We may, at last, go on "  # a pattern that opens here opens in almost every text
_SET_MEMORY = 64 << 20  # bytes for the states of one set of expressions
_CALM = frozenset({"raw", "folded"})  # readings that change character by character
_BACKWARDS = Trigger.__members__.get("REVERSED", Trigger.NONE)
_FORWARDS = Trigger(sum(t.value for t in Trigger)) & ~_BACKWARDS
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_WARY = _FORWARDS & ~Trigger.CONTROLS
_WORD_SIGNS = "".join(map(chr, range(0x21, 0x7F)))
_BREAKS = " \t\r\n,;"
_CODE_BREAK = re.compile(r"[,;:-]")
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_LONGEST_BREAK = 3
_WRAPPED = 20  # characters of a line from which an encoded run may go on in the next one
_WRAPPED_LEAST = 4
# Prose in which no decoder finds a start and no word is put together or spelled anew: words of letters
# between signs of which no encoding is made. A run of 20 letters and dashes may be base64, ten pairs of
# digits hexadecimal, and three letters that stand alone a word that was pulled apart.
_BETWEEN = r"(?:[ \n,.;:'\"?()*#`]|-(?= ))++"
_SINGLE = rf"(?:[A-Za-z]{_BETWEEN}){{0,2}}"
_SHORT = rf"(?:{_SINGLE}(?:[A-Za-z]{{2}}{_BETWEEN}){{1,3}}){{0,2}}{_SINGLE}"
_LONG = rf"(?:[A-Za-z]{{3,15}}|[A-Za-z]{{3,9}}-[A-Za-z]{{3,9}}){_BETWEEN}"
_PROSE = re.compile(rf"(?:{_BETWEEN})?(?:{_SHORT}{_LONG})*+{_SHORT}")
_PROSE_CHARACTERS = 4_096


class WindowViews(TextViewSet):
    """The readings of a window of a text that goes on.

    Backward readings are left out, and patterns do not read words put together or spelled with digits: what
    these show at a place depends on all that may follow. With `is_wary`
    every decoder runs, triggered or not, so that a text that no reading changes can be told.
    """

    __slots__ = ("_is_wary",)

    goes_on = True

    def __init__(self, original: str, *, is_wary: bool = False, raw: TextView | None = None) -> None:
        super().__init__(original, raw=raw)
        self._is_wary = is_wary
        if is_wary:
            super().offer_triggers(_FORWARDS if _CONTROL.search(original) else _WARY)

    def offer_triggers(self, triggers: Trigger) -> None:
        """See `TextViewSet.offer_triggers`."""
        if not self._is_wary:
            super().offer_triggers(triggers & _FORWARDS if triggers else triggers)

    def take_as_read(self) -> None:
        """There is no reading but the text as it stands."""
        self._readings = (self.raw,)


class Watch:
    """Says where the oldest live match of some patterns begins. Compiles at the first use; thread-safe.

    A match is live while the text behind its start is a beginning of what the pattern matches. Matches inside
    the last word are not looked for: the caller holds the last word back anyhow.
    """

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = tuple(patterns)

    @cached_property
    def unreadable(self) -> tuple[str, ...]:
        """Ids of patterns whose beginnings cannot be told; while there are any, nothing is settled."""
        return tuple(p.id for p, made in self._openings if made is UNREADABLE)

    @cached_property
    def _openings(self) -> tuple[tuple[Pattern, Any], ...]:
        return tuple([(pattern, _opening(pattern.pattern, pattern.flags)) for pattern in self._patterns])

    @cached_property
    def _prepared(self) -> tuple[Any, tuple[Pattern, ...], Any, dict[int, Any]]:
        """The set of openings with its patterns, the expression of those that open anywhere, and a cache."""
        import re2

        options = re2.Options()
        options.max_mem = _SET_MEMORY
        options.log_errors = False
        named = [(p, made) for p, made in self._openings if isinstance(made, str)]
        anywhere = [p for p, made in named if re2.search(made, _USUAL, options=options) is not None]
        rest = [(p, made) for p, made in named if p not in anywhere]
        openings = re2.Set.SearchSet(options)
        for _, made in rest:
            openings.Add(made.encode())
        if rest:
            openings.Compile()
        return (
            openings if rest else None,
            tuple(p for p, _ in rest),
            _compiled(anywhere) if anywhere else None,
            {},
        )

    def prepare(self) -> None:
        """Compile now what the first look would compile."""
        self._prepared  # noqa: B018 - made by looking at it

    def live(self, data: bytes, start: int) -> int:
        """The byte at or after `start` where the oldest live match begins; `len(data)` when there is none."""
        openings, patterns, anywhere, compiled = self._prepared
        oldest = len(data) if not self.unreadable else start
        if openings is not None:
            for index in openings.Match(data[max(0, start - _LEAD) :]) or ():
                expression = compiled.get(index)
                if expression is None:
                    expression = compiled[index] = _compiled([patterns[index]])
                oldest = min(oldest, expression.search(data, start).start())
        if anywhere is not None:
            oldest = min(oldest, anywhere.search(data, start).start())
        return oldest


@lru_cache(maxsize=4_096)
def _opening(pattern: str, flags: tuple[str, ...]) -> Any:
    """See `opening`; `UNREADABLE` where there is none to tell. Patterns are watched in several ways."""
    try:
        return opening(pattern, flags)
    except UNREADABLE:
        return UNREADABLE


@lru_cache(maxsize=32)
def watch_of(patterns: tuple[Pattern, ...]) -> Watch:
    """The watch over some patterns; compiled once for all who watch the same."""
    return Watch(patterns)


def _compiled(patterns: Iterable[Pattern]) -> Any:
    import re2

    options = re2.Options()
    options.max_mem = _SET_MEMORY
    options.log_errors = False
    parts = "|".join(begun(pattern.pattern, pattern.flags) for pattern in patterns)
    return re2.compile(f"(?:{parts})\\z".encode(), options)


class PatternReach:
    """The part of a detector that tells what is settled, for detectors over a scanner's patterns.

    A class that has `id` and `_scanner` inherits it.
    """

    id: str
    _scanner: Scanner
    _watch: Watch | None = None
    _reads_before = BEFORE
    _reads_after = AFTER

    @property
    def before(self) -> int:
        """How many characters in front of a match its finding may depend on."""
        return max(self._reads_before, self._window)

    @property
    def after(self) -> int:
        """How many characters behind a match its finding may depend on."""
        return max(self._reads_after, self._window)

    @cached_property
    def _window(self) -> int:
        patterns = self._scanner.patterns_for(self.id.partition(".")[0])
        return max((p.context.window for p in patterns if p.context is not None), default=0)

    @property
    def watch(self) -> Watch:
        """The watch over the detector's patterns."""
        if self._watch is None:
            self._watch = watch_of(self.watched)
        return self._watch

    @property
    def watched(self) -> tuple[Pattern, ...]:
        """The detector's patterns."""
        return self._scanner.patterns_for(self.id.partition(".")[0])

    def extent(self) -> tuple[int, int]:
        """The longest match of the patterns that have a bound, in characters, and how many have none."""
        return bounds(self._scanner.patterns_for(self.id.partition(".")[0]))

    def settled(self, detector_input: DetectorInput, start: int) -> int:
        """Up to where the findings are final, whatever follows: `start` or an offset behind it."""
        view_set = detector_input.view_set
        found = [whole_match(hit) for hit in self._hits(view_set)]
        cut = min(begun_run(view_set), _live(self.watch, view_set, start))
        open_hits = [first for first, last in found if last + self.after > len(view_set.original)]
        return max(start, uncut(min([cut, *open_hits]), found))

    def clear(self, detector_input: DetectorInput, start: int) -> int:
        """Up to where nothing is found and nothing can come to be, whatever follows."""
        return _clear((self,), self.watch, detector_input, start)

    def clear_beside(self, detector_input: DetectorInput, view_set: TextViewSet, start: int) -> int:
        """The same for what is looked for beside the patterns, in readings that change nothing."""
        return len(view_set.original)

    def calm(self, detector_input: DetectorInput) -> bool:
        """Whether nothing is found in this text nor in any part of it, wherever it is cut.

        For detectors that find nothing where no pattern matches.
        """
        asked = detector_input.view_set.memo.get(POSSIBLE)
        if asked is None or asked[0] is not self._scanner:
            asked = possible_in_parts(self._scanner, detector_input.view_set)
        possible = asked[1]
        return possible is not None and self.id.partition(".")[0] not in possible

    def _hits(self, view_set: TextViewSet) -> tuple[Hit, ...]:
        return self._scanner.hits_for(view_set, self.id.partition(".")[0])


class JointReach:
    """Detectors that are asked together what is clear: one look for the patterns of all of them."""

    def __init__(self, detectors: Sequence[PatternReach]) -> None:
        self._detectors = tuple(detectors)
        self.watch = watch_of(tuple([pattern for one in detectors for pattern in one.watched]))

    def clear(self, detector_input: DetectorInput, start: int) -> int:
        """The least that is clear for any of them; see `PatternReach.clear`."""
        return _clear(self._detectors, self.watch, detector_input, start)


def asked_together(detectors: Sequence[Any]) -> list[Any]:
    """What to ask in place of these detectors what is clear: those over patterns as one, others each."""
    joint = [one for one in detectors if getattr(type(one), "clear", None) is PatternReach.clear]
    if len(joint) < 2:
        return list(detectors)
    return [JointReach(joint), *(one for one in detectors if one not in joint)]


def _clear(detectors: Sequence[PatternReach], watch: Watch, detector_input: DetectorInput, start: int) -> int:
    view_set = wary(detector_input.view_set)
    for view in view_set.readings:
        if view.family not in _CALM:
            return start
    for detector in detectors:
        if detector._hits(view_set):
            return start
    cut = begun_run(view_set)
    if cut > start:
        cut = min(cut, _live(watch, view_set, start))
    for detector in detectors:
        if cut <= start:
            return start
        cut = min(cut, detector.clear_beside(detector_input, view_set, start))
    return max(start, cut)


def whole_match(hit: Hit) -> tuple[int, int]:
    """The span in the original of all that a pattern matched, of which the hit reports one group.

    Where that cannot be told, it begins with the text.
    """
    first, last = hit.original
    if not hit.pattern.group:
        return first, last
    data, view = hit.view.data, hit.view
    for match in _expression(hit.pattern).finditer(data):
        start, end = match.span(hit.pattern.group)
        if (view.character(start), view.character(end)) == (hit.start, hit.end):
            return min(first, view.to_original(*_one(view.character(match.start()), view))[0]), last
    return 0, last


@lru_cache(maxsize=512)
def _expression(pattern: Pattern) -> Any:
    return compile_re2(translate(pattern.pattern, pattern.flags), pattern.flags)


def wary(view_set: TextViewSet) -> TextViewSet:
    """The same text with every decoder tried; made once for each text."""
    made: TextViewSet | None = view_set.memo.get("incremental.wary")
    if made is None and type(view_set) is WindowViews and is_prose(view_set.original):
        view_set.take_as_read()
        made = view_set.memo["incremental.wary"] = view_set
    if made is None:
        made = view_set.memo["incremental.wary"] = WindowViews(
            view_set.original, is_wary=True, raw=view_set.raw
        )
        made.memo["incremental.wary"] = made
        made.readings  # noqa: B018 - before a scanner offers the triggers that it saw
    return made


def is_prose(text: str) -> bool:
    """Whether a short text has no reading but itself for certain, whichever decoders are tried."""
    return len(text) <= _PROSE_CHARACTERS and _PROSE.fullmatch(text + " ") is not None


def uncut(cut: int, spans: Iterable[tuple[int, int]]) -> int:
    """The last offset up to `cut` that lies inside none of the spans."""
    for first, last in sorted(spans, key=lambda span: -span[1]):
        if first < cut < last:
            cut = first
    return cut


def outside(cut: int, findings: Iterable[Finding]) -> int:
    """The last offset up to `cut` that lies inside no finding."""
    return uncut(cut, ((f.location.start, f.location.end) for f in findings))


def _live(watch: Watch, view_set: TextViewSet, start: int) -> int:
    """Where, in the original, the oldest live match in any reading begins."""
    oldest = len(view_set.original)
    for view in view_set.readings:
        first = _offset_in(view, start)
        data = view.data
        at = first if len(data) == len(view.text) else len(view.text[:first].encode("utf-8", "replace"))
        live = watch.live(data, at)
        if live < len(data):
            oldest = min(oldest, view.to_original(*_one(view.character(live), view))[0])
    return oldest


def _one(offset: int, view: TextView) -> tuple[int, int]:
    return offset, min(offset + 1, len(view.text))


def _offset_in(view: TextView, start: int) -> int:
    """The first character of a reading that was made of `original[start:]`."""
    if view.parent is None or start == 0:
        return start
    places = range(len(view.text))
    return bisect_left(places, start, key=lambda offset: view.to_original(offset, offset + 1)[0])


def begun_run(view_set: TextViewSet) -> int:
    """Where the run begins that a decoder or a fold may still read together with what follows."""
    found: int | None = view_set.memo.get("incremental.run")
    if found is None:
        found = len(view_set.original)
        for view in view_set.readings:
            start = min(_run_start(view.text), _open_frame(view.text))
            if start < len(view.text):
                found = min(found, view.to_original(start, start + 1)[0])
        view_set.memo["incremental.run"] = found
    return found


def _run_start(text: str) -> int:
    """The last word, with the lines and the row of short codes that it goes on."""
    start = _word_start(text, len(text))
    joined = start
    for line_start, line_end in _lines_before(text, start):
        if line_end - line_start < _WRAPPED_LEAST:
            break
        if line_end - line_start >= _WRAPPED or text[line_end - 1] == "=":
            joined = line_start
        if text[line_start - 1 : line_start] not in ("\n", "\r"):
            break
    return min(joined, _row_start(text, start))


def _word_start(text: str, end: int) -> int:
    """Where the last word before `end` begins: visible ASCII, or a character that a mark may still join."""
    start = len(text[:end].rstrip(_WORD_SIGNS)) if end < len(text) else len(text.rstrip(_WORD_SIGNS))
    while start > 0 and _may_be_joined(text[start - 1]):
        start -= 1
    if start > 0 and not text[start - 1].isascii() and start == end:
        start -= 1  # the character that the next one may be a mark of
    return start - 1 if text[start - 1 : start] == "\x1b" else start


def _may_be_joined(character: str) -> bool:
    if character.isascii():
        return False
    return unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf") or "\u1100" <= character <= "\u11ff"


def _lines_before(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Words that are the end of a line, from the line before `start` backwards."""
    while start > 0 and text[start - 1] == "\n":
        end = start - 1
        if text[end - 1 : end] == "\r":
            end -= 1
        start = _word_start(text, end) if end > 0 else 0
        if start == end:
            return
        yield start, end


def _row_start(text: str, start: int) -> int:
    """A row of single letters, pairs of digits or numbers that ends here, as codes are written."""
    first = start
    if start < len(text) and not _is_code(text[start:].rstrip(_BREAKS)):
        return start
    while first > 0:
        end = first
        while end > 0 and first - end < _LONGEST_BREAK and text[end - 1] in _BREAKS:
            end -= 1
        begin = _word_start(text, end) if 0 < end < first else end
        if begin == end or not _is_code(text[begin:end]):
            return begin if _ends_in_code(text[begin:end]) else first
        first = begin
    return first


def _ends_in_code(word: str) -> bool:
    """Whether a row of codes may begin at the end of a word: `16a 61 6e` holds `6a 61 6e`."""
    return len(word) > 2 and _HEX_DIGITS.issuperset(word[-2:])


def _is_code(word: str) -> bool:
    parts = _CODE_BREAK.split(word)
    return all(
        len(part) <= 1
        or (len(part) == 2 and _HEX_DIGITS.issuperset(part))
        or (len(part) == 4 and part[:2] == "0x")
        or (len(part) <= 8 and part.isdigit())
        or (len(part) <= 8 and not part.strip(".-_"))
        for part in parts
    )


def _open_frame(text: str) -> int:
    """Where base85 in its frame `<~ ... ~>` was opened and not closed."""
    opened = text.rfind("<~")
    return opened if opened >= 0 and text.find("~>", opened + 2) < 0 else len(text)


def bounds(patterns: Iterable[Pattern]) -> tuple[int, int]:
    """The longest match of those patterns whose matches have a bound, and how many have none."""
    most = unbounded = 0
    for pattern in patterns:
        try:
            found = longest(pattern.pattern, pattern.flags)
        except UNREADABLE:
            found = None
        unbounded += found is None
        most = max(most, found or 0)
    return most, unbounded
