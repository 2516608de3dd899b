"""Parts of a text that stand on their own: hidden markup, links, quotes, code, leaves of data, table cells.

A segment is a slice of the text, or a slice without its quote marks or escapes. The expressions are searched
from left to right with bounded look-ahead, so a text full of openings without ends costs no more than others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from stanchion.detectors.transforms.decoders import escape_edits
from stanchion.detectors.transforms.offsets import OffsetMap, Rewriter, Shifted


class Segment(NamedTuple):
    """A part, its kind (the second half of the view's name) and the way back."""

    kind: str
    text: str
    offsets: OffsetMap


_LONGEST = 20_000
_HIDDEN = re.compile(
    r"<([a-zA-Z][a-zA-Z0-9]{0,20})\b[^<>]{0,400}?"
    r"(?:display\s{0,4}:\s{0,4}none|visibility\s{0,4}:\s{0,4}hidden|font-size\s{0,4}:\s{0,4}0|opacity\s{0,4}:\s{0,4}0"
    r"|color\s{0,4}:\s{0,4}(?:white|#fff(?:fff)?|transparent)|\shidden\b|aria-hidden=[\"']?true)"
    r"[^<>]{0,400}>([^<]{1,8000})",
    re.IGNORECASE,
)
_ATTRIBUTE = re.compile(
    r"\s(?:alt|title|aria-label|content|placeholder|data-[a-z-]{1,20})=([\"'])([^\"'<>]{3,2000})\1"
)
_LINK = re.compile(
    r"!?\[([^\[\]\n]{0,2000})\]\(\s{0,4}<?([^()\s<>]{1,4000})>?(?:\s{1,4}[\"'(]([^\"'()\n]{1,1000})[\"')])?"
)
_REFERENCE = re.compile(r"^ {0,3}\[([^\[\]\n]{1,200})\]: {0,4}(\S{1,4000})", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(```|~~~)[^\n`]{0,200}\n(.{1,20000}?)(?:^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)
_QUOTE = re.compile(r"(?:^[ \t]{0,3}(?:>[ \t]?)+[^\n]*(?:\n|\Z))+", re.MULTILINE)
_QUOTE_MARKS = re.compile(r"^[ \t]{0,3}(?:>[ \t]?)+", re.MULTILINE)
_JSON_STRING = re.compile(r"\"((?:[^\"\\]|\\.){0,20000}+)(\"(\s{0,8}:)?)?", re.DOTALL)
_YAML_VALUE = re.compile(r"^[ \t]{0,40}(?:- )?[A-Za-z_][\w .-]{0,60}:[ \t]+(\S[^\n]{2,})$", re.MULTILINE)
_TABLE_ROW = re.compile(r"^[ \t]{0,3}\|([^\n]*)\|[ \t]*$", re.MULTILINE)
_CELL = re.compile(r"[^|\s][^|\n]*")


def _groups(expression: re.Pattern[str], kinds: dict[int, str]) -> Callable[[str], Iterator[Segment]]:
    def find(text: str) -> Iterator[Segment]:
        for match in expression.finditer(text):
            for group, kind in kinds.items():
                if match[group]:
                    yield Segment(kind, match[group], Shifted(match.start(group)))

    return find


def _comments(text: str) -> Iterator[Segment]:
    """HTML comments; as in a browser, one that is never closed reaches to the end."""
    opened = text.find("<!--")
    while opened >= 0:
        start = opened + 4
        closed = text.find("-->", start)
        end = len(text) if closed < 0 else closed
        if end > start:
            yield Segment("html_comment", text[start : min(end, start + _LONGEST)], Shifted(start))
        opened = -1 if closed < 0 else text.find("<!--", closed)


def _quotes(text: str) -> Iterator[Segment]:
    for match in _QUOTE.finditer(text):
        rewriter = Rewriter(match.group())
        for mark in _QUOTE_MARKS.finditer(match.group()):
            rewriter.replace(mark.start(), mark.end(), "")
        unquoted, pieces = rewriter.finish()
        if unquoted.strip():
            yield Segment("quote", unquoted, _Moved(pieces, match.start()))


def _json_leaves(text: str) -> Iterator[Segment]:
    for match in _JSON_STRING.finditer(text):
        value, base = match[1], match.start(1)
        if not value or match[3] or not match[2]:
            continue
        if "\\" not in value:
            yield Segment("json", value, Shifted(base))
            continue
        rewriter = Rewriter(value)
        for edit in escape_edits(value, len(value)):
            rewriter.replace(edit.start, edit.end, edit.text, unit=edit.unit)
        decoded, pieces = rewriter.finish()
        yield Segment("json", decoded, _Moved(pieces, base))


def _cells(text: str) -> Iterator[Segment]:
    for row in _TABLE_ROW.finditer(text):
        for cell in _CELL.finditer(row[1]):
            if any(character.isalnum() for character in cell.group()):
                yield Segment("cell", cell.group().rstrip(), Shifted(row.start(1) + cell.start()))


class _Moved:
    """A map of a slice, moved to where the slice begins."""

    __slots__ = ("_base", "_inner")

    def __init__(self, inner: OffsetMap, base: int) -> None:
        self._inner = inner
        self._base = base

    def to_parent(self, start: int, end: int) -> tuple[int, int]:
        first, last = self._inner.to_parent(start, end)
        return first + self._base, last + self._base


_HIDDEN_TEXT = _groups(_HIDDEN, {2: "html_hidden"})
_ATTRIBUTES = _groups(_ATTRIBUTE, {2: "html_attribute"})
_LINKS = _groups(_LINK, {1: "link_text", 2: "link", 3: "link_title"})
_REFERENCES = _groups(_REFERENCE, {1: "link_text", 2: "link"})
_FENCES = _groups(_FENCE, {2: "code"})
_YAML_LEAVES = _groups(_YAML_VALUE, {1: "yaml"})


def find_segments(text: str, limit: int) -> tuple[list[Segment], bool]:
    """At most `limit` segments, and whether that is all of them."""
    found = list(islice(_all(text), limit + 1))
    return found[:limit], len(found) <= limit


def _all(text: str) -> Iterator[Segment]:
    if "<" in text:
        if "<!--" in text:
            yield from _comments(text)
        yield from _HIDDEN_TEXT(text)
        yield from _ATTRIBUTES(text)
    if "](" in text:
        yield from _LINKS(text)
    if "]: " in text:
        yield from _REFERENCES(text)
    if "```" in text or "~~~" in text:
        yield from _FENCES(text)
    if ">" in text:
        yield from _quotes(text)
    if text.lstrip()[:1] in ("{", "["):
        yield from _json_leaves(text)
    elif ": " in text and "\n" in text:
        yield from _YAML_LEAVES(text)
    if "|" in text:
        yield from _cells(text)
