"""Amazon Bedrock: Converse for every model, or Anthropic's messages for Anthropic's models; signed requests.

Source: Amazon Bedrock API reference, Converse, ConverseStream, InvokeModel, InvokeModelWithResponseStream.
Streams come as `application/vnd.amazon.eventstream`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from stanchion.core.clock import Clock, SystemClock
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import End, Interaction, Reply, StreamEvent
from stanchion.models import bedrock_converse
from stanchion.models.answer_reader import AnswerReader
from stanchion.models.anthropic_answers import EventDecoder
from stanchion.models.aws_event_stream import EventMessage, EventStreamParser
from stanchion.models.aws_signature import AwsCredentials, Scope, Signer
from stanchion.models.http_client import Call, checked_url, json_body, shown_url
from stanchion.models.providers import base_headers
from stanchion.models.strict_json import decode_strict
from stanchion.models.upstreams import MessagesUpstream, UpstreamCodec
from stanchion.models.wire import JsonObject, as_object, as_text, as_unavailable, error_object

CONVERSE = "bedrock.converse"
BETA = "anthropic-beta"
_VERSION = "bedrock-2023-05-31"
_THROTTLED = frozenset({"throttlingException", "serviceUnavailableException", "internalServerException"})


class BedrockOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which region is asked, and how.

    `api` `converse` is for every model, `messages` for Anthropic's. `endpoint` replaces the public address of
    the region, such as that of a private network.
    """

    region: str
    api: Literal["converse", "messages"] = "converse"
    endpoint: str = ""


class BedrockProvider:
    """One region, with one key pair; the model of a call is a model id or the id of an inference profile."""

    def __init__(
        self, options: BedrockOptions, *, credentials: AwsCredentials, clock: Clock | None = None
    ) -> None:
        base = options.endpoint or f"https://bedrock-runtime.{options.region}.amazonaws.com"
        self._base = checked_url(base, what="the endpoint of Bedrock")
        self._signer = Signer(credentials, Scope(region=options.region, service="bedrock"))
        self._clock = clock or SystemClock()
        self._is_converse = options.api == "converse"
        self.codec: UpstreamCodec = ConverseUpstream() if self._is_converse else BedrockMessages()

    async def call(
        self, body: JsonObject, *, model: str, stream: bool, headers: Mapping[str, str] | None = None
    ) -> Call:
        """See `Provider.call`. Betas, a header of Anthropic's own API, are a field of the body here."""
        further = dict(headers or {})
        betas = further.pop(BETA, "")
        is_path = "/" in model and not model.startswith("arn:")
        if not model or not model.isascii() or not model.isprintable() or is_path:
            raise UsageError(f"{model[:60]!r} cannot be the id of a Bedrock model.")
        action = ("converse", "converse-stream")[stream]
        if not self._is_converse:
            action = ("invoke", "invoke-with-response-stream")[stream]
            body = {k: v for k, v in body.items() if k not in ("model", "stream")}
            body["anthropic_version"] = _VERSION
            if betas:
                body["anthropic_beta"] = betas.split(",")
        url = f"{self._base}/model/{quote(model, safe='-_.~')}/{action}"
        accept = "application/vnd.amazon.eventstream" if stream else "application/json"
        said = base_headers(further, {"accept": accept})
        raw = json_body(body)
        return Call(
            what=f"model {model!r} at {shown_url(self._base)}",
            url=url,
            headers=self._signer.sign("POST", url, headers=said, body=raw, now=self._clock.now()),
            body=raw,
        )

    def refusal(self, error: UnavailableError) -> Reply | None:
        """None: a guardrail of Bedrock answers with a stop reason, not with an error."""
        return None


class ConverseUpstream:
    """The codec of Converse."""

    name = CONVERSE

    def encode_request(
        self, interaction: Interaction, *, stream: bool, extras: Mapping[str, Any] | None = None
    ) -> JsonObject:
        """See `UpstreamCodec`."""
        return bedrock_converse.encode_request(interaction, extras=extras)

    def decode_reply(self, body: Any) -> Reply:
        """See `UpstreamCodec`."""
        return bedrock_converse.decode_response(body)

    def reader(self) -> AnswerReader:
        """See `UpstreamCodec`."""
        return ConverseReader()


class BedrockMessages(MessagesUpstream):
    """Anthropic's messages through InvokeModel: the same words in another frame."""

    def reader(self) -> AnswerReader:
        """See `UpstreamCodec`."""
        return InvokeReader()


class _Reader:
    """Messages of a binary event stream -> events."""

    def __init__(self) -> None:
        self._parser = EventStreamParser()
        self._count = 0
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """See `AnswerReader`."""
        return self._is_over

    def feed(self, data: bytes) -> list[StreamEvent]:
        """See `AnswerReader`."""
        events: list[StreamEvent] = []
        if self.is_over:
            return events
        for message in self._parser.feed(data):
            _raise_exception(message)
            events += self._message(message)
            if events and isinstance(events[-1], End):
                self._is_over = True
                break
        self._count += len(events)
        return events

    def end(self) -> list[StreamEvent]:
        """See `AnswerReader`."""
        if self._is_over:
            return []
        events = self._last() if self._parser.is_clean else []
        if not events:
            raise UnavailableError(
                f"the stream broke off after {self._count} events, before the answer was over.",
                hint="Ask again; if it happens often, look at proxies in between.",
            )
        self._is_over = True
        return events

    def _message(self, message: EventMessage) -> list[StreamEvent]:
        raise NotImplementedError

    def _last(self) -> list[StreamEvent]:
        return []


class ConverseReader(_Reader):
    """One answer of ConverseStream."""

    def __init__(self) -> None:
        super().__init__()
        self._decoder = bedrock_converse.ConverseDecoder()

    def _message(self, message: EventMessage) -> list[StreamEvent]:
        value = decode_strict(message.payload, what="the stream holds an event")
        return self._decoder.feed(message.text(":event-type"), value)

    def _last(self) -> list[StreamEvent]:
        return self._decoder.finish()


class InvokeReader(_Reader):
    """One answer of InvokeModelWithResponseStream: events of the messages API in base64."""

    def __init__(self) -> None:
        super().__init__()
        self._decoder = EventDecoder()

    def _message(self, message: EventMessage) -> list[StreamEvent]:
        value = decode_strict(message.payload, what="the stream holds an event")
        with as_unavailable("bedrock"):
            said = as_text(as_object(value, "chunk").get("bytes"), "chunk.bytes")
        try:
            raw = base64.b64decode(said, validate=True)
        except (binascii.Error, ValueError):
            raise UnavailableError(
                "the stream holds a chunk that is not base64.", is_retryable=False
            ) from None
        return self._decoder.feed(decode_strict(raw, what="the stream holds an event"))


def _raise_exception(message: EventMessage) -> None:
    """Raise what the stream says went wrong.

    Raises:
        UnavailableError: for a message that is an exception or an error.
    """
    kind = message.text(":message-type")
    if kind == "event":
        return
    name = message.text(":exception-type") or message.text(":error-code") or kind or "no type"
    error = error_object("the stream ended with an error", {"error": {"code": name}})
    error.is_retryable = name in _THROTTLED or name == "modelStreamErrorException"
    raise error
