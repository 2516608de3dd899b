"""Every text of an exchange with its surface and its place, and the way to put another text there.

A field's name is its path: `messages[2].parts[0]`, `messages[3].parts[1].arguments.to`, `documents[0]`,
`tools[1].description`, `reply.parts[0]`. Parts that hold no text that a check could read are listed apart.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from stanchion.core.codec import digest_bytes
from stanchion.core.decision import Surface
from stanchion.core.interaction import (
    Interaction,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Sampling,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
)
from stanchion.core.origin import Origin
from stanchion.guard.joined_messages import Piece, Said, joined_messages, pieces_of

_M = TypeVar("_M", Interaction, Message)
_SURFACE_OF = {
    Origin.SYSTEM: Surface.SYSTEM,
    Origin.USER: Surface.INPUT,
    Origin.MODEL: Surface.INPUT,
    Origin.UNKNOWN: Surface.INPUT,
    Origin.RETRIEVED: Surface.RETRIEVED,
    Origin.MEMORY: Surface.RETRIEVED,
    Origin.TOOL_RESULT: Surface.TOOL_RESULT,
    Origin.TOOL_DEFINITION: Surface.TOOL_DEFINITION,
}
_MAX_DEPTH = 200


class TextField(msgspec.Struct, frozen=True, kw_only=True):
    """A text and its place. One that cannot be rewritten is blocked where another would be redacted.

    A text that runs over several parts, or over several messages, names them in `pieces`: its parts are
    checked one by one as well, and what is rewritten of it is rewritten in them.
    """

    field: str
    surface: Surface
    origin: Origin
    text: str
    is_rewritable: bool = True
    pieces: tuple[Piece, ...] = ()


class UncheckedPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part without readable text: `media`, `opaque` or `redacted_reasoning`.

    `media` is the part itself where there is one, `fault` why no text could be read from it.
    """

    field: str
    surface: Surface
    origin: Origin
    kind: str
    media: Media | None = None
    fault: str = ""


Field = TextField | UncheckedPart


def request_fields(interaction: Interaction) -> Iterator[Field]:
    """Everything the model would read: messages in order, then documents and tool definitions."""
    for number, message in enumerate(interaction.messages):
        place = f"messages[{number}]"
        if message.name:
            yield TextField(
                field=f"{place}.name", surface=Surface.INPUT, origin=Origin.UNKNOWN, text=message.name
            )
        if len(message.parts) == 1:  # nothing to be read over several parts
            part = message.parts[0]
            if isinstance(part, Text):
                yield _text(part, f"{place}.parts[0]")
            else:
                yield from _said(part, f"{place}.parts[0]")
            continue
        said = [_said(part, f"{place}.parts[{index}]") for index, part in enumerate(message.parts)]
        yield from _with_joined(message.parts, said)
    if len(interaction.messages) > 1:
        yield from _over_messages(interaction.messages)
    for number, document in enumerate(interaction.documents):
        yield TextField(
            field=f"documents[{number}]",
            surface=Surface.RETRIEVED,
            origin=Origin.RETRIEVED,
            text=document.text,
        )
    for number, tool in enumerate(interaction.tools):
        yield from _definition(tool, f"tools[{number}]")


def reply_fields(message: Message) -> Iterator[Field]:
    """Everything the model says: words, thoughts and tool calls."""
    if len(message.parts) == 1:
        yield from _answered(message.parts[0], "reply.parts[0]")
        return
    said = [_answered(part, f"reply.parts[{index}]") for index, part in enumerate(message.parts)]
    yield from _with_joined(message.parts, said)


def joined_name(field: str) -> str:
    """The field of a text that runs over several parts, by the first of them: `reply.parts[0].joined`."""
    return f"{field}.joined"


def _with_joined(parts: Sequence[Part], said: Sequence[Iterator[Field]]) -> Iterator[Field]:
    """The fields of all parts, then those texts that a reader, or the model, reads over several of them.

    What stands between two texts (a call, a picture) does not keep them apart: others leave it out.
    """
    groups: dict[tuple[str, Surface, Origin], list[TextField]] = {}
    for part, fields in zip(parts, said, strict=True):
        kind = _reading(part)
        for field in fields:
            yield field
            if kind and isinstance(field, TextField):
                groups.setdefault((kind, field.surface, field.origin), []).append(field)
    for (_, surface, origin), texts in groups.items():
        if len(texts) > 1:
            yield TextField(
                field=joined_name(texts[0].field),
                surface=surface,
                origin=origin,
                text="".join([one.text for one in texts]),
                is_rewritable=all(one.is_rewritable for one in texts),
                pieces=pieces_of([Said(one.field, one.text) for one in texts]),
            )


def _over_messages(messages: Sequence[Message]) -> Iterator[TextField]:
    """The texts over consecutive messages of one role."""
    first = 0
    for number in range(1, len(messages) + 1):
        if number < len(messages) and messages[number].role is messages[first].role:
            continue
        if number - first > 1:
            yield from _over_run(range(first, number), messages)
        first = number


def _over_run(run: range, messages: Sequence[Message]) -> Iterator[TextField]:
    """The texts over the messages of one role; those of one kind, surface and origin together."""
    groups: dict[tuple[str, Surface, Origin], list[list[TextField]]] = {}
    for number in run:
        spoken: dict[tuple[str, Surface, Origin], list[TextField]] = {}
        for index, part in enumerate(messages[number].parts):
            kind = _reading(part)
            for field in _said(part, f"messages[{number}].parts[{index}]") if kind else ():
                if isinstance(field, TextField):
                    spoken.setdefault((kind, field.surface, field.origin), []).append(field)
        for key, fields in spoken.items():
            groups.setdefault(key, []).append(fields)
    for (_, surface, origin), said in groups.items():
        parts = [[Said(one.field, one.text) for one in fields] for fields in said]
        can_rewrite = all(one.is_rewritable for fields in said for one in fields)
        for joined in joined_messages(parts):
            yield TextField(
                field=joined.field,
                surface=surface,
                origin=origin,
                text=joined.text,
                is_rewritable=can_rewrite,
                pieces=joined.pieces,
            )


def _reading(part: Part) -> str:
    """What a reader takes for one text with others of its kind; empty for a part that stands alone."""
    match part:
        case Text(origin=Origin.RETRIEVED | Origin.MEMORY, source=source):
            return f"from {source}" if source else ""  # different documents are different texts
        case Text() | Refusal():
            return "words"
        case Reasoning():
            return "reasoning"
        case ToolResult(call_id=call):
            return f"result {call}"
        case _:
            return ""


def _answered(part: Part, place: str) -> Iterator[Field]:
    match part:
        case ToolCall():
            yield from call_fields(part, place, Surface.TOOL_CALL)
        case Reasoning():
            yield from _reasoning(part, place, Surface.REASONING)
        case Text() | Refusal():
            yield TextField(field=place, surface=Surface.OUTPUT, origin=Origin.MODEL, text=part.text)
        case ToolResult():
            yield TextField(field=place, surface=Surface.OUTPUT, origin=part.origin, text=part.text)
        case Media():
            yield from _media(part, place, Surface.OUTPUT)
        case Opaque(kind="citation"):
            words = citation_words(part.payload)
            yield TextField(field=place, surface=Surface.OUTPUT, origin=Origin.MODEL, text=words)
        case Opaque():
            yield UncheckedPart(field=place, surface=Surface.OUTPUT, origin=Origin.MODEL, kind="opaque")


def _text(part: Text, place: str) -> TextField:
    return TextField(field=place, surface=_SURFACE_OF[part.origin], origin=part.origin, text=part.text)


def _said(part: Part, place: str) -> Iterator[Field]:
    match part:
        case Text():
            yield _text(part, place)
        case ToolResult():
            surface = Surface.TOOL_RESULT if part.origin.is_untrusted else _SURFACE_OF[part.origin]
            yield TextField(field=place, surface=surface, origin=part.origin, text=part.text)
        case Refusal():
            yield TextField(field=place, surface=Surface.INPUT, origin=Origin.MODEL, text=part.text)
        case Reasoning():
            yield from _reasoning(part, place, Surface.INPUT)
        case ToolCall():
            yield from call_fields(part, place, Surface.INPUT)
        case Media():
            yield from _media(part, place, _SURFACE_OF[part.origin])
        case Opaque(kind="citation"):
            words = citation_words(part.payload)
            yield TextField(
                field=place, surface=Surface.INPUT, origin=Origin.MODEL, text=words, is_rewritable=False
            )
        case Opaque():
            yield UncheckedPart(field=place, surface=Surface.INPUT, origin=Origin.UNKNOWN, kind="opaque")


def citation_words(payload: Any) -> str:
    """Every word of a citation: document, quote, and the vendor's own form of it."""
    said = payload if isinstance(payload, Mapping) else {"wire": payload}
    wire = [text for _, text, _ in json_texts(said.get("wire"), "wire")]
    return "\n".join([str(said.get("document_id", "")), str(said.get("quote", "")), *wire])


def _media(part: Media, place: str, surface: Surface) -> Iterator[Field]:
    """The part itself, and the words beside it, which a model reads as well."""
    yield UncheckedPart(field=place, surface=surface, origin=part.origin, kind="media", media=part)
    words = [(f"{place}.name", part.name or "")]
    if part.extra is not None:
        words += [(path, text) for path, text, _ in json_texts(part.extra.payload, f"{place}.extra")]
    for path, text in words:
        if text:
            yield TextField(field=path, surface=surface, origin=part.origin, text=text, is_rewritable=False)


def _reasoning(part: Reasoning, place: str, surface: Surface) -> Iterator[Field]:
    if part.redacted:
        yield UncheckedPart(field=place, surface=surface, origin=Origin.MODEL, kind="redacted_reasoning")
    else:
        yield TextField(
            field=place,
            surface=surface,
            origin=Origin.MODEL,
            text=part.text,
            is_rewritable=part.signature is None or surface is Surface.REASONING,
        )


def call_fields(part: ToolCall, place: str, surface: Surface) -> Iterator[TextField]:
    """The arguments of a call: every text and number of a JSON object, or the source as it came."""
    if part.arguments is None:
        text = part.raw_arguments or ""
        yield TextField(field=f"{place}.raw_arguments", surface=surface, origin=Origin.MODEL, text=text)
        return
    for path, text, is_value in json_texts(part.arguments, f"{place}.arguments"):
        yield TextField(field=path, surface=surface, origin=Origin.MODEL, text=text, is_rewritable=is_value)


def _definition(tool: ToolDefinition, place: str) -> Iterator[Field]:
    texts = [(f"{place}.name", tool.name, False), (f"{place}.description", tool.description, True)]
    texts += json_texts(tool.parameters, f"{place}.parameters")
    if tool.extra is not None:  # vendor fields: read like the rest, but never rewritten
        texts += [(path, text, False) for path, text, _ in json_texts(tool.extra.payload, f"{place}.extra")]
    for path, text, is_value in texts:
        if text:
            yield TextField(
                field=path,
                surface=Surface.TOOL_DEFINITION,
                origin=Origin.TOOL_DEFINITION,
                text=text,
                is_rewritable=is_value,
            )


def json_texts(value: Any, place: str) -> Iterator[tuple[str, str, bool]]:
    """The texts and numbers of a JSON value: (path, text, whether it is a value); keys are no values.

    Deeper than 200 levels nothing is read; the pipeline refuses such values before.
    """
    todo: deque[tuple[Any, str, int]] = deque([(value, place, 0)])
    while todo:
        node, path, depth = todo.popleft()
        if depth > _MAX_DEPTH:
            continue
        if isinstance(node, str):
            yield path, node, True
        elif isinstance(node, int | float) and not isinstance(node, bool):
            yield path, str(node), True
        elif isinstance(node, list | tuple):
            todo.extend((item, f"{path}[{i}]", depth + 1) for i, item in enumerate(node))
        elif isinstance(node, dict):
            if node:
                yield f"{path}{{keys}}", "\n".join(str(key) for key in node), False
            todo.extend((item, child_path(path, str(key)), depth + 1) for key, item in node.items())


def child_path(path: str, key: str) -> str:
    """The path of a key below a path: `.key`, or `["a key"]` when it is no plain name."""
    return f"{path}.{key}" if key.isidentifier() else f"{path}[{msgspec.json.encode(key).decode()}]"


def json_depth(value: Any) -> int:
    """How deep lists and mappings are nested; 0 for a plain value."""
    deepest, todo = 0, [(value, 0)]
    while todo:
        node, depth = todo.pop()
        deepest = max(deepest, depth)
        if isinstance(node, dict):
            todo.extend((item, depth + 1) for item in node.values())
        elif isinstance(node, list | tuple):
            todo.extend((item, depth + 1) for item in node)
    return deepest


def rewrite_request(interaction: Interaction, texts: Mapping[str, str]) -> Interaction:
    """The interaction with other texts at the named fields; the very same object when there are none."""
    if not texts:
        return interaction
    return msgspec.structs.replace(
        interaction,
        messages=tuple(
            _rewrite_message(message, f"messages[{i}]", texts)
            for i, message in enumerate(interaction.messages)
        ),
        documents=tuple(
            msgspec.structs.replace(document, text=texts[f"documents[{i}]"], digest="")
            if f"documents[{i}]" in texts
            else document
            for i, document in enumerate(interaction.documents)
        ),
        sampling=_rewrite_sampling(interaction.sampling, texts),
        tools=tuple(
            msgspec.structs.replace(
                tool,
                description=texts.get(f"tools[{i}].description", tool.description),
                parameters=rewrite_json(tool.parameters, f"tools[{i}].parameters", texts),
            )
            for i, tool in enumerate(interaction.tools)
        ),
    )


def _rewrite_sampling(sampling: Sampling, texts: Mapping[str, str]) -> Sampling:
    place = "sampling.response_schema"
    if sampling.response_schema is None or not any(field.startswith(place) for field in texts):
        return sampling
    schema = rewrite_json(sampling.response_schema, place, texts)
    return msgspec.structs.replace(sampling, response_schema=schema)


def rewrite_reply(message: Message, texts: Mapping[str, str]) -> Message:
    """The reply's message with other texts at the named fields."""
    return _rewrite_message(message, "reply", texts) if texts else message


def _rewrite_message(message: Message, place: str, texts: Mapping[str, str]) -> Message:
    if not any(field.startswith(f"{place}.") for field in texts):
        return message
    parts = tuple(_rewrite_part(p, f"{place}.parts[{i}]", texts) for i, p in enumerate(message.parts))
    return msgspec.structs.replace(message, parts=parts, name=texts.get(f"{place}.name", message.name))


def _rewrite_part(part: Part, place: str, texts: Mapping[str, str]) -> Part:
    match part:
        case Text() | Refusal() | ToolResult():
            return msgspec.structs.replace(part, text=texts[place]) if place in texts else part
        case Reasoning():
            # a signature vouches for the words as they were
            return (
                msgspec.structs.replace(part, text=texts[place], signature=None) if place in texts else part
            )
        case ToolCall():
            return rewrite_call(part, place, texts)
        case Media():
            text = texts.get(f"{place}.extracted")
            return part if text is None else _embedded_text(part, text)
        case Opaque(kind="citation") if place in texts:
            # a citation in which a word had to go keeps none
            return Opaque(kind="citation", payload={"document_id": "", "quote": "", "wire": None})
        case _:
            return part


def _embedded_text(part: Media, text: str) -> Media:
    """A text file with other words in it."""
    data = text.encode("utf-8", "replace")
    location = f"data:{part.media_type};base64,{base64.b64encode(data).decode('ascii')}"
    return msgspec.structs.replace(part, location=location, digest=digest_bytes(data))


def rewrite_call(part: ToolCall, place: str, texts: Mapping[str, str]) -> ToolCall:
    """The call with other texts at the named fields."""
    if part.arguments is None:
        raw = texts.get(f"{place}.raw_arguments", part.raw_arguments)
        return msgspec.structs.replace(part, raw_arguments=raw)
    arguments = rewrite_json(part.arguments, f"{place}.arguments", texts)
    if arguments == part.arguments:
        return part
    return msgspec.structs.replace(part, arguments=arguments, raw_arguments=None)


def rewrite_json(value: Any, place: str, texts: Mapping[str, str]) -> Any:
    """A JSON value with other texts at the named paths; a number that is rewritten becomes a text."""
    if isinstance(value, dict):
        return {key: rewrite_json(v, child_path(place, str(key)), texts) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [rewrite_json(item, f"{place}[{i}]", texts) for i, item in enumerate(value)]
    return texts.get(place, value)
