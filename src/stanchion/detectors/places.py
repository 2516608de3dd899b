"""Where a pattern matches: RE2 over UTF-8 bytes, for texts that are known to hold a match."""

from __future__ import annotations

from typing import Any

from stanchion.detectors.expressions import Expression, compile_re2, translate
from stanchion.detectors.patterns import Pattern

MAX_MATCHES = 4096  # of one pattern in one view
MAX_ATTEMPTS = 16_384  # of one pattern in one view, refused matches included
_READ_AGAIN = 16  # times that the bytes of a view may be in refused matches of one pattern
_FREE = 65_536  # bytes on top


class PlaceFinder:
    """Finds the byte spans of one pattern; compiles at the first use."""

    __slots__ = ("_expression", "_group", "_pattern", "_regex", "_validate")

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern
        self._group = pattern.group
        self._regex: Any = None
        self._expression: Expression | None = None
        self._validate: Any = None

    def find(self, data: bytes) -> tuple[list[tuple[int, int]], bool]:
        """The spans in bytes, in order, and whether that is all of them (a limit may cut them short)."""
        if self._regex is None:
            self._prepare()
        spans: list[tuple[int, int]] = []
        position = 0
        left = _FREE + _READ_AGAIN * len(data)
        for _ in range(MAX_ATTEMPTS):
            match = self._regex.search(data, position)
            if match is None:
                return spans, True
            if len(spans) == MAX_MATCHES:
                return spans, False
            start, end = match.span()
            if self._accepts(data, start, end):
                first, last = match.span(self._group)
                span = (start, end) if first < 0 else (first, last)
                if self._validate is None or self._validate(
                    data[span[0] : span[1]].decode("utf-8", "replace")
                ):
                    spans.append(span)
                    position = max(end, start + 1)
                    continue
            position = _next_character(data, start)
            left -= end - start
            if left < 0:
                break
        return spans, self._regex.search(data, position) is None

    def _accepts(self, data: bytes, start: int, end: int) -> bool:
        expression = self._expression
        if expression is None or not (expression.starts_word or expression.ends_word):
            return True
        return (not expression.starts_word or _is_boundary(data, start)) and (
            not expression.ends_word or _is_boundary(data, end)
        )

    def _prepare(self) -> None:
        self._expression = translate(self._pattern.pattern, self._pattern.flags)
        if self._pattern.validator:
            from stanchion.detectors.validators import VALIDATORS

            self._validate = VALIDATORS[self._pattern.validator]
        self._regex = compile_re2(self._expression, self._pattern.flags)


def _next_character(data: bytes, position: int) -> int:
    position += 1
    while position < len(data) and data[position] & 0xC0 == 0x80:
        position += 1
    return position


def _is_boundary(data: bytes, position: int) -> bool:
    before = data[max(0, position - 4) : position].decode("utf-8", "ignore")[-1:]
    after = data[position : position + 4].decode("utf-8", "ignore")[:1]
    return _is_word(before) != _is_word(after)


def _is_word(character: str) -> bool:
    return character == "_" or character.isalnum()
