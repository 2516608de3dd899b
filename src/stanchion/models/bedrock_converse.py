"""Amazon Bedrock, Converse: requests and answers <-> Interaction, Reply and events. Pure, no I/O.

Shapes: Amazon Bedrock API reference, Converse and ConverseStream. The API takes files and pictures only
embedded. It has no words for a JSON schema of the answer, for "no tool" or for a seed; the first two are
refused. Turns of the same role that follow each other become one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from stanchion.core.errors import UsageError
from stanchion.core.interaction import (
    ArgumentDelta,
    End,
    FinishReason,
    Interaction,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    ReasoningDelta,
    Refusal,
    Reply,
    Role,
    Sampling,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    ToolDefinition,
    ToolResult,
    UnknownEvent,
    Usage,
    UsageEvent,
)
from stanchion.core.origin import Origin
from stanchion.models.wire import (
    JsonObject,
    WireError,
    as_list,
    as_object,
    as_text,
    as_unavailable,
    location_of,
    maybe_count,
    maybe_int,
    maybe_text,
    own_payload,
    split_data_url,
)

API = "bedrock"
FINISH_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "tool_use": FinishReason.TOOL_CALLS,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
    "content_filtered": FinishReason.CONTENT_FILTER,
    "malformed_model_output": FinishReason.ERROR,
    "malformed_tool_use": FinishReason.ERROR,
}
_CHOICES: dict[str, JsonObject] = {"auto": {"auto": {}}, "required": {"any": {}}}
_FORMATS = {"application/pdf": "pdf", "text/plain": "txt", "text/csv": "csv", "text/html": "html"}
_FORMATS |= {"text/markdown": "md", "application/msword": "doc", "application/vnd.ms-excel": "xls"}
_NAME = re.compile(r"[^A-Za-z0-9 \-()\[\]]+")

# --- requests -----------------------------------------------------------------------------------------------


def encode_request(interaction: Interaction, *, extras: Mapping[str, Any] | None = None) -> JsonObject:
    """The request body; the model's name stands in the address.

    Raises:
        UsageError: for what this API cannot say.
    """
    sampling = interaction.sampling
    if sampling.response_schema is not None:
        raise UsageError("a JSON schema of the answer cannot be said in the bedrock API.")
    system = [part for m in interaction.messages if m.role is Role.SYSTEM for part in m.parts]
    body: JsonObject = {"system": [_encode_part(part) for part in system]} if system else {}
    turns = [message for message in interaction.messages if message.role is not Role.SYSTEM]
    body["messages"] = [
        {"role": role, "content": [block for message in group for block in _encode_blocks(message.parts)]}
        for role, group in groupby(turns, key=_role)
    ]
    config = _encode_sampling(sampling)
    if config:
        body["inferenceConfig"] = config
    tools = _encode_tools(interaction.tools, sampling.tool_choice)
    if tools:
        body["toolConfig"] = tools
    return body | dict(extras or {})


def _role(message: Message) -> str:
    return "assistant" if message.role is Role.ASSISTANT else "user"


def _encode_sampling(sampling: Sampling) -> JsonObject:
    fields = {
        "maxTokens": sampling.max_output_tokens,
        "temperature": sampling.temperature,
        "topP": sampling.top_p,
        "stopSequences": list(sampling.stop) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _encode_tools(tools: Iterable[ToolDefinition], choice: str | None) -> JsonObject:
    specs = []
    for tool in tools:
        if tool.extra is not None:
            own_payload(tool.extra, api=API)
        spec: JsonObject = {"name": tool.name, "inputSchema": {"json": tool.parameters or {"type": "object"}}}
        specs.append({"toolSpec": spec | ({"description": tool.description} if tool.description else {})})
    if not specs:
        return {}
    if choice == "none":
        raise UsageError(
            "`tool_choice: none` cannot be said in the bedrock API.", hint="Leave the tools out."
        )
    config: JsonObject = {"tools": specs}
    if choice is not None:
        name = choice.removeprefix("tool:")
        config["toolChoice"] = {"tool": {"name": name}} if name != choice else _CHOICES[choice]
    return config


def _encode_blocks(parts: Iterable[Part]) -> list[JsonObject]:
    blocks: list[JsonObject] = []
    for part in parts:
        if isinstance(part, Text | Refusal) and not part.text:
            continue
        if isinstance(part, Opaque) and part.kind == "citation":
            continue
        last = blocks[-1].get("toolResult") if blocks else None
        if isinstance(part, Media) and part.origin is Origin.TOOL_RESULT and last is not None:
            last["content"].append(_encode_media(part))
            continue
        blocks.append(_encode_part(part))
    return blocks


def _encode_part(part: Part) -> JsonObject:
    match part:
        case Text(text=text) | Refusal(text=text):
            return {"text": text}
        case ToolCall(id=call_id, name=name, arguments=dict(arguments)):
            return {"toolUse": {"toolUseId": call_id, "name": name, "input": arguments}}
        case ToolCall(name=name):
            raise UsageError(f"the arguments of a call of {name!r} are no JSON object: the API needs one.")
        case ToolResult(call_id=call_id, text=text, is_error=is_error):
            result: JsonObject = {"toolUseId": call_id, "content": [{"text": text}]}
            return {"toolResult": result | ({"status": "error"} if is_error else {})}
        case Reasoning(signature=signature, redacted=True):
            return {"reasoningContent": {"redactedContent": signature or ""}}
        case Reasoning(text=text, signature=signature):
            signed = {"signature": signature} if signature else {}
            return {"reasoningContent": {"reasoningText": {"text": text, **signed}}}
        case Media():
            return _encode_media(part)
        case Opaque():
            return dict(own_payload(part, api=API)[1])


def _encode_media(part: Media) -> JsonObject:
    embedded = split_data_url(location_of(part))
    if embedded is None:
        raise UsageError(f"a {part.media_type} part that is not embedded cannot be said in the bedrock API.")
    kind = embedded[0].partition(";")[0]
    source = {"bytes": embedded[1]}
    if kind.startswith("image/"):
        return {"image": {"format": kind.removeprefix("image/"), "source": source}}
    if kind not in _FORMATS:
        raise UsageError(f"a {kind} part cannot be said in the bedrock API.")
    name = _NAME.sub(" ", part.name or "document").strip()[:200] or "document"
    return {"document": {"format": _FORMATS[kind], "name": name, "source": source}}


# --- answers ------------------------------------------------------------------------------------------------


def decode_response(body: Any) -> Reply:
    """A whole answer; the API does not say which model gave it.

    Raises:
        UnavailableError: for a wrong shape.
    """
    with as_unavailable(API):
        fields = as_object(body, "body")
        message = as_object(as_object(fields.get("output"), "output").get("message"), "output.message")
        content = as_list(message.get("content"), "content")
        parts = tuple(_decode_block(as_object(b, f"content[{n}]"), n) for n, b in enumerate(content))
        reason = maybe_text(fields.get("stopReason"), "stopReason")
        return Reply(
            message=Message(
                role=Role.ASSISTANT, parts=tuple(p for p in parts if not (isinstance(p, Text) and not p.text))
            ),
            finish_reason=FINISH_REASONS.get(reason or "", FinishReason.UNKNOWN),
            usage=decode_usage(fields.get("usage")),
        )


def _decode_block(block: JsonObject, number: int) -> Part:
    match block:
        case {"text": str(text)}:
            return Text(text=text, origin=Origin.MODEL)
        case {"toolUse": {"toolUseId": str(call_id), "name": str(name), "input": dict(arguments)}}:
            return ToolCall(id=call_id, name=name, arguments=arguments)
        case {"reasoningContent": {"reasoningText": {"text": str(text), **rest}}}:
            return Reasoning(text=text, signature=maybe_text(rest.get("signature"), "signature"))
        case {"reasoningContent": {"redactedContent": str(sealed)}}:
            return Reasoning(text="", signature=sealed, redacted=True)
        case {"toolUse": _}:
            raise WireError(f"content[{number}].toolUse: a field is missing or wrong.")
        case _:
            kind = next(iter(block), "nothing")
            return Opaque(kind=f"{API}:{kind}", payload=block)


def decode_usage(value: Any) -> Usage:
    """Token counts; input tokens include those that a cache read or wrote, which the API counts apart."""
    if value is None:
        return Usage()
    usage = as_object(value, "usage")
    fresh = maybe_count(usage.get("inputTokens"), "usage.inputTokens")
    read = maybe_count(usage.get("cacheReadInputTokens"), "usage.cacheReadInputTokens")
    written = maybe_count(usage.get("cacheWriteInputTokens"), "usage.cacheWriteInputTokens")
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=maybe_count(usage.get("outputTokens"), "usage.outputTokens"),
        cached_input_tokens=read,
    )


class ConverseDecoder:
    """Events of one streamed answer -> ours. `End` waits for the counts, which come after the reason."""

    def __init__(self) -> None:
        self._reason: str | None = None

    def feed(self, kind: str, value: Any) -> list[StreamEvent]:
        """The events of one event; `kind` is its `:event-type`.

        Raises:
            UnavailableError: for a wrong shape.
        """
        with as_unavailable(API):
            event = as_object(value, kind)
            index = maybe_int(event.get("contentBlockIndex"), "contentBlockIndex") or 0
            match kind:
                case "messageStart" | "contentBlockStop":
                    return []
                case "contentBlockStart":
                    return self._start(as_object(event.get("start") or {}, "start"), index, event)
                case "contentBlockDelta":
                    return [self._delta(as_object(event.get("delta"), "delta"), index, event)]
                case "messageStop":
                    self._reason = as_text(event.get("stopReason"), "stopReason")
                    return []
                case "metadata":
                    return [UsageEvent(usage=decode_usage(event.get("usage"))), *self.finish()]
                case _:
                    return [UnknownEvent(kind=f"{API}:{kind}", payload=event)]

    def finish(self) -> list[StreamEvent]:
        """`End`, when the reason was told."""
        if self._reason is None:
            return []
        return [End(finish_reason=FINISH_REASONS.get(self._reason, FinishReason.UNKNOWN))]

    def _start(self, start: JsonObject, index: int, event: JsonObject) -> list[StreamEvent]:
        match start:
            case {"toolUse": {"toolUseId": str(call_id), "name": str(name)}}:
                return [ArgumentDelta(index=index, call_id=call_id, name=name)]
            case _ if not start:
                return []
            case _:
                return [UnknownEvent(kind=f"{API}:contentBlockStart", payload=event)]

    def _delta(self, delta: JsonObject, index: int, event: JsonObject) -> StreamEvent:
        match delta:
            case {"text": str(text)}:
                return TextDelta(text=text, index=index)
            case {"toolUse": {"input": str(piece)}}:
                return ArgumentDelta(index=index, json=piece)
            case {"reasoningContent": {"text": str(text)}}:
                return ReasoningDelta(text=text, index=index)
            case {"reasoningContent": {"signature": str(signature)}}:
                return ReasoningDelta(text="", index=index, signature=signature)
            case {"reasoningContent": {"redactedContent": str(sealed)}}:
                return ReasoningDelta(text="", index=index, signature=sealed, redacted=True)
            case _:
                return UnknownEvent(kind=f"{API}:contentBlockDelta", payload=event)
