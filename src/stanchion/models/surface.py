"""What every API that we serve offers: its requests read, its answers, streams and errors written."""

from __future__ import annotations

import math
from typing import Any, Protocol

import msgspec

from stanchion.core.errors import UsageError
from stanchion.core.interaction import Reply, StreamEvent
from stanchion.models.wire import JsonObject, Request

encode_json = msgspec.json.Encoder().encode


class StreamEncoder(Protocol):
    """Writes one answer as server-sent events: whole frames, ready to be sent.

    `lost` counts what the API has no word for, by kind; it is left out, never guessed at.
    """

    lost: dict[str, int]

    def feed(self, event: StreamEvent) -> list[bytes]:
        """The frames of one event; often none, sometimes several."""
        ...

    def finish(self) -> list[bytes]:
        """What the API sends after the end. Nothing when `End` was not fed: a torn stream stays torn."""
        ...

    def error(
        self, *, status: int, code: str, message: str, retry_after_s: float | None = None
    ) -> list[bytes]:
        """The frames by which the API says, in the middle of an answer, that it is over."""
        ...


class SurfaceCodec(Protocol):
    """One API from the side of the server. Codecs hold no state; all methods are pure."""

    @property
    def name(self) -> str:
        """The API's name, such as `openai.chat`."""
        ...

    @property
    def can_stream(self) -> bool:
        """Whether the API has streamed answers."""
        ...

    def decode_request(self, body: Any) -> Request:
        """The request in a JSON value.

        Raises:
            WireError: for a wrong shape, with its path, and for what cannot be guarded.
        """
        ...

    def encode_reply(self, reply: Reply, *, asked: Request, response_id: str, created: int) -> JsonObject:
        """The answer as the API's object; `created` is in seconds since 1970.

        What the API has no word for is left out (`translation.lost_in_reply` counts it).
        """
        ...

    def stream_encoder(self, *, asked: Request, response_id: str, created: int) -> StreamEncoder:
        """A writer of one streamed answer.

        Raises:
            UsageError: when the API does not stream.
        """
        ...

    def encode_error(
        self, *, status: int, code: str, message: str, retry_after_s: float | None = None
    ) -> JsonObject:
        """The error object of the API; the caller sends the status and the `Retry-After` header."""
        ...


def frame(value: JsonObject) -> bytes:
    """One server-sent event without a name; `value` is written on one line."""
    return b"data: " + encode_json(value) + b"\n\n"


def named_frame(name: str, value: JsonObject) -> bytes:
    """One server-sent event with a name."""
    return b"event: " + name.encode() + b"\ndata: " + encode_json(value) + b"\n\n"


def with_wait(message: str, retry_after_s: float | None) -> str:
    """The message, and when to try again."""
    if retry_after_s is None:
        return message
    return f"{message} Try again in {max(1, math.ceil(retry_after_s))} s."


def no_stream(name: str) -> UsageError:
    """The error for a stream where the API has none."""
    return UsageError(f"the {name} API has no streamed answers.", hint="Ask without `stream`.")


def asked_model(reply: Reply, asked: Request) -> str:
    """The model to name in an answer: the one that answered, else the one that was asked for."""
    return reply.model or asked.interaction.model


def custom_tools(asked: Request) -> frozenset[str]:
    """The names of tools that take free text instead of JSON."""
    return frozenset(
        tool.name
        for tool in asked.interaction.tools
        if tool.extra is not None and tool.extra.payload.get("type") == "custom"
    )
