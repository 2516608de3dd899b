"""Folding: a text with invisible characters, compatibility forms and look-alikes resolved.

Two steps, each a reading of its own. `compat` removes what nobody sees, decodes Unicode tags and applies
NFKC; genuine text of any script stays as it is. `skeleton` then turns look-alikes into ASCII letters and
drops marks; it is for patterns in Latin letters only. Neither changes the case: patterns are caseless where
they should be, and a key must keep its case.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterator
from functools import lru_cache

from stanchion.detectors.transforms.confusables import mixed_script, reading
from stanchion.detectors.transforms.edits import readable
from stanchion.detectors.transforms.offsets import OffsetMap, PerCharacter, Rewriter

Step = tuple[str, OffsetMap | None]

_ZERO_WIDTH = "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2064\u3164\ufeff\uffa0"
_JOINERS = "\u200c\u200d"
_BIDI = "\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_TAGS = "\U000e0000-\U000e007f"
_CONTROLS = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u206a-\u206f\ufff0-\ufffb"
_SURROGATES = "\ud800-\udfff"
_INVISIBLE = re.compile(
    rf"(?P<zero_width>[{_ZERO_WIDTH}]+|(?<=[A-Za-z])[{_JOINERS}]+(?=[A-Za-z]))|(?P<joiners>[{_JOINERS}]+)"
    rf"|(?P<bidi>[{_BIDI}]+)|(?P<selectors>[{_SELECTORS}]+)|(?P<tags>[{_TAGS}]+)"
    rf"|(?P<controls>\x1b\[[0-9;]{{0,32}}[A-Za-z]|[{_CONTROLS}]+)|(?P<surrogates>[{_SURROGATES}]+)"
)
_FEWEST_SELECTORS = 4  # a character has at most one or two for its own shape
_ANY_INVISIBLE = re.compile(
    f"[{_ZERO_WIDTH}{_JOINERS}{_BIDI}{_SELECTORS}{_TAGS}{_CONTROLS}{_SURROGATES}]"
)  # one class is searched many times faster than the alternatives above
_NOT_ASCII = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")
# Characters that may join the one before although their combining class is 0 (UAX 15: NFC_Quick_Check=Maybe).
_JOINS_BEFORE = frozenset(
    map(
        chr,
        (
            *range(0x1161, 0x1176), *range(0x11A8, 0x11C3), 0x09BE, 0x09D7, 0x0B3E, 0x0B56, 0x0B57,
            0x0BBE, 0x0BD7, 0x0CC2, 0x0CD5, 0x0CD6, 0x0D3E, 0x0D57, 0x0DCF, 0x0DDF, 0x102E, 0x1B35,
            0x11127, 0x1133E, 0x11357, 0x113B8, 0x113BB, 0x113C2, 0x113C5, 0x113C7, 0x113C8, 0x113C9,
            0x114B0, 0x114BA, 0x114BD, 0x115AF, 0x1611E, 0x1611F, 0x16120, 0x11930, 0x16D67, 0x16D68,
        ),
    )
)  # fmt: skip


def visible(text: str, signals: set[str]) -> Step:
    """The text without what nobody sees; a Unicode tag becomes the ASCII character that it stands for.

    Adds to `signals`: `zero_width` (a joiner counts between Latin letters only), `joiners`, `bidi`,
    `selectors`, `selector_text` (bytes hidden in them), `tags`,
    `controls`, `surrogates`.
    """
    rewriter = None
    for match in _invisible_runs(text):
        rewriter = rewriter or Rewriter(text)
        kind = str(match.lastgroup)
        signals.add(kind)
        if kind == "tags":
            for offset, character in enumerate(match.group(), match.start()):
                rewriter.replace(offset, offset + 1, _tag(character))
        elif kind == "selectors" and (hidden := _selected(match.group())) is not None:
            signals.add("selector_text")
            is_apart = not text[match.start() - 1 : match.start()].isalnum()
            unit = (1, 1) if is_apart and len(hidden) == len(match.group()) else None
            rewriter.replace(match.start(), match.end(), hidden if is_apart else f" {hidden}", unit=unit)
        else:
            rewriter.replace(match.start(), match.end(), "")
    return (text, None) if rewriter is None else rewriter.finish()


def _invisible_runs(text: str) -> Iterator[re.Match[str]]:
    seen = _ANY_INVISIBLE.search(text)
    while seen is not None:
        run = _INVISIBLE.match(text, seen.start())
        if run is not None:
            yield run
        seen = _ANY_INVISIBLE.search(text, seen.end() if run is None else run.end())


def _tag(character: str) -> str:
    code = ord(character) - 0xE0000
    return chr(code) if 0x20 <= code < 0x7F else ""


def _selected(run: str) -> str | None:
    """The text whose UTF-8 bytes the variation selectors are: 0 to 15 and 16 to 255 in two blocks."""
    if len(run) < _FEWEST_SELECTORS:
        return None
    codes = map(ord, run)
    return readable(bytes(code - 0xFE00 if code < 0xFE10 else code - 0xE0100 + 16 for code in codes))


def composed(text: str, signals: set[str]) -> Step:
    """The text in NFKC; adds `compatibility` to `signals` when that changed it."""
    if text.isascii() or unicodedata.is_normalized("NFKC", text):
        return text, None
    signals.add("compatibility")
    rewriter = Rewriter(text)
    for run in _NOT_ASCII.finditer(text):
        if not unicodedata.is_normalized("NFKC", run.group()):
            _compose_run(text, run.span(), rewriter)
    return rewriter.finish()


def _compose_run(text: str, span: tuple[int, int], rewriter: Rewriter) -> None:
    """NFKC of each stretch between characters that start anew; joined, they are NFKC of the run."""
    start = span[0]
    for position in range(span[0] + 1, span[1] + 1):
        if position < span[1] and not _starts_anew(text[position]):
            continue
        piece = text[start:position]
        normal = unicodedata.normalize("NFKC", piece)
        if normal != piece:
            rewriter.replace(start, position, normal)
        start = position


@lru_cache(maxsize=65536)
def _starts_anew(character: str) -> bool:
    if character in _JOINS_BEFORE:
        return False
    first = unicodedata.normalize("NFKD", character)[0]
    return unicodedata.combining(first) == 0 and first not in _JOINS_BEFORE


class _Readings(dict[int, str]):
    """A table for `str.translate`, filled as characters are met; `irregular` ones are not read as one."""

    def __init__(self) -> None:
        super().__init__()
        self.irregular: set[str] = set()

    def __missing__(self, code: int) -> str:
        character = chr(code)
        value = reading(character)
        if len(value) != 1:
            self.irregular.add(character)
        self[code] = value
        return value


_READINGS = _Readings()


def skeleton(text: str, signals: set[str]) -> Step:
    """The text with look-alikes as ASCII letters and digits, and without modifying marks.

    Adds to `signals`: `confusables` when a look-alike stands beside a Latin letter, `marks` when more than
    two modifying marks follow one letter.
    """
    if text.isascii():
        return text, None
    result = text.translate(_READINGS)
    if result == text:
        return text, None
    if mixed_script().search(text) is not None:
        signals.add("confusables")
    if _READINGS.irregular.isdisjoint(text):
        return result, None
    if _STACKED.search(text) is not None:
        signals.add("marks")
    origins: array[int] = array("L")
    for offset, character in enumerate(text):
        length = len(_READINGS[ord(character)])
        if length == 1:
            origins.append(offset)
        elif length:
            origins.extend([offset] * length)
    return result, PerCharacter(origins)


_MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_STACKED = re.compile(f"[{_MARKS}]{{3}}")
_MARK = re.compile(f"[{_MARKS}]")
_MARKED = re.compile(f"[^\\W\\d_][{_MARKS}]")
_LETTER = re.compile(r"[^\W\d_]")
_FEWEST_MARKED, _MARKED_SHARE = 3, 0.25  # letters with a mark that is no part of them, in no language so many


def unmarked(text: str) -> Step:
    """A text in NFKC that is covered with marks, without them; any other text as it is.

    A mark that a language writes is nearly always one character with its letter; in some (Yoruba, Navajo) a
    tone stands alone on some letters. Where a quarter of all letters carries marks that stand alone, all
    marks are a disguise, those that became a part of their letters too.
    """
    if text.isascii() or len(_MARKED.findall(text)) < _FEWEST_MARKED:
        return text, None
    if len(_MARKED.findall(text)) < _MARKED_SHARE * len(_LETTER.findall(text)):
        return text, None
    parts = [_without_marks(character) for character in text]
    origins = array("L", (offset for offset, part in enumerate(parts) for _ in part))
    return "".join(parts), PerCharacter(origins)


@lru_cache(maxsize=4096)
def _without_marks(character: str) -> str:
    apart = unicodedata.normalize("NFD", character)
    bare = _MARK.sub("", apart)
    return character if bare == apart else unicodedata.normalize("NFC", bare)
