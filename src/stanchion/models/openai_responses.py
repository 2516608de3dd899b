"""OpenAI responses API, requests <-> Interaction: pure functions, no I/O.

Shapes: OpenAI API reference, responses (as typed by the `openai` client 3.x). `instructions` become a
leading system turn. Each item of the input is a part of a turn; items of built-in tools are `Opaque`, and the
words in them are listed in `Interaction.documents`, so that they are checked as retrieved text.

What the vendor stores cannot be seen here, so it cannot be guarded: `StateRules` says what becomes of
requests that point to it. Lost on the way out: `seed`, boundaries between system turns and `instructions`,
ids and statuses of items. `stop` cannot be said and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from stanchion.core.errors import UsageError
from stanchion.core.interaction import (
    Document,
    Interaction,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Role,
    Sampling,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
)
from stanchion.core.origin import Origin
from stanchion.models.events import arguments_text, tool_call
from stanchion.models.openai_responses_parts import (
    API,
    decode_content,
    decode_reasoning,
    encode_content,
    encode_part,
    encode_reasoning,
    is_own_reasoning,
    words_of,
)
from stanchion.models.wire import (
    JsonObject,
    Request,
    WireError,
    as_list,
    as_object,
    as_schema,
    as_text,
    maybe_flag,
    maybe_int,
    maybe_number,
    maybe_text,
    own_payload,
)

_ROLES = {
    "system": (Role.SYSTEM, Origin.SYSTEM),
    "developer": (Role.SYSTEM, Origin.SYSTEM),
    "user": (Role.USER, Origin.USER),
    "assistant": (Role.ASSISTANT, Origin.MODEL),
}
_UNDERSTOOD = frozenset(
    {"input", "instructions", "model", "tools", "stream", "temperature", "top_p", "max_output_tokens"}
)
_STORED = ("previous_response_id", "conversation", "prompt")
_STORED_ITEMS = frozenset({"item_reference", "compaction", "compaction_trigger"})
_OUTPUTS = ("function_call_output", "custom_tool_call_output")


class StateRules(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of requests that lean on what the vendor stores.

    `stored` is about `previous_response_id`, `conversation`, `prompt`, item references and compacted items:
    the words behind them never pass the guard. `background` answers are fetched later, past the guard.
    `store` `never` tells the vendor not to keep the answer; `as_asked` leaves it to the client.
    """

    stored: Literal["refuse", "pass"] = "refuse"
    background: Literal["refuse", "pass"] = "refuse"
    store: Literal["never", "as_asked"] = "never"


STRICT = StateRules()

# --- decoding -----------------------------------------------------------------------------------------------


def decode_request(body: Any, *, rules: StateRules = STRICT) -> Request:
    """A responses request; parameters that we have no word for are in `extras`.

    Raises:
        WireError: for a wrong shape, with its path, and for what the rules refuse.
    """
    fields = as_object(body, "body")
    _check_state(fields, rules)
    extras = {k: v for k, v in fields.items() if k not in _UNDERSTOOD and v is not None}
    if rules.store == "never":
        extras["store"] = False
    instructions = maybe_text(fields.get("instructions"), "instructions")
    leading: tuple[Message, ...] = ()
    if instructions:
        first = Text(text=instructions, origin=Origin.SYSTEM)
        leading = (Message(role=Role.SYSTEM, parts=(first,), said_as="instructions"),)
    messages = (*leading, *_decode_input(fields.get("input"), rules))
    tools = as_list(fields.get("tools"), "tools")
    interaction = Interaction(
        messages=messages,
        documents=tuple(_documents(messages)),
        tools=tuple(_decode_tool(as_object(t, f"tools[{n}]"), f"tools[{n}]") for n, t in enumerate(tools)),
        model=as_text(fields.get("model"), "model"),
        sampling=_decode_sampling(fields, extras),
    )
    is_stream = maybe_flag(fields.get("stream"), "stream")
    return Request(interaction=interaction, stream=is_stream, include_usage=True, extras=extras)


def _said(role: Role, *parts: Part) -> Message:
    return Message(role=role, parts=parts)


def _check_state(fields: JsonObject, rules: StateRules) -> None:
    if rules.stored == "refuse":
        for name in _STORED:
            if fields.get(name) is not None:
                raise _stored(name)
    if rules.store == "never" and fields.get("store") is True:
        raise WireError(
            "store: answers are not kept by the vendor, since what is kept cannot be checked here.",
            hint="Leave it out, and send the whole conversation as `input` each time.",
        )
    if rules.background == "refuse" and fields.get("background"):
        raise WireError(
            "background: answers that are fetched later are not supported.",
            hint="Leave `background` out and wait for the answer, or stream it.",
        )


def _stored(where: str) -> WireError:
    return WireError(
        f"{where}: what the vendor stores cannot be checked here, so it is not used.",
        hint="Send the whole conversation as `input` each time.",
    )


def _decode_input(value: Any, rules: StateRules) -> Iterator[Message]:
    if isinstance(value, str):
        yield _said(Role.USER, Text(text=value, origin=Origin.USER))
        return
    names: dict[str, str] = {}
    turns = (
        turn
        for number, item in enumerate(as_list(value, "input"))
        for turn in _decode_item(as_object(item, f"input[{number}]"), names, rules, f"input[{number}]")
    )
    for role, group in groupby(turns, key=lambda turn: turn.role):
        if role is not Role.ASSISTANT:
            yield from group
            continue
        yield Message(role=role, parts=tuple(part for turn in group for part in turn.parts))


def _decode_item(item: JsonObject, names: dict[str, str], rules: StateRules, where: str) -> Iterator[Message]:
    kind = maybe_text(item.get("type"), f"{where}.type") or (
        "message" if "role" in item else "item_reference"
    )
    if kind in _STORED_ITEMS and rules.stored == "refuse":
        raise _stored(f"{where} ({kind})")
    match kind:
        case "message":
            role_name = as_text(item.get("role"), f"{where}.role")
            if role_name not in _ROLES:
                raise WireError(f"{where}.role: unknown role.", hint=f"Allowed: {', '.join(_ROLES)}.")
            role, origin = _ROLES[role_name]
            parts = decode_content(item.get("content"), origin, f"{where}.content")
            said_as: Any = role_name if role is Role.SYSTEM else UNSET
            yield Message(role=role, parts=parts, said_as=said_as)
        case "function_call" | "custom_tool_call":
            call = decode_call(item, where)
            names[call.id] = call.name
            yield _said(Role.ASSISTANT, call)
        case "function_call_output" | "custom_tool_call_output":
            yield _decode_output(item, names, where)
        case "reasoning":
            yield _said(Role.ASSISTANT, decode_reasoning(item, where))
        case _:
            yield _said(Role.ASSISTANT, Opaque(kind=f"{API}:{kind}", payload=item))


def decode_call(item: JsonObject, where: str) -> ToolCall:
    """A call of a function, or of a custom tool, whose input is free text."""
    match item:
        case {"type": "function_call", "call_id": str(call_id), "name": str(name), "arguments": str(raw)}:
            return tool_call(id=call_id, name=name, raw_arguments=raw)
        case {"type": "custom_tool_call", "call_id": str(call_id), "name": str(name), "input": str(raw)}:
            return ToolCall(id=call_id, name=name, arguments=None, raw_arguments=raw)
        case _:
            raise WireError(f"{where}: a call needs `call_id`, `name` and `arguments` (or `input`).")


def _decode_output(item: JsonObject, names: Mapping[str, str], where: str) -> Message:
    call_id = as_text(item.get("call_id"), f"{where}.call_id")
    parts = decode_content(item.get("output"), Origin.TOOL_RESULT, f"{where}.output")
    words = "\n".join(part.text for part in parts if isinstance(part, Text))
    others = tuple(part for part in parts if not isinstance(part, Text))
    result = ToolResult(call_id=call_id, name=names.get(call_id, ""), text=words)
    return Message(role=Role.TOOL, parts=(result, *others))


def _documents(messages: Iterable[Message]) -> Iterator[Document]:
    for turn, message in enumerate(messages):
        for number, part in enumerate(message.parts):
            if isinstance(part, Opaque) and part.kind != "citation":
                words = "\n".join(words_of(part.payload))
                if words:
                    place = f"messages[{turn}].parts[{number}]"
                    yield Document(id=place, text=words, source=part.kind[:200])


def _decode_tool(tool: JsonObject, where: str) -> ToolDefinition:
    kind = as_text(tool.get("type"), f"{where}.type")
    description = maybe_text(tool.get("description"), f"{where}.description") or ""
    extra = Opaque(kind=f"{API}:tool", payload=tool)
    if kind == "function":  # strict unless it says otherwise, unlike in the other APIs
        known = {"type", "name", "description", "parameters", "strict"}
        is_plain = set(tool) <= known and tool.get("strict") is False
        return ToolDefinition(
            name=as_text(tool.get("name"), f"{where}.name"),
            description=description,
            parameters=as_schema(tool.get("parameters") or {}, f"{where}.parameters"),
            extra=None if is_plain else extra,
        )
    label = next((tool[key] for key in ("name", "server_label") if isinstance(tool.get(key), str)), "")
    name = label if kind == "custom" and label else f"{kind}.{label}" if label else kind
    return ToolDefinition(name=name, description=description, extra=extra)


def _decode_sampling(fields: JsonObject, extras: JsonObject) -> Sampling:
    choice: str | None = None
    match extras.get("tool_choice"):
        case str(word):
            choice = word
        case {"type": "function", "name": str(name), **rest} if not rest:
            choice = f"tool:{name}"
    schema: JsonObject | None = None
    called: str | None = None
    match extras.get("text"):
        case {
            "format": {
                "type": "json_schema",
                "name": str(name),
                "schema": dict(found),
                "strict": True,
                **rest,
            },
            **more,
        } if not rest and not more:
            schema, called = found, name
    if choice is not None:
        del extras["tool_choice"]
    if schema is not None:
        del extras["text"]
    return Sampling(
        temperature=maybe_number(fields.get("temperature"), "temperature"),
        top_p=maybe_number(fields.get("top_p"), "top_p"),
        max_output_tokens=maybe_int(fields.get("max_output_tokens"), "max_output_tokens"),
        tool_choice=choice,
        response_schema=schema,
        response_name=called,
    )


# --- encoding -----------------------------------------------------------------------------------------------


def encode_request(
    interaction: Interaction, *, stream: bool = False, extras: Mapping[str, Any] | None = None
) -> JsonObject:
    """The request body.

    Raises:
        UsageError: for a part, or a stop sequence, that this API cannot say.
    """
    sampling = interaction.sampling
    if sampling.stop:
        raise UsageError(f"stop sequences cannot be said in the {API} API.", hint="Leave them out.")
    messages = list(interaction.messages)
    body: JsonObject = {"model": interaction.model} if interaction.model else {}
    if messages and _is_plain_system(messages[0]):
        body["instructions"] = messages.pop(0).text
    custom = _custom_names(interaction.tools)
    body["input"] = [item for message in messages for item in _encode_message(message, custom)]
    if interaction.tools:
        body["tools"] = [_encode_tool(tool) for tool in interaction.tools]
    body |= _encode_sampling(sampling)
    if stream:
        body["stream"] = True
    return body | dict(extras or {})


def _is_plain_system(message: Message) -> bool:
    if message.role is not Role.SYSTEM or message.said_as not in (UNSET, "instructions"):
        return False
    return len(message.parts) == 1 and isinstance(message.parts[0], Text)


def _encode_sampling(sampling: Sampling) -> JsonObject:
    fields: JsonObject = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_output_tokens": sampling.max_output_tokens,
    }
    choice = sampling.tool_choice
    if choice is not None:
        name = choice.removeprefix("tool:")
        fields["tool_choice"] = choice if name == choice else {"type": "function", "name": name}
    if sampling.response_schema is not None:
        inner = {
            "type": "json_schema",
            "name": sampling.response_name or "response",
            "schema": sampling.response_schema,
            "strict": True,
        }
        fields["text"] = {"format": inner}
    return {name: value for name, value in fields.items() if value is not None}


def _custom_names(tools: Iterable[ToolDefinition]) -> frozenset[str]:
    kinds = {t.name: t.extra.payload.get("type") for t in tools if t.extra and t.extra.kind == f"{API}:tool"}
    return frozenset(name for name, kind in kinds.items() if kind == "custom")


def _encode_tool(tool: ToolDefinition) -> JsonObject:
    if tool.extra is not None and (tool.extra.kind == f"{API}:tool" or not tool.parameters):
        payload = dict(own_payload(tool.extra, api=API)[1])
        if payload.get("type") != "function":
            return payload | ({"description": tool.description} if tool.description else {})
    else:
        payload = {"type": "function", "strict": False}
    payload |= {"name": tool.name, "parameters": tool.parameters or {"type": "object", "properties": {}}}
    return payload | ({"description": tool.description} if tool.description else {})


def _encode_message(message: Message, custom: frozenset[str]) -> Iterator[JsonObject]:
    if message.role is Role.ASSISTANT:
        yield from _encode_assistant(message.parts, custom)
        return
    if message.role is Role.TOOL:
        yield from _encode_outputs(message, custom)
        return
    role = "developer" if message.said_as == "developer" else message.role.value
    yield {"role": role, "content": encode_content(message.parts)}


def _encode_assistant(parts: Iterable[Part], custom: frozenset[str]) -> Iterator[JsonObject]:
    """Items in the order of the parts; words that follow each other are one message."""
    members = [part for part in parts if not (isinstance(part, Opaque) and part.kind == "citation")]
    for is_said, group in groupby(members, key=lambda part: isinstance(part, Text | Refusal)):
        if is_said:
            yield {"role": "assistant", "content": _encode_said(list(group))}
            continue
        for part in group:
            item = _encode_item(part, custom)
            if item is not None:
                yield item


def _encode_said(parts: list[Part]) -> str | list[JsonObject]:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    said: list[JsonObject] = []
    for part in parts:
        if isinstance(part, Text):
            said.append({"type": "output_text", "text": part.text, "annotations": []})
        elif isinstance(part, Refusal):
            said.append({"type": "refusal", "refusal": part.text})
    return said


def _encode_item(part: Part, custom: frozenset[str]) -> JsonObject | None:
    match part:
        case ToolCall(id=call_id, name=name) if name in custom:
            raw = part.raw_arguments or ""
            return {"type": "custom_tool_call", "call_id": call_id, "name": name, "input": raw}
        case ToolCall(id=call_id, name=name):
            raw = arguments_text(part)
            return {"type": "function_call", "call_id": call_id, "name": name, "arguments": raw}
        case Reasoning():
            return encode_reasoning(part) if is_own_reasoning(part) else None
        case Opaque(kind=kind) if not kind.startswith(f"{API}:part."):
            return dict(own_payload(part, api=API)[1])
        case _:
            raise UsageError(f"a {type(part).__name__} part cannot stand in an answer of the {API} API.")


def _encode_outputs(message: Message, custom: frozenset[str]) -> Iterator[JsonObject]:
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    others = [part for part in message.parts if not isinstance(part, ToolResult)]
    if others and len(results) != 1:
        raise UsageError(f"a tool turn with media needs exactly one result to belong to in the {API} API.")
    for result in results:
        output: str | list[JsonObject] = result.text
        if others:
            output = [{"type": "input_text", "text": result.text}, *(encode_part(part) for part in others)]
        yield {"type": _OUTPUTS[result.name in custom], "call_id": result.call_id, "output": output}
