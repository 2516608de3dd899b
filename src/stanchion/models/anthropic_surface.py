"""Anthropic messages from the server's side: requests in, messages and events out.

An error has the API's own types by status (Anthropic API reference, errors). The API has no machine word
beside the type, so the gateway's code is not in the body; it belongs into a header.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from stanchion.core.interaction import (
    ArgumentDelta,
    End,
    Part,
    Reply,
    StreamEvent,
    TextDelta,
    ToolCall,
    UnknownEvent,
    UsageEvent,
)
from stanchion.models import anthropic
from stanchion.models.anthropic_answers import EventEncoder, encode_response
from stanchion.models.events import arguments_text
from stanchion.models.foreign import without_foreign
from stanchion.models.surface import StreamEncoder, asked_model, encode_json, named_frame, with_wait
from stanchion.models.wire import JsonObject, Request

NAME = "anthropic.messages"
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_TEXT_TAIL = b"}}\n\n"
_NOT_AN_OBJECT = "INVALID_JSON"
BLOCKS = frozenset(
    {"server_tool_use", "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result"}
    | {"bash_code_execution_tool_result", "text_editor_code_execution_tool_result"}
    | {"tool_search_tool_result", "container_upload", "mcp_tool_use", "mcp_tool_result"}
)


def encode_error(*, status: int, code: str, message: str, retry_after_s: float | None = None) -> JsonObject:
    """The body of an answer that is an error; `code` has no place in it."""
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": with_wait(message, retry_after_s)}}


class MessageStream:
    """Events of one answer. Words that follow words of the same block take a short way.

    The API says one block after another, so the pieces of a second tool call wait until the first is over:
    other APIs may send the pieces of several calls in turn.
    """

    def __init__(self, *, asked: Request, response_id: str) -> None:
        self.lost: dict[str, int] = {}
        self._events = EventEncoder(response_id=response_id, model=asked.interaction.model)
        self._stops = asked.interaction.sampling.stop
        self._text_index = -1
        self._text_head = b""
        self._call = -1
        self._waiting: dict[int, list[StreamEvent]] = {}

    def feed(self, event: StreamEvent) -> list[bytes]:
        """The events of one event."""
        if type(event) is TextDelta and event.index == self._text_index:
            return [self._text_head + encode_json(event.text) + _TEXT_TAIL]
        if isinstance(event, UnknownEvent) and not event.kind.startswith("anthropic:"):
            self.lost[event.kind] = self.lost.get(event.kind, 0) + 1
            return []
        if type(event) is End and event.stop_sequence is not UNSET and event.stop_sequence not in self._stops:
            event = msgspec.structs.replace(event, stop_sequence=UNSET)
        pairs = [pair for one in self._in_turn(event) for pair in self._events.feed(one)]
        if pairs:
            self._text_index = -1
        if type(event) is TextDelta:
            self._text_index = event.index
            number = pairs[-1][1]["index"]
            self._text_head = (
                b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
                b'"delta":{"type":"text_delta","text":' % number
            )
        return [named_frame(name, data) for name, data in pairs]

    def _in_turn(self, event: StreamEvent) -> list[StreamEvent]:
        """The event, behind the calls that waited; nothing for a piece of a call that has to wait."""
        if isinstance(event, UsageEvent):
            return [event]
        if isinstance(event, ArgumentDelta):
            if self._call in (-1, event.index):
                self._call = event.index
                return [event]
            self._waiting.setdefault(event.index, []).append(event)
            return []
        waited = [piece for pieces in self._waiting.values() for piece in pieces]
        self._waiting.clear()
        self._call = -1
        return [*waited, *_spelt(event)]

    def finish(self) -> list[bytes]:
        """Nothing: `message_stop` was the end."""
        return []

    def error(
        self, *, status: int, code: str, message: str, retry_after_s: float | None = None
    ) -> list[bytes]:
        """An `error` event; the `anthropic` client raises `APIStatusError`."""
        body = encode_error(status=status, code=code, message=message, retry_after_s=retry_after_s)
        return [named_frame("error", body)]


class MessagesSurface:
    """The codec of messages."""

    name = NAME
    can_stream = True

    def decode_request(self, body: Any) -> Request:
        """A messages request; see `anthropic.decode_request`."""
        return anthropic.decode_request(body)

    def encode_reply(self, reply: Reply, *, asked: Request, response_id: str, created: int) -> JsonObject:
        """A message; calls whose arguments are no JSON object are told as an empty one with the raw text."""
        fitted = without_foreign(_with_objects(reply), "anthropic")
        if fitted.stop_sequence is not UNSET and fitted.stop_sequence not in asked.interaction.sampling.stop:
            fitted = msgspec.structs.replace(fitted, stop_sequence=UNSET)
        body = encode_response(fitted, response_id=response_id)
        body["model"] = asked_model(reply, asked)
        return body

    def stream_encoder(self, *, asked: Request, response_id: str, created: int) -> StreamEncoder:
        """A writer of events."""
        return MessageStream(asked=asked, response_id=response_id)

    def encode_error(
        self, *, status: int, code: str, message: str, retry_after_s: float | None = None
    ) -> JsonObject:
        """The error object of the API."""
        return encode_error(status=status, code=code, message=message, retry_after_s=retry_after_s)


def _spelt(event: StreamEvent) -> list[StreamEvent]:
    """A content block that came whole, as the start and the stop of a block; anything else as it is."""
    if not isinstance(event, UnknownEvent):
        return [event]
    kind = event.kind.partition(":")[2]
    if kind not in BLOCKS:
        return [event]
    start = {"type": "content_block_start", "index": -1, "content_block": event.payload}
    stop = {"type": "content_block_stop", "index": -1}
    return [UnknownEvent(kind=f"anthropic:{one['type']}", payload=one) for one in (start, stop)]


def _with_objects(reply: Reply) -> Reply:
    """The reply with an object in every tool call: the API has no place for arguments that are none."""
    parts = reply.message.parts
    if all(not isinstance(part, ToolCall) or part.arguments is not None for part in parts):
        return reply
    message = msgspec.structs.replace(reply.message, parts=tuple(_with_object(part) for part in parts))
    return msgspec.structs.replace(reply, message=message)


def _with_object(part: Part) -> Part:
    if not isinstance(part, ToolCall) or part.arguments is not None:
        return part
    return msgspec.structs.replace(part, arguments={_NOT_AN_OBJECT: arguments_text(part)}, raw_arguments=None)
