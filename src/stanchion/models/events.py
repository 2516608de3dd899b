"""Stream events to a reply, and a reply to stream events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import msgspec
from msgspec import UNSET, UnsetType

from stanchion.core.errors import UnavailableError
from stanchion.core.interaction import (
    ArgumentDelta,
    Citation,
    End,
    FinishReason,
    Media,
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
    ToolResult,
    UnknownEvent,
    Usage,
    UsageEvent,
)
from stanchion.core.origin import Origin

CITATION = "citation"


class _Block:
    """One content block while it grows."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.signature: str | None = None
        self.is_redacted = False
        self.call_id = ""
        self.name = ""
        self.part: Part | None = None
        self.stands_in: bool | UnsetType = UNSET

    def finished(self) -> Part:
        """The part that the deltas amount to."""
        text = "".join(self.pieces)
        match self.kind:
            case "text":
                return Text(text=text, origin=Origin.MODEL, stands_in=self.stands_in)
            case "refusal":
                return Refusal(text=text)
            case "reasoning":
                return Reasoning(text=text, signature=self.signature, redacted=self.is_redacted)
            case "call":
                return tool_call(id=self.call_id, name=self.name, raw_arguments=text)
            case _:
                return cast(Part, self.part)


class Assembler:
    """Builds the reply that a stream of events amounts to; feed it every event, then ask for the reply.

    Blocks keep the order in which they first appeared. Citations and unknown events become `Opaque` parts.
    """

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], _Block] = {}
        self._usage = Usage()
        self._end: End | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the end of the answer was seen."""
        return self._end is not None

    def feed(self, event: StreamEvent) -> None:
        """Take one event into account; what follows `End` (late usage counts) still is."""
        match event:
            case TextDelta(text=text, index=index, stands_in=stands_in):
                block = self._block("text", index)
                block.pieces.append(text)
                block.stands_in = stands_in
            case RefusalDelta(text=text, index=index):
                self._block("refusal", index).pieces.append(text)
            case ReasoningDelta():
                self._feed_reasoning(event)
            case ArgumentDelta():
                self._feed_call(event)
            case UsageEvent(usage=usage):
                self._usage = merged_usage(self._usage, usage)
            case End():
                self._end = event
            case Citation(document_id=document, quote=quote, wire=wire):
                self._opaque(CITATION, {"document_id": document, "quote": quote, "wire": wire})
            case UnknownEvent(kind=kind, payload=payload):
                self._opaque(kind, payload)

    def reply(self, *, latency_ms: float | None = None) -> Reply:
        """The whole answer.

        Raises:
            UnavailableError: when the stream broke off before its end.
        """
        if self._end is None:
            raise UnavailableError(
                "the stream broke off before the answer was over.", hint="Ask again, or look at the endpoint."
            )
        parts = tuple(block.finished() for block in self._blocks.values())
        return Reply(
            message=Message(role=Role.ASSISTANT, parts=parts),
            finish_reason=self._end.finish_reason,
            model=self._end.model,
            usage=self._usage,
            latency_ms=latency_ms,
            stop_sequence=self._end.stop_sequence,
        )

    def _block(self, kind: str, index: int) -> _Block:
        return self._blocks.setdefault((kind, index), _Block(kind))

    def _feed_reasoning(self, event: ReasoningDelta) -> None:
        block = self._block("reasoning", event.index)
        block.pieces.append(event.text)
        block.is_redacted = block.is_redacted or event.redacted
        if event.signature is not None:
            block.signature = event.signature

    def _feed_call(self, event: ArgumentDelta) -> None:
        block = self._block("call", event.index)
        block.pieces.append(event.json)
        block.call_id = event.call_id or block.call_id
        block.name = event.name or block.name

    def _opaque(self, kind: str, payload: Any) -> None:
        block = self._block("opaque", len(self._blocks))
        block.part = Opaque(kind=kind, payload=payload)


async def collect(events: AsyncIterator[StreamEvent]) -> Reply:
    """The reply that a whole stream amounts to.

    Raises:
        UnavailableError: when the stream has no end event.
    """
    assembler = Assembler()
    async for event in events:
        assembler.feed(event)
    return assembler.reply()


def events_of(reply: Reply, *, chunk_chars: int = 0) -> Iterator[StreamEvent]:
    """The events of a reply; texts and arguments are cut every `chunk_chars` code points (0: not cut).

    `collect(events_of(reply))` gives the same message, finish reason, model and usage, with two limits:
    empty text parts vanish, and media and tool results, which no model streams, come back as `Opaque`.
    """
    for index, part in enumerate(reply.message.parts):
        yield from _part_events(part, index, chunk_chars)
    if reply.usage != Usage():
        yield UsageEvent(usage=reply.usage)
    yield End(finish_reason=reply.finish_reason, model=reply.model, stop_sequence=reply.stop_sequence)


def _part_events(part: Part, index: int, chunk_chars: int) -> Iterator[StreamEvent]:
    match part:
        case Text(text=text, stands_in=ours):
            pieces = _pieces(text, chunk_chars)
            yield from (TextDelta(text=piece, index=index, stands_in=ours) for piece in pieces)
        case Refusal(text=text):
            yield from (RefusalDelta(text=piece, index=index) for piece in _pieces(text, chunk_chars))
        case Reasoning(text=text, signature=signature, redacted=redacted):
            yield from (ReasoningDelta(text=piece, index=index) for piece in _pieces(text, chunk_chars))
            if signature is not None or redacted:
                yield ReasoningDelta(text="", index=index, signature=signature, redacted=redacted)
        case ToolCall(id=call_id, name=name):
            yield ArgumentDelta(index=index, call_id=call_id, name=name)
            pieces = _pieces(arguments_text(part), chunk_chars)
            yield from (ArgumentDelta(index=index, json=piece) for piece in pieces)
        case Opaque(kind="citation", payload={"document_id": str(document), "quote": str(quote)}):
            yield Citation(document_id=document, quote=quote, index=index, wire=part.payload.get("wire"))
        case Opaque(kind=kind, payload=payload):
            yield UnknownEvent(kind=kind, payload=payload)
        case Media() | ToolResult():
            kind = "media" if isinstance(part, Media) else "tool_result"
            yield UnknownEvent(kind=kind, payload=msgspec.to_builtins(part))


def _pieces(text: str, size: int) -> Iterator[str]:
    step = size if size > 0 else max(len(text), 1)
    for start in range(0, len(text), step):
        yield text[start : start + step]


def tool_call(*, id: str, name: str, raw_arguments: str) -> ToolCall:
    """A tool call from the argument text of the wire; `arguments` is None when it is no JSON object.

    `raw_arguments` is kept only when writing `arguments` out again would not give the same text, so that
    nothing is lost. An empty text means no arguments, `{}`: so the APIs stream a call of a tool without
    parameters. An object that says a key twice is no object: two parsers could read it in two ways, and only
    one of them would have been checked.
    """
    if not raw_arguments:
        return ToolCall(id=id, name=name, arguments={})
    try:
        value = msgspec.json.decode(raw_arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return ToolCall(id=id, name=name, arguments=None, raw_arguments=raw_arguments)
    if arguments_json(value) == raw_arguments:
        return ToolCall(id=id, name=name, arguments=value)
    is_plain = not _has_duplicate_keys(raw_arguments)
    return ToolCall(id=id, name=name, arguments=value if is_plain else None, raw_arguments=raw_arguments)


def _has_duplicate_keys(text: str) -> bool:
    has_twice = False

    def check(pairs: list[tuple[str, Any]]) -> None:
        nonlocal has_twice
        has_twice = has_twice or len({key for key, _ in pairs}) < len(pairs)

    json.loads(text, object_pairs_hook=check)
    return has_twice


def arguments_json(arguments: dict[str, Any]) -> str:
    """Arguments as JSON text: compact, keys in the order they were given."""
    return msgspec.json.encode(arguments).decode()


def arguments_text(call: ToolCall) -> str:
    """The argument text of a call as the wire carries it."""
    if call.raw_arguments is not None:
        return call.raw_arguments
    return arguments_json(call.arguments or {})


def merged_usage(first: Usage, second: Usage) -> Usage:
    """Counts of the second where it tells them, else of the first."""
    names = Usage.__struct_fields__
    told = {name: getattr(second, name) for name in names}
    return Usage(**{n: getattr(first, n) if told[n] is None or told[n] is UNSET else told[n] for n in names})


def finish_reason(value: str | None, table: dict[str, FinishReason]) -> FinishReason:
    """The neutral word for a vendor's finish reason; what the table does not know is `unknown`."""
    return table.get(value or "", FinishReason.UNKNOWN)
