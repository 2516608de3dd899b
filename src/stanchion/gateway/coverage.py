"""The surface matrix: for every API, streamed or not, where each kind of text comes before the guard.

Nothing here is declared by hand. A marker is put where a kind of text stands, written in the API's own words,
read back by the code that the gateway runs, and looked for among the fields that the guard checks. A marker
that is on the wire and in no field is a hole: `holes` lists them, and a test fails on the first one. A new
API, event or part without a rule shows up here by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import msgspec

from stanchion.core.decision import Surface
from stanchion.core.errors import UsageError
from stanchion.core.interaction import (
    Interaction,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Reply,
    Role,
    StreamEvent,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
    system,
    user,
)
from stanchion.core.origin import Origin
from stanchion.guard.fields import Field, TextField, reply_fields, request_fields
from stanchion.models import (
    anthropic,
    anthropic_answers,
    openai,
    openai_answers,
    openai_responses,
    openai_responses_answers,
)
from stanchion.models.events import Assembler, events_of
from stanchion.models.sse import SseParser
from stanchion.models.surface import SurfaceCodec
from stanchion.models.surfaces import SURFACES
from stanchion.models.wire import Request

MARKER = "zq7-marker-4711"
_CALL_ID = "call_1"


class Kind(StrEnum):
    """What a text can be in an exchange."""

    SYSTEM = "system prompt"
    USER = "user's words"
    HISTORY = "model's earlier words"
    HISTORY_REASONING = "model's earlier reasoning"
    HISTORY_CALL = "earlier tool arguments"
    TOOL_RESULT = "tool result"
    RETRIEVED = "retrieved document"
    TOOL_DEFINITION = "tool definition"
    TEXT = "answer's words"
    REASONING = "reasoning"
    REFUSAL = "refusal"
    TOOL_ARGUMENTS = "tool arguments"
    CITATION = "citation"


class Seen(StrEnum):
    """What became of a marker."""

    CHECKED = "checked"
    RULED = "by rule"
    NO_WORD = "no word for it"
    HOLE = "NOT SEEN"


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell: `surfaces` are the guard's surfaces on which the marker came up."""

    api: str
    kind: Kind
    is_answer: bool
    is_stream: bool
    seen: Seen
    surfaces: tuple[Surface, ...] = ()


class _Api(msgspec.Struct, frozen=True, kw_only=True):
    """How an API is written and read from the side that asks a provider."""

    encode_request: Callable[..., Any]
    decode_response: Callable[[Any], Reply]
    decoder: Callable[[], Any]
    retrieved: Mapping[str, Any]
    citation: Mapping[str, Any]


_LINK = {"url": "https://example.org/page", "title": MARKER, "start_index": 0, "end_index": 2}
_PAGE = {"type": "text", "media_type": "text/plain", "data": MARKER}


def _chat(part: Mapping[str, Any]) -> dict[str, Any]:
    """A request whose only message holds one part."""
    return {"model": "m", "messages": [{"role": "user", "content": [part]}]}


_APIS: Mapping[str, _Api] = {
    "openai.chat": _Api(
        encode_request=openai.encode_request,
        decode_response=openai_answers.decode_response,
        decoder=openai_answers.ChunkDecoder,
        retrieved=_chat({"type": "text", "text": MARKER}),
        citation={"type": "url_citation", "url_citation": _LINK},
    ),
    "openai.responses": _Api(
        encode_request=openai_responses.encode_request,
        decode_response=openai_responses_answers.decode_response,
        decoder=openai_responses_answers.ResponseDecoder,
        retrieved={
            "model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": MARKER}]}],
        },
        citation={"type": "url_citation", **_LINK},
    ),
    "anthropic.messages": _Api(
        encode_request=anthropic.encode_request,
        decode_response=anthropic_answers.decode_response,
        decoder=anthropic_answers.EventDecoder,
        retrieved=_chat({"type": "document", "source": _PAGE}) | {"max_tokens": 9},
        citation={
            "type": "char_location", "cited_text": MARKER, "document_index": 0, "document_title": "d1",
            "start_char_index": 0, "end_char_index": 5,
        },
    ),
}  # fmt: skip


def matrix() -> tuple[Cell, ...]:
    """Every cell, APIs in their order, requests before answers.

    Raises:
        UsageError: for an API that is served and that nobody taught this module to write.
    """
    unknown = sorted(name for name, codec in SURFACES.items() if codec.can_stream and name not in _APIS)
    if unknown:
        raise UsageError(f"no surface matrix can be made for {', '.join(unknown)}.")
    return tuple(cell for name in _APIS for cell in _cells(name, SURFACES[name]))


def holes() -> tuple[Cell, ...]:
    """The cells in which text passes that no check could see. There must be none."""
    return tuple(cell for cell in matrix() if cell.seen is Seen.HOLE)


def event_types() -> tuple[type, ...]:
    """Every type of the internal event model; each must be in `EVENT_SURFACES`."""
    return get_args(StreamEvent)


# What each internal event is to the guard; a type that is missing here fails the tests.
EVENT_SURFACES: Mapping[str, str] = {
    "TextDelta": "output, released by the watermark",
    "ReasoningDelta": "reasoning, released by the watermark",
    "RefusalDelta": "output, released by the watermark",
    "ArgumentDelta": "tool_call, checked as decoded values",
    "Citation": "output, checked with the whole answer",
    "UsageEvent": "counts, and names of a provider's tier and configuration: no text",
    "End": "a word of a fixed list: no text",
    "UnknownEvent": "passed or blocked by the policy's rule for opaque parts, and counted",
}


def _cells(name: str, codec: SurfaceCodec) -> Iterator[Cell]:
    api = _APIS[name]
    for kind, interaction in _requests():
        seen, surfaces = _asked(api, codec, interaction)
        yield Cell(api=name, kind=kind, is_answer=False, is_stream=False, seen=seen, surfaces=surfaces)
    seen, surfaces = _found(request_fields(codec.decode_request(api.retrieved).interaction))
    yield Cell(api=name, kind=Kind.RETRIEVED, is_answer=False, is_stream=False, seen=seen, surfaces=surfaces)
    for kind, parts in _answers(api):
        reply = Reply(message=Message(role=Role.ASSISTANT, parts=parts), model="m")
        for is_stream in (False, True):
            seen, surfaces = _answered(api, codec, reply, is_stream=is_stream)
            yield Cell(api=name, kind=kind, is_answer=True, is_stream=is_stream, seen=seen, surfaces=surfaces)


def _requests() -> Iterator[tuple[Kind, Interaction]]:
    call = ToolCall(id=_CALL_ID, name="look_up", arguments={"what": "x"})
    marked = ToolCall(id=_CALL_ID, name="look_up", arguments={"what": MARKER})
    result = ToolResult(call_id=_CALL_ID, name="look_up", text="fine")
    tool = ToolDefinition(name="look_up", description="Looks up.", parameters={"type": "object"})

    def said(*parts: Part) -> Message:
        return Message(role=Role.ASSISTANT, parts=parts)

    def answered(part: ToolResult) -> Message:
        return Message(role=Role.TOOL, parts=(part,))

    def asked(*messages: Message, **more: Any) -> Interaction:
        return Interaction(messages=(user("Hello."), *messages), model="m", **more)

    words = Text(text=MARKER, origin=Origin.MODEL)
    yield Kind.SYSTEM, Interaction(messages=(system(MARKER), user("Hello.")), model="m")
    yield Kind.USER, asked(user(MARKER))
    yield Kind.HISTORY, asked(said(words), user("Go on."))
    yield Kind.HISTORY_REASONING, asked(said(Reasoning(text=MARKER, signature="s"), words), user("Go on."))
    yield Kind.HISTORY_CALL, asked(said(marked), answered(result), tools=(tool,))
    told = ToolResult(call_id=_CALL_ID, name="look_up", text=MARKER)
    yield Kind.TOOL_RESULT, asked(said(call), answered(told), tools=(tool,))
    described = ToolDefinition(name="look_up", description=MARKER, parameters={"type": "object"})
    yield Kind.TOOL_DEFINITION, asked(tools=(described,))


def _answers(api: _Api) -> Iterator[tuple[Kind, tuple[Part, ...]]]:
    words = Text(text="As the page says.", origin=Origin.MODEL)
    yield Kind.TEXT, (Text(text=MARKER, origin=Origin.MODEL),)
    yield Kind.REASONING, (Reasoning(text=MARKER), words)
    yield Kind.REFUSAL, (Refusal(text=MARKER),)
    yield Kind.TOOL_ARGUMENTS, (ToolCall(id=_CALL_ID, name="look_up", arguments={"what": [MARKER]}),)
    told = {"document_id": "d1", "quote": MARKER, "wire": dict(api.citation)}
    yield Kind.CITATION, (words, Opaque(kind="citation", payload=told))


def _asked(api: _Api, codec: SurfaceCodec, interaction: Interaction) -> tuple[Seen, tuple[Surface, ...]]:
    try:
        body = api.encode_request(interaction)
    except UsageError:
        return Seen.NO_WORD, ()
    wire = msgspec.json.encode(body)
    if MARKER.encode() not in wire:
        return Seen.NO_WORD, ()
    return _found(request_fields(codec.decode_request(msgspec.json.decode(wire)).interaction))


def _answered(
    api: _Api, codec: SurfaceCodec, reply: Reply, *, is_stream: bool
) -> tuple[Seen, tuple[Surface, ...]]:
    asked = Request(interaction=Interaction(messages=(user("Hello."),), model="m"), stream=is_stream)
    if not is_stream:
        wire = msgspec.json.encode(codec.encode_reply(reply, asked=asked, response_id="r1", created=1))
        if MARKER.encode() not in wire:
            return Seen.NO_WORD, ()
        return _found(_answer_fields(api.decode_response(msgspec.json.decode(wire))))
    encoder = codec.stream_encoder(asked=asked, response_id="r1", created=1)
    frames = [frame for event in events_of(reply, chunk_chars=5) for frame in encoder.feed(event)]
    frames += encoder.finish()
    events = list(_read(api.decoder(), b"".join(frames)))
    assembler = Assembler()
    for event in events:
        assembler.feed(event)
    seen, surfaces = _found(_answer_fields(assembler.reply()))
    if seen is not Seen.HOLE:
        return seen, surfaces
    is_said = MARKER in _joined(frames) or any(MARKER in str(event) for event in events)
    return (Seen.HOLE, ()) if is_said else (Seen.NO_WORD, ())


def _answer_fields(reply: Reply) -> Iterator[Field]:
    return reply_fields(reply.message)


def _read(decoder: Any, data: bytes) -> Iterator[StreamEvent]:
    for message in SseParser().feed(data):
        if message.data.strip() == "[DONE]":
            yield from decoder.finish()
            return
        yield from decoder.feed(msgspec.json.decode(message.data))


def _joined(frames: list[bytes]) -> str:
    """Every text of the frames, pieces put together."""
    texts: list[str] = []

    def collect(value: Any) -> None:
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            for one in value.values():
                collect(one)
        elif isinstance(value, list):
            for one in value:
                collect(one)

    for message in SseParser().feed(b"".join(frames)):
        if message.data.strip() != "[DONE]":
            collect(msgspec.json.decode(message.data))
    return "".join(texts)


def _found(fields: Iterator[Field]) -> tuple[Seen, tuple[Surface, ...]]:
    """Where the marker came up; `RULED` when it stands in a part that a rule passes or blocks whole."""
    listed = list(fields)
    checked = [f.surface for f in listed if isinstance(f, TextField) and MARKER in f.text]
    if checked:
        return Seen.CHECKED, tuple(dict.fromkeys(checked))
    ruled = [f.surface for f in listed if not isinstance(f, TextField)]
    if ruled:
        return Seen.RULED, tuple(dict.fromkeys(ruled))
    return Seen.HOLE, ()


def as_markdown() -> str:
    """The matrix as the reference page shows it."""
    cells = {(c.kind, c.api, c.is_answer, c.is_stream): c for c in matrix()}
    kinds = list(dict.fromkeys((c.kind, c.is_answer) for c in matrix()))
    lines = ["## Requests", "", f"| | {' | '.join(_APIS)} |", f"|---|{'---|' * len(_APIS)}"]
    for kind, is_answer in kinds:
        if not is_answer:
            lines.append(_line(kind.value, [cells[kind, api, False, False] for api in _APIS]))
    heads = [f"{api}, {mode}" for api in _APIS for mode in ("whole", "streamed")]
    lines += ["", "## Answers", "", f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for kind, is_answer in kinds:
        if is_answer:
            row = [cells[kind, api, True, is_stream] for api in _APIS for is_stream in (False, True)]
            lines.append(_line(kind.value, row))
    lines += ["", "## Events", "", "| event | to the guard |", "|---|---|"]
    lines += [f"| `{name}` | {what} |" for name, what in EVENT_SURFACES.items()]
    return "\n".join(lines) + "\n"


def _line(name: str, cells: list[Cell]) -> str:
    shown = [
        f"`{', '.join(s.value for s in c.surfaces)}`" if c.seen is Seen.CHECKED else c.seen.value
        for c in cells
    ]
    return f"| {name} | {' | '.join(shown)} |"


def main() -> None:
    """Write the reference page to the file that is named."""
    Path(sys.argv[1]).write_text(f"{_PAGE_HEAD}\n{as_markdown()}", encoding="utf-8")


_PAGE_HEAD = """# The surface matrix

Which text comes before the guard, on which surface, by API and by way of answering. This page is made by
`python -m stanchion.gateway.coverage docs/reference/surface-matrix.md`: each cell is tried, none is declared.
A marker is written in the API's own words, read back by the code that the gateway runs, and looked for among
what the guard checks.

* `input`, `output`, ...: the surface on which the text is checked.
* by rule: a part without readable words; the policy's `opaque` or `media` rule passes or blocks it whole.
* no word for it: the API has no place for this kind of text, so none can come that way.
* NOT SEEN: a hole. There is none, and a test fails on the first one.

A document within a user's message is the user's words to every API that cannot say otherwise.
"""

if __name__ == "__main__":
    main()
