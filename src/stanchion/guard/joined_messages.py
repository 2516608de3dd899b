"""Texts that run over consecutive messages of one role, which providers and templates may join.

What is split over two messages is whole again where they are joined, and a provider joins them as it likes:
with nothing between them, so that two halves of a key meet, or with a line break, so that the words of a
sentence do. Both ways are read. Of a long message only what lies at a joint is read again, `REACH` characters
of it: no packaged pattern or window of a model reads further across a joint, but for what is longer itself.
See docs/adr/0229.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

REACH = 1_024  # characters of a long message at each of its ends
NEAR = 600  # characters from a joint within which a cut text is read as the whole one would be
_WAYS = (("with_next", ""), ("with_next_line", "\n"))
_WORD = 128  # characters within which a cut is moved to the next break between words


class Piece(NamedTuple):
    """A part of a field in a text over several fields; `at` is where it begins in that text.

    `begins` is where it begins in its field. A piece of a message that was cut has the offset of its `joint`
    in the text; -1 for others.
    """

    field: str
    length: int
    at: int
    begins: int = 0
    joint: int = -1


class Said(NamedTuple):
    """A text of a message, under its field's name."""

    field: str
    text: str


class Joined(NamedTuple):
    """A text over several messages."""

    field: str
    text: str
    pieces: tuple[Piece, ...]


def pieces_of(parts: Sequence[Said]) -> tuple[Piece, ...]:
    """The pieces of whole parts with nothing between them."""
    pieces, at = [], 0
    for part in parts:
        pieces.append(Piece(part.field, len(part.text), at))
        at += len(part.text)
    return tuple(pieces)


def joined_messages(messages: Sequence[Sequence[Said]]) -> Iterator[Joined]:
    """The texts over neighbours among some messages of one role, each way; every message has its parts."""
    spoken = [parts for message in messages if (parts := [part for part in message if part.text])]
    if len(spoken) < 2:
        return
    for suffix, between in _WAYS:
        yield from _joined(spoken, suffix, between)


def _joined(messages: Sequence[Sequence[Said]], suffix: str, between: str) -> Iterator[Joined]:
    text = _Text(between)
    for parts in messages:
        size = sum([len(part.text) for part in parts])
        if size <= 2 * REACH:
            text.add(parts, 0, size)
            continue
        whole = "".join([part.text for part in parts])
        if text.messages:
            text.add(parts, 0, _break_before(whole, REACH), is_cut=True)
            yield text.made(suffix)
        text = _Text(between)
        text.add(parts, _break_after(whole, size - REACH), size, is_cut=True)
    if text.messages > 1:
        yield text.made(suffix)


class _Text:
    """A text over several messages, as it grows."""

    def __init__(self, between: str) -> None:
        self._between = between
        self._words: list[str] = []
        self._pieces: list[Piece] = []
        self._length = 0
        self.messages = 0

    def add(self, parts: Sequence[Said], start: int, end: int, *, is_cut: bool = False) -> None:
        """The next message: what stands between two offsets of its parts together."""
        if self.messages:
            self._words.append(self._between)
            self._length += len(self._between)
        self.messages += 1
        joint = -1
        if is_cut:
            joint = self._length if self.messages > 1 else end - start
        at = 0
        for part in parts:
            first, last = max(start - at, 0), min(end - at, len(part.text))
            if first < last:
                self._pieces.append(Piece(part.field, last - first, self._length, first, joint))
                self._words.append(part.text[first:last])
                self._length += last - first
            at += len(part.text)

    def made(self, suffix: str) -> Joined:
        """The text."""
        return Joined(f"{self._pieces[0].field}.{suffix}", "".join(self._words), tuple(self._pieces))


def _break_before(text: str, offset: int) -> int:
    """The last break between words before an offset; the offset itself where there is none near."""
    for place in range(offset, offset - _WORD, -1):
        if text[place - 1].isspace():
            return place
    return offset


def _break_after(text: str, offset: int) -> int:
    for place in range(offset, offset + _WORD):
        if text[place].isspace():
            return place
    return offset


Place = tuple[str, int]


class Places:
    """The way from a text over several fields, which has at least one piece, back to its fields."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._starts = [one.at for one in pieces]

    def ends_of(self, start: int, end: int) -> tuple[Place, Place]:
        """Where a span begins and ends, each as a field and an offset in it."""
        first = self._at(start)
        if start >= first.at + first.length and start < self._starts[-1]:
            first = self._pieces[bisect_right(self._starts, start)]  # it begins between two messages
        last = self._at(end - 1) if end > start else first
        return (
            (first.field, first.begins + max(start - first.at, 0)),
            (last.field, last.begins + min(max(end - last.at, 0), last.length)),
        )

    def spans_of(self, start: int, end: int) -> dict[str, tuple[int, int]]:
        """What a span covers of each field, in the field's offsets."""
        spans = {}
        number = max(bisect_right(self._starts, start) - 1, 0)
        while number < len(self._pieces) and self._starts[number] < end:
            one = self._pieces[number]
            first, last = max(start - one.at, 0), min(end - one.at, one.length)
            if first < last:
                spans[one.field] = (one.begins + first, one.begins + last)
            number += 1
        return spans

    def is_of_cut(self, start: int, end: int) -> bool:
        """Whether a span lies in one piece of a cut message, and the whole field tells better what it is.

        It does of what begins or ends where the message was cut, and of what is not near the joint.
        """
        one = self._at(start)
        if one.joint < 0 or end > one.at + one.length:
            return False
        last = self._pieces[-1]
        is_front = one.joint <= one.at
        is_at_cut = end == last.at + last.length if is_front else start == 0
        return is_at_cut or min(abs(start - one.joint), abs(end - one.joint)) > NEAR

    def _at(self, offset: int) -> Piece:
        return self._pieces[max(bisect_right(self._starts, offset) - 1, 0)]
