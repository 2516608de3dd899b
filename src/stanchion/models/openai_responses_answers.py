"""OpenAI responses API: whole answers <-> Reply, and a streamed answer -> events. Pure, no I/O.

Shapes: OpenAI API reference, the response object and its streaming events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from msgspec import UNSET, UnsetType

from stanchion.core.interaction import (
    ArgumentDelta,
    Citation,
    End,
    FinishReason,
    Message,
    Opaque,
    Part,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    Reply,
    Role,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    UnknownEvent,
    Usage,
    UsageEvent,
)
from stanchion.core.origin import Origin
from stanchion.models.event_rules import RESPONSES_EVENTS, RESPONSES_ITEMS, Rule
from stanchion.models.openai_citations import citation_part
from stanchion.models.openai_responses import decode_call
from stanchion.models.openai_responses_parts import API, decode_content, decode_reasoning
from stanchion.models.served import read_served
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

SERVED = ("service_tier",)
_CUT_SHORT = {
    "max_output_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


def decode_response(body: Any) -> Reply:
    """A response object.

    Raises:
        UnavailableError: for a wrong shape, an error, or an answer that is not over.
    """
    with as_unavailable(API):
        fields = as_object(body, "body")
        reason = _finish_reason(fields, "the endpoint answered with an error object")
        parts: list[Part] = []
        for number, item in enumerate(as_list(fields.get("output"), "output")):
            parts += _decode_item(as_object(item, f"output[{number}]"), f"output[{number}]")
        return Reply(
            message=Message(role=Role.ASSISTANT, parts=tuple(parts)),
            finish_reason=_with_calls(reason, any(isinstance(part, ToolCall) for part in parts)),
            model=maybe_text(fields.get("model"), "model") or "",
            usage=decode_usage(fields.get("usage"), served=read_served("openai", fields, SERVED)),
        )


def _decode_item(item: JsonObject, where: str) -> Iterator[Part]:
    kind = as_text(item.get("type"), f"{where}.type")
    match kind:
        case "message":
            content = decode_content(item.get("content"), Origin.MODEL, f"{where}.content")
            yield from (p for p in content if not (isinstance(p, Text | Refusal) and not p.text))
        case "function_call" | "custom_tool_call":
            yield decode_call(item, where)
        case "reasoning":
            yield decode_reasoning(item, where)
        case _:
            yield Opaque(kind=f"{API}:{kind}", payload=item)


def _finish_reason(response: JsonObject, what: str) -> FinishReason:
    """The reason that the status gives; an answer that is incomplete for another one was cut short.

    Raises:
        UnavailableError: for an error, and for a status that is no end.
    """
    status = maybe_text(response.get("status"), "status")
    if response.get("error") or status not in ("completed", "incomplete"):
        raise error_object(what, {"error": response.get("error") or f"status_{status or 'missing'}"})
    if status == "completed":
        return FinishReason.STOP
    details = as_object(response.get("incomplete_details") or {}, "incomplete_details")
    word = maybe_text(details.get("reason"), "incomplete_details.reason")
    return _CUT_SHORT.get(word or "", FinishReason.LENGTH)


def _with_calls(reason: FinishReason, has_calls: bool) -> FinishReason:
    return FinishReason.TOOL_CALLS if has_calls and reason is FinishReason.STOP else reason


def decode_usage(value: Any, *, served: dict[str, str] | UnsetType = UNSET) -> Usage:
    """Token counts; input tokens include the cached ones."""
    if value is None:
        return Usage(served=served)
    usage = as_object(value, "usage")
    details = as_object(usage.get("input_tokens_details") or {}, "usage.input_tokens_details")
    said = as_object(usage.get("output_tokens_details") or {}, "usage.output_tokens_details")
    return Usage(
        input_tokens=maybe_count(usage.get("input_tokens"), "usage.input_tokens"),
        output_tokens=maybe_count(usage.get("output_tokens"), "usage.output_tokens"),
        cached_input_tokens=maybe_count(
            details.get("cached_tokens"), "usage.input_tokens_details.cached_tokens"
        ),
        cache_write_tokens=told_count(
            details.get("cache_write_tokens"), "usage.input_tokens_details.cache_write_tokens"
        ),
        reasoning_tokens=told_count(
            said.get("reasoning_tokens"), "usage.output_tokens_details.reasoning_tokens"
        ),
        served=served,
    )


# --- streams ------------------------------------------------------------------------------------------------

_Key = tuple[str, int, int]


class ResponseDecoder:
    """Events of one streamed response -> our events; feed every `data` object.

    Words are taken from the deltas; where a server sends only the whole (`...done`), from that.
    """

    def __init__(self) -> None:
        self._model = ""
        self._blocks: dict[_Key, int] = {}
        self._thoughts: dict[int, int] = {}
        self._has_calls = False
        self._with_arguments: set[int] = set()
        self._handlers: Mapping[str, Callable[[JsonObject], Iterable[StreamEvent]]] = {
            "response.output_text.delta": self._text,
            "response.output_text.done": self._text_done,
            "response.refusal.delta": self._refusal,
            "response.refusal.done": self._refusal_done,
            "response.reasoning_summary_text.delta": self._thought,
            "response.reasoning_summary_text.done": self._thought_done,
            "response.reasoning_text.delta": self._thought,
            "response.reasoning_text.done": self._thought_done,
            "response.function_call_arguments.delta": self._arguments,
            "response.function_call_arguments.done": self._arguments_done,
            "response.custom_tool_call_input.delta": self._arguments,
            "response.custom_tool_call_input.done": self._arguments_done,
            "response.output_item.added": self._added,
            "response.output_item.done": self._item_done,
            "response.output_text.annotation.added": self._annotation,
            "response.created": self._created,
            "response.completed": self._end,
            "response.incomplete": self._end,
            "response.failed": self._end,
            "error": self._error,
        }

    def feed(self, data: Any) -> list[StreamEvent]:
        """The events of one event.

        Raises:
            UnavailableError: for a wrong shape, an error event, or a response that failed.
        """
        with as_unavailable(API):
            event = as_object(data, "event")
            kind = as_text(event.get("type"), "event.type")
            handler = self._handlers.get(kind)
            if handler is not None:
                return list(handler(event))
            if RESPONSES_EVENTS.get(kind) is Rule.CARRIED:
                return []
            return [UnknownEvent(kind=f"{API}:event.{kind}", payload=event)]

    def finish(self, *, is_marked: bool = True) -> list[StreamEvent]:
        """Nothing: `response.completed` (or `incomplete`) is the end; a stream without it broke off."""
        return []

    def _index(self, kind: str, event: JsonObject, part: str = "content_index") -> tuple[int, bool]:
        """Our number of a block, and whether it is new."""
        item = maybe_int(event.get("output_index"), "output_index") or 0
        key = (kind, item, maybe_int(event.get(part), part) or 0)
        is_new = key not in self._blocks
        return self._blocks.setdefault(key, len(self._blocks)), is_new

    def _text(self, event: JsonObject) -> Iterator[StreamEvent]:
        index, _ = self._index("text", event)
        yield TextDelta(text=as_text(event.get("delta"), "delta"), index=index)

    def _text_done(self, event: JsonObject) -> Iterator[StreamEvent]:
        index, is_new = self._index("text", event)
        if is_new and event.get("text"):
            yield TextDelta(text=as_text(event["text"], "text"), index=index)

    def _refusal(self, event: JsonObject) -> Iterator[StreamEvent]:
        index, _ = self._index("refusal", event)
        yield RefusalDelta(text=as_text(event.get("delta"), "delta"), index=index)

    def _refusal_done(self, event: JsonObject) -> Iterator[StreamEvent]:
        index, is_new = self._index("refusal", event)
        if is_new and event.get("refusal"):
            yield RefusalDelta(text=as_text(event["refusal"], "refusal"), index=index)

    def _thought(self, event: JsonObject) -> Iterator[StreamEvent]:
        yield from self._thinks(event, as_text(event.get("delta"), "delta"))

    def _thought_done(self, event: JsonObject) -> Iterator[StreamEvent]:
        text = as_text(event.get("text") or "", "text")
        if text and self._piece(event) not in self._blocks:
            yield from self._thinks(event, text)

    def _piece(self, event: JsonObject) -> _Key:
        kind = "summary" if "summary_index" in event else "thought"
        item = maybe_int(event.get("output_index"), "output_index") or 0
        piece = event.get("summary_index", event.get("content_index"))
        return (kind, item, maybe_int(piece, "summary_index") or 0)

    def _thinks(self, event: JsonObject, text: str) -> Iterator[StreamEvent]:
        """All pieces of one reasoning item are one block; a new piece begins behind a blank line."""
        piece = self._piece(event)
        is_new = piece not in self._blocks
        number = self._blocks.setdefault(piece, len(self._blocks))
        is_later = piece[1] in self._thoughts
        index = self._thoughts.setdefault(piece[1], number)
        yield ReasoningDelta(text=f"\n\n{text}" if is_new and is_later else text, index=index)

    def _arguments(self, event: JsonObject) -> Iterator[StreamEvent]:
        call = self._begun_call(event)
        self._with_arguments.add(call)
        yield ArgumentDelta(index=call, json=as_text(event.get("delta"), "delta"))

    def _begun_call(self, event: JsonObject) -> int:
        call, is_new = self._index("call", event)
        if is_new:
            raise WireError(f"{event.get('type')}: no call began in this item.")
        return call

    def _arguments_done(self, event: JsonObject) -> Iterator[StreamEvent]:
        call = self._begun_call(event)
        whole = event.get("arguments", event.get("input"))
        if call not in self._with_arguments and whole:
            self._with_arguments.add(call)
            yield ArgumentDelta(index=call, json=as_text(whole, "arguments"))

    def _added(self, event: JsonObject) -> Iterator[StreamEvent]:
        item = as_object(event.get("item"), "item")
        if item.get("type") in ("function_call", "custom_tool_call"):
            yield from self._begin_call(event, item)

    def _begin_call(self, event: JsonObject, item: JsonObject) -> Iterator[StreamEvent]:
        call, is_new = self._index("call", event)
        self._has_calls = True
        if is_new:
            call_id, name = (
                as_text(item.get("call_id"), "item.call_id"),
                as_text(item.get("name"), "item.name"),
            )
            yield ArgumentDelta(index=call, call_id=call_id, name=name)

    def _item_done(self, event: JsonObject) -> Iterator[StreamEvent]:
        item = as_object(event.get("item"), "item")
        kind = as_text(item.get("type"), "item.type")
        number = maybe_int(event.get("output_index"), "output_index") or 0
        if RESPONSES_ITEMS.get(kind) is not Rule.UNDERSTOOD:
            yield UnknownEvent(kind=f"{API}:{kind}", payload=item)
        elif kind == "reasoning":
            yield from self._reasoned(decode_reasoning(item, "item"), event, number)
        elif kind == "message":
            if not any(key[1] == number and key[0] in ("text", "refusal") for key in self._blocks):
                yield from self._whole_message(item, event)
        else:
            yield from self._begin_call(event, item)
            yield from self._arguments_done({**event, **item})

    def _reasoned(self, part: Reasoning, event: JsonObject, number: int) -> Iterator[StreamEvent]:
        has_words = number in self._thoughts
        key = ("summary", number, 0)
        index = self._thoughts.setdefault(number, self._blocks.setdefault(key, len(self._blocks)))
        yield ReasoningDelta(
            text="" if has_words else part.text,
            index=index,
            signature=part.signature,
            redacted=part.redacted and not has_words,
        )

    def _whole_message(self, item: JsonObject, event: JsonObject) -> Iterator[StreamEvent]:
        for place, part in enumerate(decode_content(item.get("content"), Origin.MODEL, "item.content")):
            at = {**event, "content_index": place}
            match part:
                case Text(text=text) if text:
                    yield TextDelta(text=text, index=self._index("text", at)[0])
                case Refusal(text=text) if text:
                    yield RefusalDelta(text=text, index=self._index("refusal", at)[0])
                case Opaque(kind="citation", payload=payload):
                    yield Citation(**payload)
                case Opaque(kind=kind, payload=payload):
                    yield UnknownEvent(kind=kind, payload=payload)

    def _annotation(self, event: JsonObject) -> Iterator[StreamEvent]:
        index, _ = self._index("text", event)
        said = citation_part(as_object(event.get("annotation"), "annotation")).payload
        yield Citation(**said, index=index)

    def _created(self, event: JsonObject) -> Iterator[StreamEvent]:
        response = as_object(event.get("response"), "response")
        self._model = maybe_text(response.get("model"), "response.model") or ""
        said = read_served("openai", response, SERVED)
        if said is not UNSET:
            yield UsageEvent(usage=Usage(served=said))

    def _end(self, event: JsonObject) -> Iterator[StreamEvent]:
        response = as_object(event.get("response"), "response")
        reason = _finish_reason(response, "the stream ended with a response that failed")
        usage = decode_usage(response.get("usage"), served=read_served("openai", response, SERVED))
        if usage != Usage():
            yield UsageEvent(usage=usage)
        model = maybe_text(response.get("model"), "response.model") or self._model
        yield End(finish_reason=_with_calls(reason, self._has_calls), model=model)

    def _error(self, event: JsonObject) -> Iterator[StreamEvent]:
        raise error_object("the stream ended with an error event", {"error": event.get("error") or event})
