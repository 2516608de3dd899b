"""OpenAI chat completions: answers, whole and streamed, <-> Reply and stream events. Pure, no I/O.

Shapes: OpenAI API reference, chat completion object and chat completion chunk object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, UnsetType

from stanchion.core.errors import UsageError
from stanchion.core.interaction import (
    ArgumentDelta,
    Citation,
    End,
    FinishReason,
    Media,
    Message,
    Opaque,
    Part,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    Reply,
    Role,
    StreamEvent,
    Text,
    TextDelta,
    ToolResult,
    UnknownEvent,
    Usage,
    UsageEvent,
)
from stanchion.models.event_rules import CHAT_CHOICE, CHAT_CHUNK, Rule
from stanchion.models.events import merged_usage
from stanchion.models.openai import API, Style, decode_message, encode_assistant
from stanchion.models.openai_citations import citation_part, nested_annotation
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

SERVED = ("service_tier", "system_fingerprint")
_ANSWER = Style(with_reasoning=True)
FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "error": FinishReason.ERROR,
}
_SAID_AS = {FinishReason.PAUSED: "length", FinishReason.ERROR: "length"}  # not whole
_SILENT = frozenset(CHAT_CHOICE)
_PLAIN_CHUNK = frozenset(key for key, rule in CHAT_CHUNK.items() if rule is not Rule.UNKNOWN)


def decode_response(body: Any) -> Reply:
    """A chat completion; log probabilities are left out on purpose.

    Raises:
        UnavailableError: for a wrong shape, an error object, or another number of choices than one.
    """
    with as_unavailable(API):
        fields = as_object(body, "body")
        if fields.get("error"):
            raise error_object("the endpoint answered with an error object", body)
        choices = as_list(fields.get("choices"), "choices")
        if len(choices) != 1:
            raise WireError(f"choices: one is needed, found {len(choices)}.")
        choice = as_object(choices[0], "choices[0]")
        wire = as_object(choice.get("message"), "choices[0].message")
        message = decode_message({**wire, "role": "assistant"}, {}, "choices[0].message")
        reason = maybe_text(choice.get("finish_reason"), "choices[0].finish_reason")
        parts = tuple(p for p in message.parts if not (isinstance(p, Text | Refusal) and not p.text))
        return Reply(
            message=Message(role=Role.ASSISTANT, parts=parts),
            finish_reason=FINISH_REASONS.get(reason or "", FinishReason.UNKNOWN),
            model=maybe_text(fields.get("model"), "model") or "",
            usage=decode_usage(fields.get("usage"), served=read_served(API, fields, SERVED)),
        )


def decode_usage(value: Any, *, served: dict[str, str] | UnsetType = UNSET) -> Usage:
    """Token counts; input tokens include the cached ones."""
    if value is None:
        return Usage(served=served)
    usage = as_object(value, "usage")
    details = as_object(usage.get("prompt_tokens_details") or {}, "usage.prompt_tokens_details")
    said = as_object(usage.get("completion_tokens_details") or {}, "usage.completion_tokens_details")
    return Usage(
        input_tokens=maybe_count(usage.get("prompt_tokens"), "usage.prompt_tokens"),
        output_tokens=maybe_count(usage.get("completion_tokens"), "usage.completion_tokens"),
        cached_input_tokens=maybe_count(
            details.get("cached_tokens"), "usage.prompt_tokens_details.cached_tokens"
        ),
        cache_write_tokens=told_count(
            details.get("cache_write_tokens"), "usage.prompt_tokens_details.cache_write_tokens"
        ),
        reasoning_tokens=told_count(
            said.get("reasoning_tokens"), "usage.completion_tokens_details.reasoning_tokens"
        ),
        served=served,
    )


def encode_usage(usage: Usage) -> JsonObject | None:
    """Token counts; None when none is known."""
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    prompt, completion = usage.input_tokens or 0, usage.output_tokens or 0
    wire: JsonObject = {"prompt_tokens": prompt, "completion_tokens": completion}
    wire["total_tokens"] = prompt + completion
    details: JsonObject = {}
    if usage.cached_input_tokens is not None:
        details["cached_tokens"] = usage.cached_input_tokens
    if usage.cache_write_tokens is not UNSET:
        details["cache_write_tokens"] = usage.cache_write_tokens
    if details:
        wire["prompt_tokens_details"] = details
    if usage.reasoning_tokens is not UNSET:
        wire["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return wire


def encode_response(reply: Reply, *, response_id: str, created: int) -> JsonObject:
    """A chat completion; `created` is in seconds since 1970. Several texts become one.

    Raises:
        UsageError: for a part that this API cannot say.
    """
    texts_, rest = _joined(reply.message.parts)
    message: JsonObject = {"role": "assistant", "content": texts_, "refusal": None}
    message |= {k: v for k, v in encode_assistant(rest, _ANSWER).items() if k != "content"}
    refusals = [part.text for part in reply.message.parts if isinstance(part, Refusal)]
    if refusals:
        message["refusal"] = "".join(refusals)
    elif texts_ is None and not message.get("tool_calls"):
        message["content"] = ""  # as vendors write an empty answer; clients call methods of it
    citations = _annotations(reply.message.parts)
    if citations:
        message["annotations"] = citations
    reason = finish_word(reply.finish_reason, has_calls=bool(message.get("tool_calls")))
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    body: JsonObject = {
        "id": response_id,
        "object": "chat.completion",
        "created": created,
        "model": reply.model,
    }
    body["choices"] = [choice]
    body |= served_by(API, reply.usage)
    usage = encode_usage(reply.usage)
    return body if usage is None else body | {"usage": usage}


def finish_word(reason: FinishReason, *, has_calls: bool = False) -> str:
    """Why an answer ended, in a word that the API has.

    An answer that broke off, for whatever reason, was cut short (`length`). Where nothing is known it ended
    as answers do: with its calls, or by itself.
    """
    if reason is FinishReason.UNKNOWN:
        return "tool_calls" if has_calls else "stop"
    return _SAID_AS.get(reason, reason.value)


def _annotations(parts: tuple[Part, ...]) -> list[JsonObject]:
    """The citations that chat can say; those of other vendors become links, or are left out."""
    said = []
    for part in parts:
        if isinstance(part, Opaque) and part.kind == "citation":
            payload = part.payload
            said.append(nested_annotation(payload["wire"], payload["quote"], payload["document_id"]))
    return [annotation for annotation in said if annotation is not None]


def _joined(parts: tuple[Part, ...]) -> tuple[str | None, tuple[Part, ...]]:
    words = [part.text for part in parts if isinstance(part, Text)]
    rest = tuple(part for part in parts if not isinstance(part, Text | Refusal))
    for part in rest:
        if isinstance(part, Media | ToolResult):
            raise UsageError(f"a {type(part).__name__} part cannot be said in an answer of the openai API.")
    return ("".join(words) if words else None), rest


# --- streams ------------------------------------------------------------------------------------------------


class ChunkDecoder:
    """Chunks of one streamed answer -> events. Feed every chunk, then call `finish` at `[DONE]`.

    The wire numbers tool calls on their own; here every content block has its own index, in order of
    appearance. `End` is held back until `finish`, because usage comes after the finish reason. `left_out`
    counts fields of chunks and choices that no rule knows (`event_rules`); they are never passed on.
    """

    def __init__(self) -> None:
        self.left_out: dict[str, int] = {}
        self._blocks: dict[tuple[str, int], int] = {}
        self._call = -1
        self._model = ""
        self._reason: str | None = None
        self._has_begun = False
        self._served: dict[str, str] | UnsetType = UNSET

    def feed(self, chunk: Any) -> list[StreamEvent]:
        """The events of one chunk.

        Raises:
            UnavailableError: for a wrong shape, an error object, or a second choice.
        """
        text = self._only_text(chunk) if self._has_begun else None
        if text is not None:
            return [TextDelta(text=text, index=self._index("text"))]
        with as_unavailable(API):
            fields = as_object(chunk, "chunk")
            if fields.get("error"):
                raise error_object("the stream ended with an error object", chunk)
            self._model = maybe_text(fields.get("model"), "model") or self._model
            events = self._said_of_itself(fields)
            for choice in as_list(fields.get("choices"), "choices"):
                events += self._choice(as_object(choice, "choices[]"))
            if fields.get("usage") is not None:
                events.append(UsageEvent(usage=decode_usage(fields["usage"])))
            return events + self._further(fields, CHAT_CHUNK, "chunk")

    def _said_of_itself(self, fields: JsonObject) -> list[StreamEvent]:
        """What the provider says of how it serves: in every chunk, and told once."""
        self._has_begun = True
        said = read_served(API, fields, SERVED)
        if said is UNSET or said == self._served:
            return []
        self._served = said
        return [UsageEvent(usage=Usage(served=said))]

    def _only_text(self, chunk: Any) -> str | None:
        """The text of a chunk that says nothing else, the usual case; None for every other chunk."""
        match chunk:
            case {
                "model": str(model),
                "choices": [{"index": 0, "delta": {"content": str(text), **rest}, **more}],
            } if (
                text
                and not rest
                and more.keys() <= _SILENT
                and more.get("finish_reason") is None
                and chunk.get("usage") is None
                and chunk.keys() <= _PLAIN_CHUNK
            ):
                self._model = model or self._model
                return text
            case _:
                return None

    def _further(self, fields: JsonObject, table: Mapping[str, Rule], what: str) -> list[StreamEvent]:
        """Fields beside those that are decoded: handed on when the table says so, else counted."""
        events: list[StreamEvent] = []
        for key in fields.keys() - table.keys():
            self.left_out[f"{API}:{what}.{key}"] = self.left_out.get(f"{API}:{what}.{key}", 0) + 1
        for key, value in fields.items():
            if value is not None and table.get(key) is Rule.UNKNOWN:
                events.append(UnknownEvent(kind=f"{API}:{what}.{key}", payload=value))
        return events

    def finish(self, *, is_marked: bool = True) -> list[StreamEvent]:
        """`End`, when the answer is over.

        `is_marked` says that `[DONE]` was seen. Without it, and without a finish reason, the stream broke off
        and there is no end.
        """
        if self._reason is None and not is_marked:
            return []
        reason = FINISH_REASONS.get(self._reason or "", FinishReason.UNKNOWN)
        return [End(finish_reason=reason, model=self._model)]

    def _choice(self, choice: JsonObject) -> list[StreamEvent]:
        if (maybe_int(choice.get("index"), "choices[].index") or 0) != 0:
            raise WireError("choices: a second choice came where one was asked for.")
        delta = as_object(choice.get("delta") or {}, "choices[].delta")
        self._reason = maybe_text(choice.get("finish_reason"), "choices[].finish_reason") or self._reason
        events: list[StreamEvent] = []
        for key, value in delta.items():
            if value is not None and value != "":
                events += self._delta(key, value)
        return events + self._further(choice, CHAT_CHOICE, "choice")

    def _delta(self, key: str, value: Any) -> list[StreamEvent]:
        match key:
            case "role":
                return []
            case "content":
                return [TextDelta(text=as_text(value, "delta.content"), index=self._index("text"))]
            case "refusal":
                return [RefusalDelta(text=as_text(value, "delta.refusal"), index=self._index("refusal"))]
            case "reasoning_content" | "reasoning":
                return [ReasoningDelta(text=as_text(value, f"delta.{key}"), index=self._index("reasoning"))]
            case "tool_calls":
                calls = as_list(value, "delta.tool_calls")
                return [self._call_delta(as_object(call, "delta.tool_calls[]")) for call in calls]
            case "annotations":
                return self._citations(as_list(value, "delta.annotations"))
            case "function_call":
                return [self._call_delta({"index": 0, "id": "function_call", "function": value})]
            case _:
                return [UnknownEvent(kind=f"openai:delta.{key}", payload=value)]

    def _citations(self, annotations: list[Any]) -> list[StreamEvent]:
        index = self._index("text")
        said = [citation_part(as_object(one, "delta.annotations[]")).payload for one in annotations]
        return [Citation(**each, index=index) for each in said]

    def _call_delta(self, call: JsonObject) -> ArgumentDelta:
        call_id = maybe_text(call.get("id"), "delta.tool_calls[].id")
        number = maybe_int(call.get("index"), "delta.tool_calls[].index")
        if number is None:  # some servers leave the index out: a new id begins a new call
            number = self._call + 1 if call_id else max(self._call, 0)
        self._call = max(self._call, number)
        is_new = ("call", number) not in self._blocks
        custom = call.get("custom")
        words = as_object(call.get("function") or custom or {}, "delta.tool_calls[].function")
        argument_key = "arguments" if custom is None else "input"
        name = maybe_text(words.get("name"), "delta.tool_calls[].function.name")
        if is_new and name is None:
            raise WireError("delta.tool_calls[]: a call begins with the name of its function.")
        return ArgumentDelta(
            index=self._index("call", number),
            json=maybe_text(words.get(argument_key), "delta.tool_calls[].function.arguments") or "",
            call_id=call_id if is_new else None,
            name=name if is_new else None,
        )

    def _index(self, kind: str, number: int = 0) -> int:
        return self._blocks.setdefault((kind, number), len(self._blocks))


class ChunkEncoder:
    """Events of one answer -> chunks; the caller writes `[DONE]` after the chunks of `End`.

    Usage is told only when `include_usage`, and after the finish reason, as the API does. `head` is what
    stands in every chunk.
    """

    def __init__(self, *, response_id: str, created: int, model: str, include_usage: bool = False) -> None:
        self.head = {
            "id": response_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._include_usage = include_usage
        self._usage = Usage()
        self._calls: dict[int, int] = {}
        self._without_arguments: set[int] = set()
        self._is_first = True

    def feed(self, event: StreamEvent) -> list[JsonObject]:
        """The chunks of one event.

        Raises:
            UsageError: for another vendor's event, which this API cannot say.
        """
        match event:
            case TextDelta(text=text):
                return [self._chunk({"content": text})]
            case RefusalDelta(text=text):
                return [self._chunk({"refusal": text})]
            case ReasoningDelta(text=text):
                return [self._chunk({"reasoning_content": text})] if text else []
            case ArgumentDelta():
                return [self._chunk({"tool_calls": [self._call(event)]})]
            case UnknownEvent(kind=kind, payload=payload):
                return [self._unknown(kind, payload)]
            case Citation(wire=wire, quote=quote, document_id=document):
                annotation = nested_annotation(wire, quote, document)
                return [] if annotation is None else [self._chunk({"annotations": [annotation]})]
            case UsageEvent(usage=usage):
                self._usage = merged_usage(self._usage, usage)
                self.head |= served_by(API, usage)
                return []
            case End(finish_reason=reason):
                return self._end(reason)

    def _call(self, event: ArgumentDelta) -> JsonObject:
        if event.index not in self._calls:
            self._calls[event.index] = len(self._calls)
            self._without_arguments.add(event.index)
        if event.json:
            self._without_arguments.discard(event.index)
        number = self._calls[event.index]
        call: JsonObject = {"index": number, "function": {"arguments": event.json}}
        if event.call_id is not None:
            call |= {"id": event.call_id, "type": "function"}
        if event.name is not None:
            call["function"]["name"] = event.name
        return call

    def _unknown(self, kind: str, payload: Any) -> JsonObject:
        if kind.startswith("openai:delta."):
            return self._chunk({kind.removeprefix("openai:delta."): payload})
        if kind.startswith("openai:chunk."):
            return {**self.head, "choices": [], kind.removeprefix("openai:chunk."): payload}
        raise UsageError(f"an event of kind {kind!r} cannot be said in the openai API.")

    def _end(self, reason: FinishReason) -> list[JsonObject]:
        bare = sorted(self._calls[index] for index in self._without_arguments)
        empty = [{"index": number, "function": {"arguments": "{}"}} for number in bare]  # clients parse it
        chunks = [self._chunk({"tool_calls": empty})] if empty else []
        chunks.append(self._chunk({}, finish_word(reason, has_calls=bool(self._calls))))
        usage = encode_usage(self._usage)
        if self._include_usage and usage is not None:
            chunks.append({**self.head, "choices": [], "usage": usage})
        return chunks

    def _chunk(self, delta: JsonObject, reason: str | None = None) -> JsonObject:
        if self._is_first:
            self._is_first = False
            delta = {"role": "assistant"} | delta
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self.head, "choices": [choice]}
