"""Answers that are JSON, and what is rewritten in them: so that what was JSON before is JSON after.

A text is JSON up to the first character that cannot stand where it does; behind that it is prose. So a
streamed answer means the same however it is cut, and nobody has to say what was asked for.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from stanchion.guard.redaction import Mark

_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\]*')
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_BEGUN_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_WORD = re.compile(r"[-+.0-9A-Za-z]*")
_LITERAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")
_LONGEST_LITERAL = 400
_OPEN = {"{": "key or }", "[": "value or ]"}
_VALUE = ("value", "value or ]")
_KEY = ("key", "key or }")
_CLOSE = {"}": ("{", "key or }"), "]": ("[", "value or ]")}
_DEEPEST = 200


class JsonAnswer:
    """One text while it comes. Offsets are characters from its beginning."""

    def __init__(self, text: str = "", *, is_over: bool = False) -> None:
        self._text = ""
        self._at = 0  # what stands before is read
        self._fails_at: int | None = None
        self._is_over = False
        self._in_string = False
        self._stack: list[str] = []
        self._wants = "value"
        self._literals: list[tuple[int, int]] = []
        self._strings: list[tuple[int, int]] = []
        self._escapes: list[tuple[int, int]] = []
        self.add(text)
        if is_over:
            self.close()

    @property
    def is_prose(self) -> bool:
        """Whether nothing of it is JSON."""
        return self._fails_at is not None and not self._strings and not self._literals

    def add(self, piece: str) -> None:
        """More of the text."""
        self._text += piece
        self._read()

    def close(self) -> None:
        """The text is over."""
        self._is_over = True
        self._read()

    def whole_to(self, end: int) -> int:
        """The last place up to `end` that is within no number, no literal name and no escape."""
        if self._fails_at is None:
            end = min(end, self._at)
        for spans in (self._literals, self._escapes):
            span = _over(spans, end)
            end = end if span is None else span[0]
        return end

    def fitted(self, marks: Sequence[Mark]) -> list[Mark]:
        """The marks, cut to strings and to whole literals; braces, commas and quotes between them stay."""
        return [piece for mark in marks for piece in self._pieces(mark)]

    def _pieces(self, mark: Mark) -> list[Mark]:
        edge = self._at if self._fails_at is None else self._fails_at
        found = [
            msgspec.structs.replace(mark, start=start, end=end, within="literal")
            for start, end in _touched(self._literals, mark)
        ]
        for start, end in _touched(self._strings, mark):
            first, last = max(start, mark.start), min(end, mark.end)
            begun, ended = _over(self._escapes, first), _over(self._escapes, last)
            first, last = (first if begun is None else begun[0]), (last if ended is None else ended[1])
            found.append(msgspec.structs.replace(mark, start=first, end=last, within="string"))
        if mark.end > edge or not found:
            found.append(msgspec.structs.replace(mark, start=max(mark.start, edge) if found else mark.start))
        return found

    # --- reading ---

    def _read(self) -> None:
        while self._fails_at is None and (self._string() if self._in_string else self._between()):
            pass
        if self._in_string:
            self._strings[-1] = (self._strings[-1][0], self._at)

    def _fail(self) -> bool:
        self._fails_at = self._at
        return False

    def _string(self) -> bool:
        """One step within a string; False when more is needed, or all is read."""
        text = self._text
        self._at = _PLAIN.match(text, self._at).end()  # type: ignore[union-attr]
        if self._at == len(text):
            return False
        if text[self._at] == '"':
            self._strings[-1] = (self._strings[-1][0], self._at)
            self._in_string = False
            self._at += 1
            return True
        escape = _ESCAPE.match(text, self._at)
        if escape is not None:
            self._escapes.append(escape.span())
            self._at = escape.end()
            return True
        if not self._is_over and _BEGUN_ESCAPE.match(text, self._at):
            return False
        return self._fail()

    def _between(self) -> bool:
        """One step outside of strings; False when more is needed, or all is read."""
        text = self._text
        self._at = _SPACE.match(text, self._at).end()  # type: ignore[union-attr]
        if self._at == len(text):
            return False
        character = text[self._at]
        if character == '"':
            return self._begin_string()
        if character in _OPEN and self._wants in _VALUE and len(self._stack) < _DEEPEST:
            self._after_value()
            self._stack.append(character)
            self._wants = _OPEN[character]
        elif character in _CLOSE and self._closes(character):
            self._stack.pop()
            self._after_value()
        elif character == ":" == self._wants:
            self._wants = "value"
        elif character == "," == self._wants and self._stack:
            self._wants = "key" if self._stack[-1] == "{" else "value"
        else:
            return self._literal()
        self._at += 1
        return True

    def _closes(self, character: str) -> bool:
        opener, empty = _CLOSE[character]
        return bool(self._stack) and self._stack[-1] == opener and self._wants in (",", empty)

    def _after_value(self) -> None:
        self._wants = "," if self._stack else "nothing"

    def _begin_string(self) -> bool:
        if not self._stack or self._wants not in (*_VALUE, *_KEY):
            return self._fail()
        self._wants = ":" if self._wants in _KEY else ","
        self._at += 1
        self._strings.append((self._at, self._at))
        self._in_string = True
        return True

    def _literal(self) -> bool:
        end = _WORD.match(self._text, self._at).end()  # type: ignore[union-attr]
        length = end - self._at
        if not self._stack or self._wants not in _VALUE or not 0 < length <= _LONGEST_LITERAL:
            return self._fail()
        if end == len(self._text) and not self._is_over:
            return False
        if not _LITERAL.fullmatch(self._text, self._at, end):
            return self._fail()
        self._literals.append((self._at, end))
        self._at = end
        self._after_value()
        return True


def fitted(text: str, marks: Sequence[Mark]) -> list[Mark]:
    """The marks of a whole answer, fitted to it where it is JSON."""
    if not text.lstrip(" \t\r\n").startswith(("{", "[")):
        return list(marks)
    return JsonAnswer(text, is_over=True).fitted(marks)


def _over(spans: Sequence[tuple[int, int]], place: int) -> tuple[int, int] | None:
    """The span that a place stands within, not at its edges."""
    number = bisect_left(spans, (place, 0)) - 1
    return spans[number] if number >= 0 and spans[number][0] < place < spans[number][1] else None


def _touched(spans: Sequence[tuple[int, int]], mark: Mark) -> list[tuple[int, int]]:
    """The spans that share a character with a mark."""
    number = max(0, bisect_left(spans, (mark.start, 0)) - 1)
    found = []
    while number < len(spans) and spans[number][0] < mark.end:
        if spans[number][1] > mark.start:
            found.append(spans[number])
        number += 1
    return found
