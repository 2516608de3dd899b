"""The bytes of a streamed answer -> events, quickly: server-sent events, JSON and the API's events at once.

Most frames of an answer differ in one string only. When a frame gave one piece of text, the bytes around that
string are remembered; a frame with the same bytes around one well-formed JSON string means the same thing
with other words, and is not parsed again. Every other frame goes the long way, which checks everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from stanchion.core.errors import UnavailableError
from stanchion.core.interaction import End, StreamEvent, TextDelta
from stanchion.models.sse import DEFAULT_LIMITS, SseLimits, SseParser
from stanchion.models.strict_json import decode_strict
from stanchion.models.wire import error_object

_BOM = b"\xef\xbb\xbf"
_EVENT = "the stream holds an event"
_LOOK = "Check the base URL and `api`, and look at what the endpoint sends."
_text = msgspec.json.Decoder(str).decode


class EventDecoder(Protocol):
    """The events of one API -> ours; one for each answer."""

    def feed(self, data: Any) -> list[StreamEvent]:
        """The events of one value of the stream."""
        ...

    def finish(self, *, is_marked: bool = True) -> list[StreamEvent]:
        """What follows from the end mark, or from the end of the stream without one."""
        ...


class AnswerReader(Protocol):
    """One streamed answer of an upstream: bytes in any pieces -> events."""

    @property
    def is_over(self) -> bool:
        """Whether `End` was seen; nothing after it is read."""
        ...

    def feed(self, data: bytes) -> list[StreamEvent]:
        """The events that these bytes complete.

        Raises:
            UnavailableError: for anything that is not the API's stream, an error event included.
        """
        ...

    def end(self) -> list[StreamEvent]:
        """The last events, when the connection has ended.

        Raises:
            UnavailableError: when the answer was not over.
        """
        ...


class SseFrames:
    """Server-sent events as raw frames, cut at blank lines; streams with carriage returns are not for it."""

    def __init__(self, limits: SseLimits) -> None:
        self._limits = limits
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that these bytes complete, without the blank line at their end."""
        pieces = self._pieces
        if pieces:
            is_cut = b"\n\n" in data or (data[:1] == b"\n" and pieces[-1][-1:] == b"\n")
            pieces.append(data)
            self._size += len(data)
            if not is_cut:
                self._check(self._size)
                return []
            data = b"".join(pieces)
            pieces.clear()
        frames = data.split(b"\n\n")
        rest = frames.pop()
        self._size = len(rest)
        self._check(self._size)
        if rest:
            pieces.append(rest)
        return frames

    def rest(self) -> bytes:
        """What is not a whole frame yet; it is taken out."""
        rest = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return rest

    def _check(self, size: int) -> None:
        if size > self._limits.max_event_bytes:
            limit = self._limits.max_event_bytes
            raise UnavailableError(f"the event stream has an event longer than {limit} bytes.", hint=_LOOK)


class SseReader:
    """Reads an answer that comes as server-sent events.

    Args:
        decoder: the API's events.
        text_key: the key of the string that changes from frame to frame, such as `content`; empty: none.
        end_mark: data that ends the stream and is no JSON.
        limits: what a line and an event may hold.
    """

    def __init__(
        self,
        decoder: EventDecoder,
        *,
        text_key: str = "",
        end_mark: str = "[DONE]",
        limits: SseLimits = DEFAULT_LIMITS,
    ) -> None:
        self._decoder = decoder
        self._limits = limits
        self._end_mark = end_mark
        self._frames = SseFrames(limits)
        self._careful: SseParser | None = None
        self._text_mark = f'"{text_key}":"'.encode() if text_key else b""
        self._head = self._tail = b""
        self._around = 0
        self._index = 0
        self._count = 0
        self._is_start = True
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether `End` was seen."""
        return self._is_over

    def feed(self, data: bytes) -> list[StreamEvent]:
        """The events that these bytes complete; see `AnswerReader`."""
        if not data or self.is_over:
            return []
        if self._is_start or b"\r" in data or self._careful is not None:
            return self._fed_carefully(data)
        events: list[StreamEvent] = []
        for frame in self._frames.feed(data):
            if self._head and frame.startswith(self._head) and frame.endswith(self._tail):
                text = self._same(frame)
                if text is not None:
                    if text:
                        events.append(TextDelta(text=text, index=self._index))
                    continue
            events += self._fed_frame(frame)
            if self._is_over:
                break
        self._count += len(events)
        return events

    def end(self) -> list[StreamEvent]:
        """The last events, when the connection has ended; see `AnswerReader`."""
        if self.is_over:
            return []
        events = self._decoder.finish(is_marked=False)
        if not self._ended(events):
            is_clean = (
                self._careful.is_clean if self._careful is not None else not self._frames.rest().strip()
            )
            if not self._count and not is_clean:
                raise UnavailableError("the answer is no event stream.", hint=_LOOK, is_retryable=False)
            raise UnavailableError(
                f"the stream broke off after {self._count} events, before the answer was over.",
                hint="Ask again; if it happens often, look at the endpoint's log and at proxies in between.",
            )
        return events

    # --- frames ---

    def _same(self, frame: bytes) -> str | None:
        """The text of a frame that differs from the remembered one in its text only; None otherwise."""
        if len(frame) < self._around:
            return None
        try:
            return _text(frame[len(self._head) - 1 : len(frame) - len(self._tail) + 1])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _fed_frame(self, frame: bytes) -> list[StreamEvent]:
        """One frame the long way; its lines end with a newline only."""
        if len(frame) > self._limits.max_line_bytes:
            self._check_lines(frame)
        name = b""
        data: list[bytes] = []
        for line in frame.split(b"\n"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value
        if not data:
            return []
        said = b"\n".join(data)
        events = self._fed_event(name, said)
        if len(events) == 1 and len(data) == 1 and type(events[0]) is TextDelta:
            self._remember(frame, events[0])
        return events

    def _fed_event(self, name: bytes, data: bytes) -> list[StreamEvent]:
        if data.strip() == self._end_mark.encode():
            events = self._decoder.finish()
        else:
            value = decode_strict(data, what=_EVENT)
            events = self._decoder.feed(value)
            if name == b"error":
                raise error_object("the stream ended with an error event", {"error": value})
        return events[: self._ended(events) or None]

    def _ended(self, events: list[StreamEvent]) -> int:
        """How many events there are up to `End`; 0 without one."""
        for number, event in enumerate(events, start=1):
            if isinstance(event, End):
                self._is_over = True
                return number
        return 0

    def _remember(self, frame: bytes, event: TextDelta) -> None:
        """Keep what is around the text, when it is certain where the text stands.

        The key is written once and plainly, no other string has an escape, and what stands behind the key is
        the text that the long way found.
        """
        start = frame.find(self._text_mark) + len(self._text_mark) if self._text_mark else 0
        if start < len(self._text_mark) or not self._text_mark or frame.count(self._text_mark) != 1:
            return
        end = _string_end(frame, start)
        head, tail = frame[:start], frame[end:]
        if b"\\" in head or b"\\" in tail or not tail:
            return
        if _text(frame[start - 1 : end + 1]) == event.text:
            self._head, self._tail, self._index = head, tail, event.index
            self._around = len(head) + len(tail)

    def _check_lines(self, frame: bytes) -> None:
        limit = self._limits.max_line_bytes
        if max(map(len, frame.split(b"\n"))) > limit:
            raise UnavailableError(f"the event stream has a line longer than {limit} bytes.", hint=_LOOK)

    # --- streams with carriage returns, and the first bytes ---

    def _fed_carefully(self, data: bytes) -> list[StreamEvent]:
        """The whole standard; kept for the rest of the stream once a carriage return was seen."""
        if self._is_start and self._careful is None and b"\r" not in data:
            held = self._frames.rest() + data
            if len(held) < len(_BOM) and _BOM.startswith(held):
                self._frames.feed(held)
                return []
            self._is_start = False
            return self.feed(held.removeprefix(_BOM))
        if self._careful is None:
            self._careful = SseParser(self._limits)
            data = self._frames.rest() + data
            if not self._is_start and data.startswith(_BOM):
                data = b":\n" + data  # only the very first bytes may be a mark of the byte order
        events: list[StreamEvent] = []
        for event in self._careful.feed(data):
            events += self._fed_event(event.event.encode(), event.data.encode())
            if self._is_over:
                break
        self._count += len(events)
        return events


def _string_end(data: bytes, start: int) -> int:
    """Where a JSON string ends: the position of its closing quote; `start` is behind the opening one."""
    at = start
    for at in _quotes(data, start):
        slashes = at
        while data[slashes - 1 : slashes] == b"\\":
            slashes -= 1
        if (at - slashes) % 2 == 0:
            return at
    return at


def _quotes(data: bytes, start: int) -> Iterator[int]:
    at = data.find(b'"', start)
    while at >= 0:
        yield at
        at = data.find(b'"', at + 1)
