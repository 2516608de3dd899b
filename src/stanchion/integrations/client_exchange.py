"""One request of a vendor's SDK and its answer, between the SDK and the network: bytes in, bytes out.

The answer is read by the codecs of the gateway, decided, and written again, so that nothing which was not
read reaches the caller. No I/O here: `http_transport` sends and receives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stanchion.core.clock import SortableIds, SystemClock
from stanchion.core.errors import StanchionError, UnavailableError
from stanchion.core.interaction import Interaction, Reply, StreamEvent
from stanchion.guard.exchange import PreparedInteraction, is_stop
from stanchion.guard.streaming import StreamGuard
from stanchion.integrations.recording import Recording
from stanchion.integrations.wire_apis import WireApi
from stanchion.models.answer_reader import AnswerReader
from stanchion.models.events import events_of
from stanchion.models.http_client import json_body
from stanchion.models.openai_vectors import EMBEDDINGS, check_vectors
from stanchion.models.strict_json import decode_strict
from stanchion.models.surface import StreamEncoder, encode_json
from stanchion.models.translation import fitted
from stanchion.models.wire import Request

_ID = re.compile(rb'"id"\s*:\s*"([A-Za-z0-9_.:-]{1,200})"')
_SOUGHT_BYTES = 64 * 1024
JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"
_clock = SystemClock()
_ids = SortableIds(_clock)


@dataclass(frozen=True, slots=True)
class Sent:
    """An answer as the SDK gets it."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


class ClientExchange:
    """One request and its answer. `read`, then `prepared`, then `whole` or the methods of a stream."""

    def __init__(self, api: WireApi, recording: Recording, *, session_id: str = "") -> None:
        self.api = api
        self._recording = recording
        self._session_id = session_id
        self._request: Request | None = None
        self._raw = b""
        self._prepared: PreparedInteraction | None = None

    def read(self, raw: bytes) -> Interaction:
        """What the SDK wants to ask.

        Raises:
            StanchionError: for what cannot be read, and so not be guarded.
        """
        self._raw = raw
        request = self.api.surface.decode_request(decode_strict(raw, what="the request is something"))
        interaction = msgspec.structs.replace(request.interaction, session_id=self._session_id)
        self._request = msgspec.structs.replace(request, interaction=interaction)
        return interaction

    @property
    def asked(self) -> Request:
        """The request that was read."""
        assert self._request is not None  # noqa: S101 - `read` comes first
        return self._request

    @property
    def prepared(self) -> PreparedInteraction:
        """The request as the guard left it."""
        assert self._prepared is not None  # noqa: S101 - `take` comes first
        return self._prepared

    def take(self, prepared: PreparedInteraction) -> Sent | None:
        """Take the guard's word on the request; the answer in the model's place when it was refused."""
        self._prepared = prepared
        self._recording.note(
            f"{self.api.name} request", prepared.decisions, is_allowed=prepared.blocked is None
        )
        return None if prepared.blocked is None else self.said(prepared.blocked, reply_id="")

    def outgoing(self) -> bytes:
        """What goes to the vendor: the very bytes of the SDK when the guard changed nothing."""
        asked, prepared = self.asked, self.prepared
        if prepared.is_unchanged and not self._adds(asked):
            return self._raw
        name = self.api.name
        rewritten = msgspec.structs.replace(asked, interaction=prepared.interaction)
        said = fitted(rewritten, surface=name, upstream=name)
        return json_body(
            self.api.upstream.encode_request(said.interaction, stream=asked.stream, extras=said.extras)
        )

    def _adds(self, asked: Request) -> bool:
        """Whether reading added something that has to be sent, such as `store: false`."""
        return self.api.name == "openai.responses" and asked.extras.get("store") is False

    # --- a whole answer ---------------------------------------------------------------------------------

    def heard(self, raw: bytes) -> Reply:
        """The vendor's answer.

        Raises:
            UnavailableError: when it does not have the API's shape.
        """
        self._reply_id = _id_in(raw)
        reply = self.api.upstream.decode_reply(decode_strict(raw, what="the answer is something"))
        if self.api.name == EMBEDDINGS:
            check_vectors(reply, self.asked)
        return reply

    def finished(self, interaction: Interaction) -> Sent:
        """The answer as the guard left it."""
        reply = interaction.reply
        if reply is None:
            raise UnavailableError("the answer could not be decided.", is_retryable=False)
        new = reply.decisions[len(self.prepared.decisions) :]
        self._recording.note(f"{self.api.name} answer", new, is_allowed=not any(is_stop(one) for one in new))
        return self.said(reply, reply_id=self._reply_id)

    def said(self, reply: Reply, *, reply_id: str) -> Sent:
        """An answer in the API's shape, as a stream when a stream was asked for."""
        asked, codec = self.asked, self.api.surface
        headers = {"x-stanchion-reference": _reference(reply)}
        reply_id = reply_id or _ids.new("answer")
        if asked.stream and codec.can_stream:
            encoder = codec.stream_encoder(asked=asked, response_id=reply_id, created=_now())
            frames = [frame for event in events_of(reply) for frame in encoder.feed(event)]
            return Sent(200, b"".join([*frames, *encoder.finish()]), EVENTS, headers)
        body = codec.encode_reply(reply, asked=asked, response_id=reply_id, created=_now())
        return Sent(200, encode_json(body), JSON, headers)

    def broke(self, where: str, error: BaseException) -> None:
        """A check broke: the request or the answer does not go on."""
        self._recording.broke(f"{self.api.name} {where}", error)


class StreamExchange:
    """The streamed answer of one exchange; feed it bytes, send on what it gives back."""

    def __init__(self, exchange: ClientExchange, guard: StreamGuard, recording: Recording) -> None:
        self._exchange = exchange
        self._guard = guard
        self._recording = recording
        self._reader: AnswerReader = exchange.api.upstream.reader()
        self._encoder: StreamEncoder | None = None
        self._head = b""
        self.is_over = False

    @property
    def guarantee(self) -> str:
        """What is promised for this stream."""
        return self._guard.guarantee.value

    async def feed(self, data: bytes) -> bytes:
        """What may leave after more bytes; what cannot be decided ends in the API's own error."""
        if len(self._head) < _SOUGHT_BYTES and self._encoder is None:
            self._head += data
        try:
            return await self._passed(self._reader.feed(data))
        except Exception as error:
            return self._failed(error)

    async def end(self) -> bytes:
        """What may leave when the vendor has closed the stream: its end, or an error when it broke off."""
        try:
            out = await self._passed(self._reader.end())
            if not self.is_over:
                await self._guard.finish()
        except Exception as error:
            return self._failed(error)
        return out

    async def _passed(self, events: Sequence[StreamEvent]) -> bytes:
        frames: list[bytes] = []
        for event in events:
            for one in await self._guard.feed(event):
                frames += self._writer().feed(one)
            if self._guard.is_over:
                frames += self._writer().finish()
                self._conclude()
                break
        return b"".join(frames)

    def _conclude(self) -> None:
        self.is_over = True
        answered = self._guard.answer
        reply = None if answered is None else answered.reply
        decisions = () if reply is None else reply.decisions[len(self._exchange.prepared.decisions) :]
        self._recording.note(
            f"{self._exchange.api.name} stream",
            decisions,
            is_allowed=not self._guard.was_stopped,
            guarantee=self.guarantee,
        )

    def _failed(self, error: Exception) -> bytes:
        self.is_over = True
        self._exchange.broke("stream", error)
        told = error.message if isinstance(error, StanchionError) else "the answer could not be decided."
        return b"".join(self._writer().error(status=502, code="answer_not_decided", message=told))

    def _writer(self) -> StreamEncoder:
        if self._encoder is None:
            reply_id = _id_in(self._head) or _ids.new("answer")
            self._head = b""
            self._encoder = self._exchange.api.surface.stream_encoder(
                asked=self._exchange.asked, response_id=reply_id, created=_now()
            )
        return self._encoder


def refusal(api_codec: Any, *, status: int, code: str, message: str) -> Sent:
    """An error in the API's own shape, which the SDK does not try again."""
    body = api_codec.encode_error(status=status, code=code, message=message)
    return Sent(status, encode_json(body), JSON, {"x-should-retry": "false"})


def _id_in(raw: bytes) -> str:
    """The vendor's own id of an answer: later requests may name it."""
    found = _ID.search(raw, 0, _SOUGHT_BYTES)
    return found[1].decode() if found is not None else ""


def _reference(reply: Reply) -> str:
    strictest = max(reply.decisions, key=lambda one: one.enforced_effect.rank, default=None)
    return "" if strictest is None else strictest.reference


def _now() -> int:
    return int(_clock.now().timestamp())
