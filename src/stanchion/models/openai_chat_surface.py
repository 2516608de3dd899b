"""OpenAI chat completions from the server's side: requests in, completions and chunks out."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from stanchion.core.interaction import (
    ArgumentDelta,
    End,
    Reply,
    StreamEvent,
    TextDelta,
    UnknownEvent,
    UsageEvent,
)
from stanchion.models import openai, openai_errors
from stanchion.models.foreign import without_foreign
from stanchion.models.openai_answers import ChunkEncoder, encode_response
from stanchion.models.surface import StreamEncoder, asked_model, custom_tools, encode_json, frame
from stanchion.models.wire import JsonObject, Request, as_object, without_logprobs

NAME = "openai.chat"
_DONE = b"data: [DONE]\n\n"
_TAIL = b'},"logprobs":null,"finish_reason":null}]}\n\n'


class ChatStream:
    """Chunks of one answer. Words take a short way: only the text itself is encoded for each chunk."""

    def __init__(self, *, asked: Request, response_id: str, created: int) -> None:
        self.lost: dict[str, int] = {}
        model = asked.interaction.model
        self._chunks = ChunkEncoder(
            response_id=response_id, created=created, model=model, include_usage=asked.include_usage
        )
        self._text_head = self._head_of_text()
        self._custom = custom_tools(asked)
        self._custom_calls: set[int] = set()
        self._has_begun = False
        self._has_ended = False

    def feed(self, event: StreamEvent) -> list[bytes]:
        """The chunks of one event."""
        if type(event) is TextDelta and self._has_begun:
            return [self._text_head + encode_json(event.text) + _TAIL]
        if isinstance(event, UnknownEvent) and not _is_said(event.kind):
            self.lost[event.kind] = self.lost.get(event.kind, 0) + 1
            return []
        self._has_ended = self._has_ended or isinstance(event, End)
        chunks = self._chunks.feed(event)
        if type(event) is UsageEvent and event.usage.served is not UNSET:
            self._text_head = self._head_of_text()
        self._has_begun = self._has_begun or bool(chunks)
        if self._custom and isinstance(event, ArgumentDelta):
            if event.name in self._custom:
                self._custom_calls.add(event.index)
            if event.index in self._custom_calls:
                for chunk in chunks:
                    _as_custom(chunk["choices"][0]["delta"]["tool_calls"])
        return [frame(chunk) for chunk in chunks]

    def _head_of_text(self) -> bytes:
        return b"data: " + encode_json(self._chunks.head)[:-1] + b',"choices":[{"index":0,"delta":{"content":'

    def finish(self) -> list[bytes]:
        """`[DONE]`, when the answer has ended."""
        return [_DONE] if self._has_ended else []

    def error(
        self, *, status: int, code: str, message: str, retry_after_s: float | None = None
    ) -> list[bytes]:
        """A chunk that holds an error; the `openai` client raises `APIError`."""
        return [
            openai_errors.chat_error_frame(
                status=status, code=code, message=message, retry_after_s=retry_after_s
            )
        ]


def _is_said(kind: str) -> bool:
    return kind.startswith(("openai:delta.", "openai:chunk."))


def _as_custom(calls: list[JsonObject]) -> None:
    """Calls of tools that take free text, in the form that the API has for them."""
    for call in calls:
        said = call.pop("function")
        call["custom"] = {"input": said["arguments"]} | ({"name": said["name"]} if "name" in said else {})
        if "type" in call:
            call["type"] = "custom"


class ChatSurface:
    """The codec of chat completions."""

    name = NAME
    can_stream = True

    def decode_request(self, body: Any) -> Request:
        """A chat completions request; see `openai.decode_request`."""
        without_logprobs(as_object(body, "body"))
        return openai.decode_request(body)

    def encode_reply(self, reply: Reply, *, asked: Request, response_id: str, created: int) -> JsonObject:
        """A chat completion."""
        body = encode_response(without_foreign(reply, "openai"), response_id=response_id, created=created)
        body["model"] = asked_model(reply, asked)
        custom = custom_tools(asked)
        if custom:
            calls = body["choices"][0]["message"].get("tool_calls", [])
            _as_custom([call for call in calls if call["function"]["name"] in custom])
        return body

    def stream_encoder(self, *, asked: Request, response_id: str, created: int) -> StreamEncoder:
        """A writer of chunks."""
        return ChatStream(asked=asked, response_id=response_id, created=created)

    def encode_error(
        self, *, status: int, code: str, message: str, retry_after_s: float | None = None
    ) -> JsonObject:
        """The error object of the OpenAI APIs."""
        return openai_errors.encode_error(
            status=status, code=code, message=message, retry_after_s=retry_after_s
        )
