"""One answer of an ASGI application on its way out: whole JSON bodies and streams, as a guard leaves them."""

from __future__ import annotations

import codecs
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Protocol

import msgspec

from stanchion.core.errors import StanchionError
from stanchion.core.interaction import End, FinishReason, StreamEvent, TextDelta
from stanchion.guard.exchange import PreparedInteraction
from stanchion.guard.streaming import StreamGuard
from stanchion.integrations.json_fields import put_texts, texts_at
from stanchion.models.sse import ServerSentEvent, SseParser, encode_sse
from stanchion.models.strict_json import decode_strict

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_WITHOUT_BODY = (204, 304)


class Endpoint(msgspec.Struct, frozen=True):
    """A path and what is guarded at it.

    `request` and `response` name the texts: dotted keys, `*` for every item of a list, such as
    `messages.*.content`. `stream` says what a streamed answer holds: `text` (any `text/*`), `sse` (each
    event's data is text), or a field of each event's JSON data, such as `choices.0.delta.content`.
    """

    path: str
    request: Sequence[str] = ()
    response: Sequence[str] = ()
    stream: str = ""
    methods: Sequence[str] = ("POST",)
    max_request_bytes: int = 1024 * 1024
    max_response_bytes: int = 16 * 1024 * 1024


class RefusedHere(Exception):
    """The answer is this one instead."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Checks(Protocol):
    """What an answer asks of the middleware."""

    async def finish(self, prepared: PreparedInteraction, texts: Sequence[str]) -> list[str] | str:
        """Texts as they may be shown, or the words in place of them all."""
        ...

    def stream(self, prepared: PreparedInteraction) -> StreamGuard:
        """A guard for a streamed answer."""
        ...

    def ended(self, guard: StreamGuard, prepared: PreparedInteraction) -> None:
        """A stream is over."""
        ...

    def broke(self, hook: str, error: BaseException) -> None:
        """A check broke."""
        ...


class GuardedAnswer:
    """Takes the application's messages with `send`; nothing leaves before it is decided."""

    def __init__(self, checks: Checks, endpoint: Endpoint, send: Send) -> None:
        self._checks, self._endpoint, self._send = checks, endpoint, send
        self.prepared: PreparedInteraction | None = None
        self._start: MutableMapping[str, Any] = {}
        self._body = bytearray()
        self._stream: TextFlow | EventFlow | None = None
        self._passes = self._has_begun = self._is_over = False

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """One message of the application.

        Raises:
            RefusedHere: for an answer that cannot be guarded.
        """
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            self._start = message
            self._begin()
        elif message["type"] != "http.response.body":
            raise RefusedHere(502, "not_checkable", "this kind of answer cannot be checked.")
        elif self._passes:
            await self._give(message.get("body", b""), is_last=not message.get("more_body", False))
        elif self._stream is not None:
            await self._piece(message)
        else:
            self._body += message.get("body", b"")
            if len(self._body) > self._endpoint.max_response_bytes:
                raise RefusedHere(502, "too_large", "the answer is too large to be checked.")
            if not message.get("more_body", False):
                await self._whole()

    async def finish(self) -> None:
        """The application is done; an answer without an end is broken off."""
        if not self._is_over and self._start:
            raise RefusedHere(502, "broken_off", "the answer broke off before it was over.")

    async def refuse(self, status: int, body: Any) -> None:
        """Another answer; in the middle of a stream its end."""
        if self._is_over:
            return
        data = msgspec.json.encode(body)
        if self._has_begun:
            is_events = isinstance(self._stream, EventFlow)
            await self._give(encode_sse(data, event="error") if is_events else b"", is_last=True)
            return
        self._start = {"type": "http.response.start", "status": status, "headers": []}
        await self._give(data, is_last=True, headers=[(b"content-type", b"application/json")], size=len(data))

    def _begin(self) -> None:
        status, headers = self._start["status"], self._start.get("headers", [])
        kind = header(headers, b"content-type").partition(b";")[0].strip().lower()
        endpoint, prepared = self._endpoint, self.prepared
        if status >= 400 or status in _WITHOUT_BODY or not (endpoint.response or endpoint.stream):
            self._passes = True
            return
        if prepared is None or header(headers, b"content-encoding") not in (b"", b"identity"):
            raise RefusedHere(502, "not_checkable", "a compressed answer cannot be checked.")
        if endpoint.response and (kind == b"application/json" or kind.endswith(b"+json")):
            return
        if kind == b"text/event-stream" and endpoint.stream not in ("", "text"):
            self._stream = EventFlow(self._checks.stream(prepared), endpoint.stream)
        elif kind.startswith(b"text/") and kind != b"text/event-stream" and endpoint.stream == "text":
            self._stream = TextFlow(self._checks.stream(prepared))
        else:
            raise RefusedHere(502, "not_checkable", "an answer of this kind is not expected here.")

    async def _whole(self) -> None:
        assert self.prepared is not None  # noqa: S101 - `_begin` looked
        body = bytes(self._body)
        try:
            value = decode_strict(body, what="the answer is something")
            found = texts_at(value, self._endpoint.response)
        except StanchionError as error:
            self._checks.broke("response", error)
            raise RefusedHere(502, "not_checkable", error.message) from None
        shown = await self._checks.finish(self.prepared, [text for _, text in found])
        if isinstance(shown, str):
            shown = [shown if number == 0 else "" for number in range(len(found))]
        if shown != [text for _, text in found]:
            put_texts(value, [place for place, _ in found], shown)
            body = msgspec.json.encode(value)
        await self._give(body, is_last=True, size=len(body))

    async def _piece(self, message: MutableMapping[str, Any]) -> None:
        assert self._stream is not None  # noqa: S101 - the caller looked
        assert self.prepared is not None  # noqa: S101 - `_begin` looked
        is_last = not message.get("more_body", False)
        try:
            out = await self._stream.feed(message.get("body", b""))
            if is_last:
                out += await self._stream.end()
        except Exception as error:
            self._checks.broke("stream", error)
            raise RefusedHere(502, "not_checked", "the answer could not be checked.") from None
        if is_last:
            self._checks.ended(self._stream.guard, self.prepared)
        if out or is_last:
            await self._give(out, is_last=is_last)

    async def _give(
        self,
        data: bytes,
        *,
        is_last: bool,
        headers: Sequence[tuple[bytes, bytes]] | None = None,
        size: int | None = None,
    ) -> None:
        if not self._has_begun:
            self._has_begun = True
            kept = list(self._start.get("headers", []) if headers is None else headers)
            if size is not None or self._stream is not None:
                kept = [pair for pair in kept if pair[0].lower() not in (b"content-length", b"etag")]
            if size is not None:
                kept.append((b"content-length", b"%d" % size))
            await self._send({**self._start, "headers": kept})
        self._is_over = is_last
        await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})


class TextFlow:
    """A stream of plain text in UTF-8."""

    def __init__(self, guard: StreamGuard) -> None:
        self.guard = guard
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    async def feed(self, data: bytes) -> bytes:
        """What may leave after more bytes."""
        text = self._decoder.decode(data)
        if self.guard.is_over or not text:
            return b""
        return _words(await self.guard.feed(TextDelta(text=text))).encode()

    async def end(self) -> bytes:
        """What may leave at the end."""
        self._decoder.decode(b"", final=True)
        if self.guard.is_over:
            return b""
        return _words(await self.guard.feed(End(finish_reason=FinishReason.STOP))).encode()


class EventFlow:
    """Server-sent events whose data, or a field of it, is text.

    Events without text wait for the text before them. `field` is `sse` for data that is text itself.
    """

    def __init__(self, guard: StreamGuard, field: str) -> None:
        self.guard = guard
        self._field = field
        self._parser = SseParser()
        self._waiting: list[bytes] = []
        self._last: ServerSentEvent | None = None

    async def feed(self, data: bytes) -> bytes:
        """What may leave after more bytes."""
        out = bytearray()
        for event in self._parser.feed(data):
            text = self._text(event)
            if text is None:
                kept = encode_sse(event.data, event=event.event)
                if self._last is None:
                    out += kept
                else:
                    self._waiting.append(kept)
            elif not self.guard.is_over:
                self._last = event
                out += self._said(_words(await self.guard.feed(TextDelta(text=text))))
        return bytes(out)

    async def end(self) -> bytes:
        """What may leave at the end."""
        out = b""
        if not self.guard.is_over:
            out = self._said(_words(await self.guard.feed(End(finish_reason=FinishReason.STOP))))
        return out + b"".join(self._waiting)

    def _text(self, event: ServerSentEvent) -> str | None:
        if event.data == "[DONE]":
            return None
        if self._field == "sse":
            return event.data
        found = texts_at(decode_strict(event.data.encode(), what="the stream holds an event"), [self._field])
        return "".join(text for _, text in found) if found else None

    def _said(self, text: str) -> bytes:
        """An event like the last one, with this text."""
        if not text or self._last is None:
            return b""
        if self._field == "sse":
            return encode_sse(text, event=self._last.event)
        value = decode_strict(self._last.data.encode(), what="the stream holds an event")
        places = [place for place, _ in texts_at(value, [self._field])]
        put_texts(value, places, [text, *("" for _ in places[1:])])
        return encode_sse(msgspec.json.encode(value), event=self._last.event)


def _words(events: Sequence[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body of a request.

    Raises:
        RefusedHere: when it is larger than the limit, or its sender went away.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise RefusedHere(400, "broken_off", "the request broke off before it was over.")
        body += message.get("body", b"")
        if len(body) > limit:
            raise RefusedHere(413, "too_large", f"the body is larger than {limit} bytes.")
        if not message.get("more_body", False):
            return bytes(body)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives this body first."""
    given = False

    async def first() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return first


def with_length(scope: Scope, size: int) -> Scope:
    """The scope with the length of the body as it is now."""
    headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"transfer-encoding")]
    return {**scope, "headers": [*headers, (b"content-length", b"%d" % size)]}


def header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The first header of a name; empty when there is none."""
    return next((value for key, value in headers if key.lower() == name), b"")


def error_body(code: str, message: str) -> Any:
    """What an answer in place of another says."""
    return {"error": {"code": code, "message": message}}
