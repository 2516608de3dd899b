"""The APIs that can be asked, by name: requests written, whole answers read, streams read from bytes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from stanchion.core.interaction import Interaction, Reply
from stanchion.models import (
    anthropic,
    anthropic_answers,
    openai,
    openai_answers,
    openai_responses,
    openai_responses_answers,
)
from stanchion.models.answer_reader import AnswerReader, SseReader
from stanchion.models.anthropic_count import CountTokens
from stanchion.models.openai_vectors import Embeddings, Moderations
from stanchion.models.wire import JsonObject


class UpstreamCodec(Protocol):
    """One API from the side of the client. Codecs hold no state."""

    @property
    def name(self) -> str:
        """The API's name, such as `openai.chat`; requests are fitted to it by `translation.fitted`."""
        ...

    def encode_request(
        self, interaction: Interaction, *, stream: bool, extras: Mapping[str, Any] | None = None
    ) -> JsonObject:
        """The request body.

        Raises:
            UsageError: for a part that the API cannot say.
        """
        ...

    def decode_reply(self, body: Any) -> Reply:
        """The reply in a whole answer.

        Raises:
            UnavailableError: for a wrong shape or an error object.
        """
        ...

    def reader(self) -> AnswerReader:
        """A reader of one streamed answer."""
        ...


class ChatUpstream:
    """OpenAI chat completions; `style` says how a compatible server wants things said."""

    name = "openai.chat"

    def __init__(self, style: openai.Style = openai.PLAIN) -> None:
        self._style = style

    def encode_request(
        self, interaction: Interaction, *, stream: bool, extras: Mapping[str, Any] | None = None
    ) -> JsonObject:
        """See `UpstreamCodec`."""
        return openai.encode_request(interaction, stream=stream, extras=extras, style=self._style)

    def decode_reply(self, body: Any) -> Reply:
        """See `UpstreamCodec`."""
        return openai_answers.decode_response(body)

    def reader(self) -> AnswerReader:
        """See `UpstreamCodec`."""
        return SseReader(openai_answers.ChunkDecoder(), text_key="content")


class ResponsesUpstream:
    """OpenAI responses."""

    name = "openai.responses"

    def encode_request(
        self, interaction: Interaction, *, stream: bool, extras: Mapping[str, Any] | None = None
    ) -> JsonObject:
        """See `UpstreamCodec`."""
        return openai_responses.encode_request(interaction, stream=stream, extras=extras)

    def decode_reply(self, body: Any) -> Reply:
        """See `UpstreamCodec`."""
        return openai_responses_answers.decode_response(body)

    def reader(self) -> AnswerReader:
        """See `UpstreamCodec`."""
        return SseReader(openai_responses_answers.ResponseDecoder())


class MessagesUpstream:
    """Anthropic messages."""

    name = "anthropic.messages"

    def encode_request(
        self, interaction: Interaction, *, stream: bool, extras: Mapping[str, Any] | None = None
    ) -> JsonObject:
        """See `UpstreamCodec`."""
        return anthropic.encode_request(interaction, stream=stream, extras=extras)

    def decode_reply(self, body: Any) -> Reply:
        """See `UpstreamCodec`."""
        return anthropic_answers.decode_response(body)

    def reader(self) -> AnswerReader:
        """See `UpstreamCodec`."""
        return SseReader(anthropic_answers.EventDecoder(), text_key="text")


UPSTREAMS: Mapping[str, UpstreamCodec] = MappingProxyType(
    {
        "openai.chat": ChatUpstream(),
        "openai.responses": ResponsesUpstream(),
        "openai.embeddings": Embeddings(),
        "openai.moderations": Moderations(),
        "anthropic.messages": MessagesUpstream(),
        "anthropic.count_tokens": CountTokens(),
    }
)
