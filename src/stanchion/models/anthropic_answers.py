"""Anthropic messages: answers, whole and streamed, <-> Reply and stream events. Pure, no I/O.

Shapes: Anthropic API reference, message object and streaming messages (`message_start` ... `message_stop`).
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from stanchion.core.errors import UsageError
from stanchion.core.interaction import (
    ArgumentDelta,
    Citation,
    End,
    FinishReason,
    Message,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    Role,
    StreamEvent,
    Text,
    TextDelta,
    UnknownEvent,
    Usage,
    UsageEvent,
)
from stanchion.core.origin import Origin
from stanchion.models.anthropic import (
    API,
    citation_part,
    decode_content,
    encode_blocks,
    is_own_citation,
)
from stanchion.models.events import arguments_json, merged_usage
from stanchion.models.served import read_served, served_by
from stanchion.models.wire import (
    JsonObject,
    WireError,
    as_list,
    as_object,
    as_text,
    as_unavailable,
    error_object,
    maybe_count,
    maybe_int,
    maybe_text,
    told_count,
)

FINISH_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
    "pause_turn": FinishReason.PAUSED,
    "error": FinishReason.ERROR,
}
_STOP_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
    FinishReason.PAUSED: "pause_turn",
    FinishReason.ERROR: "max_tokens",  # not whole
}
_SERVED = ("service_tier", "inference_geo", "speed")  # within `usage`


def decode_response(body: Any) -> Reply:
    """A message object.

    Raises:
        UnavailableError: for a wrong shape or an error object.
    """
    with as_unavailable(API):
        fields = as_object(body, "body")
        _raise_error(fields, "the endpoint answered with an error object")
        content = decode_content(as_list(fields.get("content"), "content"), Origin.MODEL, {}, "content")
        reason = maybe_text(fields.get("stop_reason"), "stop_reason")
        parts = tuple(part for part in content if not (isinstance(part, Text) and not part.text))
        return Reply(
            message=Message(role=Role.ASSISTANT, parts=parts),
            finish_reason=FINISH_REASONS.get(reason or "", FinishReason.UNKNOWN),
            model=as_text(fields.get("model"), "model"),
            usage=decode_usage(as_object(fields.get("usage") or {}, "usage")),
            stop_sequence=maybe_text(fields.get("stop_sequence"), "stop_sequence") or UNSET,
        )


def encode_response(reply: Reply, *, response_id: str) -> JsonObject:
    """A message object.

    Raises:
        UsageError: for a part that this API cannot say.
    """
    return {
        "id": response_id,
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": encode_blocks(reply.message.parts),
        **_stopped(reply, has_calls=bool(reply.message.tool_calls)),
        "usage": encode_usage(reply.usage) | served_by("anthropic", reply.usage),
    }


def _stopped(said: Reply | End, *, has_calls: bool) -> JsonObject:
    """Why an answer ended, in a word that the API has. A stop sequence only where it ended by itself.

    Where nothing is known it ended as answers do: with its calls, or by itself.
    """
    if said.stop_sequence is not UNSET and said.finish_reason is FinishReason.STOP:
        return {"stop_reason": "stop_sequence", "stop_sequence": said.stop_sequence}
    usual = "tool_use" if has_calls else "end_turn"
    return {"stop_reason": _STOP_REASONS.get(said.finish_reason, usual), "stop_sequence": None}


def decode_usage(usage: JsonObject) -> Usage:
    """Token counts; here input tokens include cached and newly cached ones, which the API counts apart."""
    fresh = maybe_count(usage.get("input_tokens"), "usage.input_tokens")
    read = maybe_count(usage.get("cache_read_input_tokens"), "usage.cache_read_input_tokens")
    written = maybe_count(usage.get("cache_creation_input_tokens"), "usage.cache_creation_input_tokens")
    long = thoughts = None
    if usage.get("cache_creation") is not None:
        kinds = as_object(usage["cache_creation"], "usage.cache_creation")
        long = kinds.get("ephemeral_1h_input_tokens")
    if usage.get("output_tokens_details") is not None:
        details = as_object(usage["output_tokens_details"], "usage.output_tokens_details")
        thoughts = details.get("thinking_tokens")
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=maybe_count(usage.get("output_tokens"), "usage.output_tokens"),
        cached_input_tokens=read,
        cache_write_tokens=UNSET if written is None else written,
        cache_write_1h_tokens=told_count(long, "usage.cache_creation.ephemeral_1h_input_tokens"),
        reasoning_tokens=told_count(thoughts, "usage.output_tokens_details.thinking_tokens"),
        served=read_served("anthropic", usage, _SERVED),
    )


def encode_usage(usage: Usage) -> JsonObject:
    """Token counts as the API counts them; the API has no word for "not known", so that is 0."""
    cached, written = usage.cached_input_tokens, usage.cache_write_tokens
    fresh = (usage.input_tokens or 0) - (cached or 0) - (0 if written is UNSET else written)
    wire: JsonObject = {"input_tokens": max(fresh, 0), "output_tokens": usage.output_tokens or 0}
    if cached is not None:
        wire["cache_read_input_tokens"] = cached
    if written is not UNSET:
        wire["cache_creation_input_tokens"] = written
        if usage.cache_write_1h_tokens is not UNSET:
            long = usage.cache_write_1h_tokens
            short = max(written - long, 0)
            wire["cache_creation"] = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long}
    if usage.reasoning_tokens is not UNSET:
        wire["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return wire


def _raise_error(fields: JsonObject, what: str) -> None:
    if fields.get("type") == "error" or fields.get("error"):
        raise error_object(what, fields)


# --- streams ------------------------------------------------------------------------------------------------


class EventDecoder:
    """Events of one streamed message -> our events; feed every `data` object."""

    def __init__(self) -> None:
        self._model = ""
        self._usage: JsonObject = {}
        self._reason: str | None = None
        self._sequence: str | None = None
        self._unknown_blocks: set[int] = set()
        self._calls: set[int] = set()
        self._whole_inputs: dict[int, str] = {}

    def feed(self, data: Any) -> list[StreamEvent]:
        """The events of one event.

        Raises:
            UnavailableError: for a wrong shape or an error event.
        """
        with as_unavailable(API):
            event = as_object(data, "event")
            kind = as_text(event.get("type"), "event.type")
            match kind:
                case "ping":
                    return []
                case "error":
                    _raise_error(event, "the stream ended with an error event")
                case "message_start":
                    message = as_object(event.get("message"), "message_start.message")
                    self._model = maybe_text(message.get("model"), "message.model") or ""
                    return self._count(message.get("usage"))
                case "content_block_start" | "content_block_delta" | "content_block_stop":
                    return self._block(kind, event)
                case "message_delta":
                    delta = as_object(event.get("delta") or {}, "message_delta.delta")
                    self._reason = maybe_text(delta.get("stop_reason"), "stop_reason") or self._reason
                    self._sequence = maybe_text(delta.get("stop_sequence"), "stop_sequence")
                    return self._count(event.get("usage"))
                case "message_stop":
                    reason = FINISH_REASONS.get(self._reason or "", FinishReason.UNKNOWN)
                    sequence = self._sequence or UNSET
                    return [End(finish_reason=reason, model=self._model, stop_sequence=sequence)]
            return [UnknownEvent(kind=f"anthropic:{kind}", payload=event)]

    def finish(self, *, is_marked: bool = True) -> list[StreamEvent]:
        """Nothing: `message_stop` is the end; a stream without it broke off."""
        return []

    def _count(self, usage: Any) -> list[StreamEvent]:
        if usage is None:
            return []
        self._usage |= {k: v for k, v in as_object(usage, "usage").items() if v is not None}
        return [UsageEvent(usage=decode_usage(self._usage))]

    def _block(self, kind: str, event: JsonObject) -> list[StreamEvent]:
        index = maybe_int(event.get("index"), f"{kind}.index") or 0
        if kind == "content_block_start":
            block = as_object(event.get("content_block"), "content_block_start.content_block")
            return self._start(block, index, event)
        if index in self._unknown_blocks:
            return [UnknownEvent(kind=f"anthropic:{kind}", payload=event)]
        if kind == "content_block_stop":
            whole = self._whole_inputs.pop(index, "")
            return [ArgumentDelta(index=index, json=whole)] if whole else []
        return self._delta(as_object(event.get("delta"), "content_block_delta.delta"), index, event)

    def _start(self, block: JsonObject, index: int, event: JsonObject) -> list[StreamEvent]:
        match block:
            case {"type": "text", "text": str(text)}:
                return [TextDelta(text=text, index=index)] if text else []
            case {"type": "tool_use", "id": str(call_id), "name": str(name)}:
                if isinstance(block.get("input"), dict) and block["input"]:
                    self._whole_inputs[index] = arguments_json(block["input"])
                self._calls.add(index)
                return [ArgumentDelta(index=index, call_id=call_id, name=name)]
            case {"type": "thinking", "thinking": str(text)}:
                return [ReasoningDelta(text=text, index=index, signature=block.get("signature") or None)]
            case {"type": "redacted_thinking", "data": str(data)}:
                return [ReasoningDelta(text="", index=index, signature=data, redacted=True)]
            case _:
                self._unknown_blocks.add(index)
                return [UnknownEvent(kind="anthropic:content_block_start", payload=event)]

    def _delta(self, delta: JsonObject, index: int, event: JsonObject) -> list[StreamEvent]:
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                return [TextDelta(text=text, index=index)]
            case {"type": "input_json_delta", "partial_json": str(piece)}:
                if index not in self._calls:
                    raise WireError("input_json_delta: no call began in this block.")
                if piece:
                    self._whole_inputs.pop(index, None)
                return [ArgumentDelta(index=index, json=piece)]
            case {"type": "thinking_delta", "thinking": str(text)}:
                return [ReasoningDelta(text=text, index=index)]
            case {"type": "signature_delta", "signature": str(signature)}:
                return [ReasoningDelta(text="", index=index, signature=signature)]
            case {"type": "citations_delta", "citation": dict(citation)}:
                said = citation_part(citation).payload
                return [Citation(**said, index=index)]
            case _:
                return [UnknownEvent(kind="anthropic:content_block_delta", payload=event)]


class EventEncoder:
    """Our events of one answer -> the API's events, as (name, data) pairs.

    The API sends one content block after another, so an answer whose tool calls are interleaved is refused.
    """

    def __init__(self, *, response_id: str, model: str) -> None:
        self._id = response_id
        self._model = model
        self._usage = Usage()
        self._open: tuple[str, int] | None = None
        self._closed_calls: set[int] = set()
        self._next = 0
        self._is_started = False
        self._foreign: dict[int, int] = {}

    def feed(self, event: StreamEvent) -> list[tuple[str, JsonObject]]:
        """The API's events for one of ours.

        Raises:
            UsageError: for another vendor's event, and for interleaved tool calls.
        """
        if isinstance(event, UsageEvent):
            self._usage = merged_usage(self._usage, event.usage)
            return []
        out = [] if self._is_started else [self._begin()]
        match event:
            case TextDelta(text=text, index=index) | RefusalDelta(text=text, index=index):
                out += self._say("text", index, {"type": "text_delta", "text": text})
            case ReasoningDelta():
                out += self._reason(event)
            case ArgumentDelta():
                out += self._call(event)
            case Citation(wire=dict(citation), index=index) if is_own_citation(citation):
                out += self._say("text", index, {"type": "citations_delta", "citation": citation})
            case Citation():
                pass
            case UnknownEvent(kind=kind, payload=payload):
                out += self._unknown(kind, payload)
            case End():
                out += self._end(event)
        return out

    def _begin(self) -> tuple[str, JsonObject]:
        self._is_started = True
        message: JsonObject = {"id": self._id, "type": "message", "role": "assistant", "model": self._model}
        message |= {"content": [], "stop_reason": None, "stop_sequence": None}
        message["usage"] = encode_usage(self._usage) | served_by("anthropic", self._usage)
        return _named({"type": "message_start", "message": message})

    def _say(self, kind: str, index: int, delta: JsonObject) -> list[tuple[str, JsonObject]]:
        block = {"text": {"type": "text", "text": ""}, "thinking": _THINKING}[kind]
        out = [] if self._open == (kind, index) else self._open_block(kind, index, block)
        return [*out, self._delta(delta)]

    def _reason(self, event: ReasoningDelta) -> list[tuple[str, JsonObject]]:
        if event.redacted:
            block = {"type": "redacted_thinking", "data": event.signature or ""}
            return [*self._open_block("redacted", event.index, block), *self._close()]
        out: list[tuple[str, JsonObject]] = []
        if event.text or event.signature is None:
            out += self._say("thinking", event.index, {"type": "thinking_delta", "thinking": event.text})
        if event.signature is not None:
            signed = {"type": "signature_delta", "signature": event.signature}
            out += self._say("thinking", event.index, signed)
        return out

    def _call(self, event: ArgumentDelta) -> list[tuple[str, JsonObject]]:
        out: list[tuple[str, JsonObject]] = []
        if self._open != ("call", event.index):
            if event.index in self._closed_calls:
                raise UsageError("interleaved tool calls cannot be said in a stream of the anthropic API.")
            block = {"type": "tool_use", "id": event.call_id or "", "name": event.name or "", "input": {}}
            out += self._open_block("call", event.index, block)
        if event.json:
            out.append(self._delta({"type": "input_json_delta", "partial_json": event.json}))
        return out

    def _unknown(self, kind: str, payload: Any) -> list[tuple[str, JsonObject]]:
        if not kind.startswith("anthropic:") or not isinstance(payload, dict) or "type" not in payload:
            raise UsageError(f"an event of kind {kind!r} cannot be said in a stream of the anthropic API.")
        if "index" not in payload:
            return [_named(payload)]
        out: list[tuple[str, JsonObject]] = []
        if payload["type"] == "content_block_start":
            out += self._close()
            self._foreign[payload["index"]] = self._next
            self._next += 1
        index = self._foreign.get(payload["index"], self._next - 1)
        return [*out, _named({**payload, "index": index})]

    def _open_block(self, kind: str, index: int, block: JsonObject) -> list[tuple[str, JsonObject]]:
        out = self._close()
        self._open = (kind, index)
        self._next += 1
        start = {"type": "content_block_start", "index": self._next - 1, "content_block": dict(block)}
        return [*out, _named(start)]

    def _close(self) -> list[tuple[str, JsonObject]]:
        if self._open is None:
            return []
        if self._open[0] == "call":
            self._closed_calls.add(self._open[1])
        self._open = None
        return [_named({"type": "content_block_stop", "index": self._next - 1})]

    def _delta(self, delta: JsonObject) -> tuple[str, JsonObject]:
        return _named({"type": "content_block_delta", "index": self._next - 1, "delta": delta})

    def _end(self, end: End) -> list[tuple[str, JsonObject]]:
        closed = self._close()
        delta = _stopped(end, has_calls=bool(self._closed_calls))
        last = {"type": "message_delta", "delta": delta, "usage": encode_usage(self._usage)}
        return [*closed, _named(last), _named({"type": "message_stop"})]


_THINKING = {"type": "thinking", "thinking": "", "signature": ""}


def _named(event: JsonObject) -> tuple[str, JsonObject]:
    return event["type"], event
