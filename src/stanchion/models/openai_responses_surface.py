"""OpenAI responses API from the server's side: requests in, response objects and typed events out."""

from __future__ import annotations

from typing import Any

from stanchion.core.interaction import Reply
from stanchion.models import openai_errors
from stanchion.models.openai_responses import STRICT, StateRules, decode_request
from stanchion.models.openai_responses_parts import API
from stanchion.models.openai_responses_stream import ResponseStream, encode_response
from stanchion.models.surface import StreamEncoder
from stanchion.models.wire import JsonObject, Request, as_object, without_logprobs

NAME = API


class ResponsesSurface:
    """The codec of responses; the rules say what becomes of requests that lean on the vendor's memory."""

    name = NAME
    can_stream = True

    def __init__(self, rules: StateRules = STRICT) -> None:
        self._rules = rules

    def decode_request(self, body: Any) -> Request:
        """A responses request; see `openai_responses.decode_request`."""
        without_logprobs(as_object(body, "body"))
        return decode_request(body, rules=self._rules)

    def encode_reply(self, reply: Reply, *, asked: Request, response_id: str, created: int) -> JsonObject:
        """A response object."""
        return encode_response(reply, asked=asked, response_id=response_id, created=created)

    def stream_encoder(self, *, asked: Request, response_id: str, created: int) -> StreamEncoder:
        """A writer of typed events."""
        return ResponseStream(asked=asked, response_id=response_id, created=created)

    def encode_error(
        self, *, status: int, code: str, message: str, retry_after_s: float | None = None
    ) -> JsonObject:
        """The error object of the OpenAI APIs."""
        return openai_errors.encode_error(
            status=status, code=code, message=message, retry_after_s=retry_after_s
        )
