"""PydanticAI's messages as an interaction, and what a guard changed in them put back in its place."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from stanchion.core.codec import digest
from stanchion.core.errors import UsageError
from stanchion.core.interaction import (
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from stanchion.core.origin import Origin
from stanchion.guard.exchange import PreparedInteraction
from stanchion.integrations.rewriting import rewriting_of
from stanchion.models.events import tool_call

_INSTRUCTIONS = -1
Slots = dict[tuple[int, int], tuple[int, int, int]]


def arguments_of(args: Any) -> str:
    """The arguments of a call as JSON text."""
    if args is None:
        return "{}"
    return args if isinstance(args, str) else msgspec.json.encode(args).decode()


def _content(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()


def neutral_parts(part: Any) -> list[Part]:
    """The parts that one part of PydanticAI says; several where its content is a list."""
    kind = part.part_kind
    if kind == "system-prompt":
        return [Text(text=part.content, origin=Origin.SYSTEM)]
    if kind == "user-prompt":
        items = [part.content] if isinstance(part.content, str) else part.content
        return [_item(item) for item in items]
    if kind == "text":
        return [Text(text=part.content, origin=Origin.MODEL)]
    if kind == "thinking":
        is_redacted = not part.content and part.signature is not None
        return [Reasoning(text=part.content, signature=part.signature, redacted=is_redacted)]
    if kind == "tool-call":
        return [tool_call(id=part.tool_call_id, name=part.tool_name, raw_arguments=arguments_of(part.args))]
    if kind == "tool-return":
        text = _content(part.content)
        return [ToolResult(call_id=part.tool_call_id, name=part.tool_name, text=text)]
    if kind == "retry-prompt":
        text = part.model_response()
        return [ToolResult(call_id=part.tool_call_id, name=part.tool_name or "", text=text, is_error=True)]
    return [Opaque(kind=f"pydantic-ai:{kind}", payload=kind)]


def _item(item: Any) -> Part:
    if isinstance(item, str):
        return Text(text=item, origin=Origin.USER)
    kind = str(getattr(item, "kind", type(item).__name__))
    if hasattr(item, "content") and isinstance(item.content, str):
        return Text(text=item.content, origin=Origin.USER)
    if hasattr(item, "url") or hasattr(item, "data"):
        return Media(media_type=kind, origin=Origin.USER, digest=digest(str(item)), location=None)
    return Opaque(kind=f"pydantic-ai:{kind}", payload=kind)


def _role(message: Any) -> Role:
    if message.kind == "response":
        return Role.ASSISTANT
    kinds = {part.part_kind for part in message.parts}
    if kinds and kinds <= {"tool-return", "retry-prompt"}:
        return Role.TOOL
    return Role.SYSTEM if kinds == {"system-prompt"} else Role.USER


def conversation(messages: list[Any]) -> tuple[tuple[Message, ...], Slots]:
    """The messages, and for each part of them where it came from: message, part, item of its content."""
    said: list[Message] = []
    slots: Slots = {}
    for index, message in enumerate(messages):
        instructions = getattr(message, "instructions", None)
        if instructions:
            slots[len(said), 0] = (index, _INSTRUCTIONS, 0)
            said.append(Message(role=Role.SYSTEM, parts=(Text(text=instructions, origin=Origin.SYSTEM),)))
        parts: list[Part] = []
        for number, part in enumerate(message.parts):
            for item, neutral in enumerate(neutral_parts(part)):
                slots[len(said), len(parts)] = (index, number, item)
                parts.append(neutral)
        said.append(Message(role=_role(message), parts=tuple(parts)))
    return tuple(said), slots


def put(part: Any, item: int, new: Part) -> Any:
    """A part of PydanticAI that says something else."""
    match new:
        case ToolCall():
            return dataclasses.replace(part, args=new.arguments if new.arguments is not None else "{}")
        case ToolResult(text=text) | Reasoning(text=text):
            return dataclasses.replace(part, content=text)
        case Text(text=text) if part.part_kind != "user-prompt" or isinstance(part.content, str):
            return dataclasses.replace(part, content=text)
        case Text(text=text):
            items = list(part.content)
            old = items[item]
            items[item] = text if isinstance(old, str) else dataclasses.replace(old, content=text)
            return dataclasses.replace(part, content=items)
        case _:
            raise UsageError("a part was rewritten in a way that PydanticAI cannot say.")


def rewritten(messages: list[Any], slots: Slots, prepared: PreparedInteraction) -> list[Any]:
    """The messages as the guard left them.

    Raises:
        UsageError: for a change that they cannot say.
    """
    change = rewriting_of(prepared.original, prepared.interaction)
    if change.instruction:
        raise UsageError("a policy that adds to the system prompt cannot be used with PydanticAI.")
    out = list(messages)
    for place, new in change.parts.items():
        index, number, item = slots[place]
        if number == _INSTRUCTIONS:
            out[index] = dataclasses.replace(out[index], instructions=getattr(new, "text", ""))
            continue
        parts = list(out[index].parts)
        parts[number] = put(parts[number], item, new)
        out[index] = dataclasses.replace(out[index], parts=parts)
    return out
