"""Anthropic's count of the tokens of a message, as it is served and as it is asked. Pure, no I/O.

Shapes: Anthropic API reference, count tokens in a message. The request is that of messages without a token
limit, so it is read and checked like one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stanchion.core.errors import UsageError
from stanchion.core.interaction import Interaction, Message, Opaque, Reply, Role
from stanchion.models import anthropic
from stanchion.models.answer_reader import AnswerReader
from stanchion.models.anthropic_surface import encode_error
from stanchion.models.surface import StreamEncoder, no_stream
from stanchion.models.wire import (
    JsonObject,
    Request,
    WireError,
    as_int,
    as_object,
    as_unavailable,
    error_object,
)

NAME = "anthropic.count_tokens"
COUNT = f"{NAME}:count"


class CountTokens:
    """The codec of `/v1/messages/count_tokens`; a reply holds the number in one opaque part."""

    name = NAME
    can_stream = False

    def decode_request(self, body: Any) -> Request:
        """A messages request; see `anthropic.decode_request`.

        Raises:
            WireError: for a wrong shape, and for a stream, which a number is not.
        """
        request = anthropic.decode_request(body)
        if request.stream:
            raise WireError("stream: a count of tokens is not streamed.", hint="Leave it out.")
        return request

    def encode_request(
        self, interaction: Interaction, *, stream: bool, extras: Mapping[str, Any] | None = None
    ) -> JsonObject:
        """The request body: what would be asked, without the token limit."""
        body = anthropic.encode_request(interaction, extras=extras)
        del body["max_tokens"]
        return body

    def decode_reply(self, body: Any) -> Reply:
        """The number."""
        with as_unavailable(NAME):
            fields = as_object(body, "body")
            if fields.get("error"):
                raise error_object("the endpoint answered with an error object", body)
            part = Opaque(kind=COUNT, payload=as_int(fields.get("input_tokens"), "input_tokens"))
            return Reply(message=Message(role=Role.ASSISTANT, parts=(part,)))

    def encode_reply(self, reply: Reply, *, asked: Request, response_id: str, created: int) -> JsonObject:
        """The object with the number.

        Raises:
            UsageError: for a reply without one.
        """
        for part in reply.message.parts:
            if isinstance(part, Opaque) and part.kind == COUNT:
                return {"input_tokens": part.payload}
        raise UsageError("there is no count of tokens in this answer.")

    def stream_encoder(self, *, asked: Request, response_id: str, created: int) -> StreamEncoder:
        """Refused: there is no streamed answer."""
        raise no_stream(NAME)

    def reader(self) -> AnswerReader:
        """Refused: there is no streamed answer."""
        raise no_stream(NAME)

    def encode_error(
        self, *, status: int, code: str, message: str, retry_after_s: float | None = None
    ) -> JsonObject:
        """The error object of the API."""
        return encode_error(status=status, code=code, message=message, retry_after_s=retry_after_s)
