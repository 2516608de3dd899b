"""OpenAI chat completions <-> Interaction: pure functions, no I/O.

Field names: OpenAI API reference, chat completions (as typed by the `openai` client 3.x), and
`reasoning_content` / `reasoning` as compatible servers write them. What the wire cannot say about an
interaction is lost on the way out: document list, origins other than the role's own, `is_error` of a tool
result, signatures of reasoning. What we do not understand is kept as `Opaque` and sent back as it was.

`Sampling.tool_choice` is `auto`, `none`, `required`, or `tool:` and the tool's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, assert_never

import msgspec
from msgspec import UNSET

from stanchion.core.errors import UsageError
from stanchion.core.interaction import (
    Interaction,
    Media,
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
from stanchion.models.openai_citations import citation_part
from stanchion.models.openai_files import KEPT, decode_file, encode_file
from stanchion.models.wire import (
    JsonObject,
    Request,
    WireError,
    as_list,
    as_object,
    as_schema,
    as_text,
    data_url,
    location_of,
    maybe_flag,
    maybe_int,
    maybe_number,
    maybe_text,
    media_from_url,
    own_payload,
    split_data_url,
    texts,
)

API = "openai"
_ROLES = {
    "system": (Role.SYSTEM, Origin.SYSTEM),
    "developer": (Role.SYSTEM, Origin.SYSTEM),
    "user": (Role.USER, Origin.USER),
    "assistant": (Role.ASSISTANT, Origin.MODEL),
    "tool": (Role.TOOL, Origin.TOOL_RESULT),
}
_REFUSED = {
    "functions": "Use `tools`: the deprecated form is not accepted, so that no definition goes unchecked.",
    "function_call": "Use `tool_choice`: the deprecated form is not accepted.",
}
_UNDERSTOOD = frozenset(
    {"messages", "model", "tools", "stream", "stream_options", "n", "temperature", "top_p", "seed", "stop"}
    | {"max_tokens", "max_completion_tokens"}
)


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """How a server wants things said that not every compatible server understands.

    `with_reasoning` sends the model's earlier reasoning as `reasoning_content`, which OpenAI itself does not
    take. Servers that do not know `max_completion_tokens` want `max_tokens`. Calls of `custom_tools` carry
    free text instead of JSON.
    """

    with_reasoning: bool = False
    max_tokens_field: str = "max_completion_tokens"
    custom_tools: frozenset[str] = frozenset()


PLAIN = Style()
_NO_SAMPLING = Sampling()

# --- requests -----------------------------------------------------------------------------------------------


def decode_request(body: Any) -> Request:
    """A chat completions request.

    Raises:
        WireError: for a wrong shape, with its path; for more than one choice (`n`); for deprecated functions.
    """
    fields = as_object(body, "body")
    for name, advice in _REFUSED.items():
        if fields.get(name) is not None:
            raise WireError(f"{name}: not supported.", hint=advice)
    if maybe_int(fields.get("n"), "n") not in (None, 1):
        raise WireError("n: only one choice per request is supported.", hint="Send the request n times.")
    extras = {k: v for k, v in fields.items() if k not in _UNDERSTOOD and v is not None}
    options = as_object(fields.get("stream_options") or {}, "stream_options")
    interaction = Interaction(
        messages=tuple(_decode_messages(as_list(fields.get("messages"), "messages"))),
        tools=tuple(
            _decode_tool(t, f"tools[{n}]") for n, t in enumerate(as_list(fields.get("tools"), "tools"))
        ),
        model=as_text(fields.get("model"), "model"),
        sampling=_decode_sampling(fields, extras),
    )
    return Request(
        interaction=interaction,
        stream=maybe_flag(fields.get("stream"), "stream"),
        include_usage=options.get("include_usage") is True,
        extras=extras,
    )


def encode_request(
    interaction: Interaction,
    *,
    stream: bool = False,
    extras: Mapping[str, Any] | None = None,
    style: Style = PLAIN,
) -> JsonObject:
    """The request body; a stream always asks for its usage.

    Raises:
        UsageError: for a part that this API cannot say.
    """
    custom = _custom_names(interaction.tools) if interaction.tools else None
    if custom:
        style = msgspec.structs.replace(style, custom_tools=style.custom_tools | custom)
    body: JsonObject = {"model": interaction.model} if interaction.model else {}
    said: list[JsonObject] = []
    for message in interaction.messages:
        said += _encode_message(message, style)
    body["messages"] = said
    if interaction.tools:
        body["tools"] = [_encode_tool(tool) for tool in interaction.tools]
    if interaction.sampling != _NO_SAMPLING:
        body |= _encode_sampling(interaction.sampling, style.max_tokens_field)
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if extras:
        body |= extras
    return body


def _decode_sampling(fields: JsonObject, extras: JsonObject) -> Sampling:
    """Known parameters; a tool choice or response format that says more than we can stays in `extras`."""
    choice = _simple_choice(fields.get("tool_choice"))
    schema, name = strict_schema(fields.get("response_format"))
    if choice is not None:
        extras.pop("tool_choice")
    if schema is not None:
        extras.pop("response_format")
    limits = [maybe_int(fields.get(k), k) for k in ("max_completion_tokens", "max_tokens")]
    return Sampling(
        temperature=maybe_number(fields.get("temperature"), "temperature"),
        top_p=maybe_number(fields.get("top_p"), "top_p"),
        max_output_tokens=next((limit for limit in limits if limit is not None), None),
        seed=maybe_int(fields.get("seed"), "seed"),
        stop=texts(fields.get("stop"), "stop"),
        tool_choice=choice,
        response_schema=schema,
        response_name=name,
    )


def _simple_choice(value: Any) -> str | None:
    match value:
        case str():
            return value
        case {"type": "function", "function": {"name": str(name)}}:
            return f"tool:{name}"
        case _:
            return None


def strict_schema(value: Any) -> tuple[JsonObject | None, str | None]:
    """The schema of a wanted form, and its name; nothing for one that says more (`description`) or less."""
    match value:
        case {
            "type": "json_schema",
            "json_schema": {"schema": dict(schema), "name": str(name), "strict": True, **rest},
        } if not rest:
            return schema, name
        case _:
            return None, None


def _encode_sampling(sampling: Sampling, max_tokens_field: str) -> JsonObject:
    fields: JsonObject = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        max_tokens_field: sampling.max_output_tokens,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
    }
    choice = sampling.tool_choice
    if choice is not None:
        name = choice.removeprefix("tool:")
        fields["tool_choice"] = choice if name == choice else {"type": "function", "function": {"name": name}}
    if sampling.response_schema is not None:
        name = sampling.response_name or "response"
        inner = {"name": name, "schema": sampling.response_schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": inner}
    return {name: value for name, value in fields.items() if value is not None}


# --- tools --------------------------------------------------------------------------------------------------


def _decode_tool(value: Any, where: str) -> ToolDefinition:
    tool = as_object(value, where)
    kind = tool.get("type")
    inner = as_object(tool.get(kind) if isinstance(kind, str) else None, f"{where}.{kind}")
    if kind != "function":
        name = as_text(inner.get("name"), f"{where}.{kind}.name")
        description = maybe_text(inner.get("description"), f"{where}.{kind}.description") or ""
        return ToolDefinition(
            name=name, description=description, extra=Opaque(kind="openai:tool", payload=tool)
        )
    has_more = set(tool) > {"type", "function"} or not set(inner) <= {"name", "description", "parameters"}
    return ToolDefinition(
        name=as_text(inner.get("name"), f"{where}.function.name"),
        description=maybe_text(inner.get("description"), f"{where}.function.description") or "",
        parameters=as_schema(inner.get("parameters") or {}, f"{where}.function.parameters"),
        extra=Opaque(kind="openai:tool", payload=tool) if has_more else None,
    )


def _custom_names(tools: Iterable[ToolDefinition]) -> frozenset[str]:
    kinds = {t.name: t.extra.payload.get("type") for t in tools if t.extra and t.extra.kind == "openai:tool"}
    return frozenset(name for name, kind in kinds.items() if kind == "custom")


def _encode_tool(tool: ToolDefinition) -> JsonObject:
    payload: JsonObject = {}
    if tool.extra is not None and tool.extra.kind == "openai:tool":
        payload = dict(tool.extra.payload)
    elif tool.extra is not None and not tool.parameters:
        own_payload(tool.extra, api=API)
    kind = payload.get("type", "function")
    inner = dict(payload.get(kind, {})) | {"name": tool.name}
    inner |= {"description": tool.description} if tool.description else {}
    inner |= {"parameters": tool.parameters} if tool.parameters else {}
    return payload | {"type": kind, kind: inner}


# --- messages -----------------------------------------------------------------------------------------------


def _decode_messages(values: Iterable[Any]) -> Iterator[Message]:
    names: dict[str, str] = {}
    for number, value in enumerate(values):
        message = decode_message(as_object(value, f"messages[{number}]"), names, f"messages[{number}]")
        names.update({call.id: call.name for call in message.tool_calls})
        yield message


def decode_message(wire: JsonObject, names: Mapping[str, str], where: str) -> Message:
    """One turn; `names` tells the tool of each call id seen so far."""
    role_name = as_text(wire.get("role"), f"{where}.role")
    if role_name not in _ROLES:
        raise WireError(f"{where}.role: unknown role.", hint=f"Allowed: {', '.join(_ROLES)}.")
    role, origin = _ROLES[role_name]
    name = maybe_text(wire.get("name"), f"{where}.name")
    if role is Role.TOOL:
        return Message(role=role, parts=_decode_result(wire, names, where), name=name)
    content = _decode_content(wire.get("content"), origin, f"{where}.content")
    if role is Role.ASSISTANT:
        return Message(role=role, parts=_decode_assistant(wire, content, where), name=name)
    said_as: Any = "developer" if role_name == "developer" else UNSET
    return Message(role=role, parts=content, name=name, said_as=said_as)


def _decode_result(wire: JsonObject, names: Mapping[str, str], where: str) -> tuple[Part, ...]:
    call_id = as_text(wire.get("tool_call_id"), f"{where}.tool_call_id")
    parts = _decode_content(wire.get("content"), Origin.TOOL_RESULT, f"{where}.content")
    words = "\n".join(part.text for part in parts if isinstance(part, Text))
    others = tuple(part for part in parts if not isinstance(part, Text))
    return (ToolResult(call_id=call_id, name=names.get(call_id, ""), text=words), *others)


def _decode_content(value: Any, origin: Origin, where: str) -> tuple[Part, ...]:
    if isinstance(value, str):
        return (Text(text=value, origin=origin),)
    items = as_list(value, where)
    return tuple(
        _decode_part(as_object(p, f"{where}[{n}]"), origin, f"{where}[{n}]") for n, p in enumerate(items)
    )


def _decode_part(part: JsonObject, origin: Origin, where: str) -> Part:
    match part:
        case {"type": "text", "text": str(text)}:
            return Text(text=text, origin=origin)
        case {"type": "refusal", "refusal": str(text)}:
            return Refusal(text=text)
        case {"type": "image_url", "image_url": {"url": str(url)} as image}:
            detail = maybe_text(image.get("detail"), f"{where}.image_url.detail")
            return media_from_url(url, origin=origin, fallback_type="image/*", detail=detail)
        case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(format_name)}}:
            url = data_url(f"audio/{format_name}", data)
            return media_from_url(url, origin=origin, fallback_type="audio/*")
        case _:
            opaque = Opaque(kind=f"openai:{as_text(part.get('type'), f'{where}.type')}", payload=part)
            return decode_file(part, origin) or opaque


def _decode_assistant(wire: JsonObject, content: tuple[Part, ...], where: str) -> tuple[Part, ...]:
    if _PLAIN_TURN.issuperset(wire):
        return content
    thought = next((wire[k] for k in ("reasoning_content", "reasoning") if isinstance(wire.get(k), str)), "")
    refusal = maybe_text(wire.get("refusal"), f"{where}.refusal")
    calls = as_list(wire.get("tool_calls"), f"{where}.tool_calls")
    legacy = wire.get("function_call")
    return (
        *((Reasoning(text=thought),) if thought else ()),
        *content,
        *((Refusal(text=refusal),) if refusal is not None else ()),
        *_citations(wire.get("annotations"), f"{where}.annotations"),
        *(_decode_call(call, f"{where}.tool_calls[{n}]") for n, call in enumerate(calls)),
        *((_legacy_call(legacy, f"{where}.function_call"),) if legacy is not None else ()),
        *(Opaque(kind=f"openai:message.{key}", payload=wire[key]) for key in _unknown_keys(wire)),
    )


def _citations(value: Any, where: str) -> Iterator[Part]:
    for number, annotation in enumerate(as_list(value, where)):
        yield citation_part(as_object(annotation, f"{where}[{number}]"))


_PLAIN_TURN = frozenset({"role", "content", "name"})
_KNOWN_KEYS = _PLAIN_TURN | {
    "refusal",
    "tool_calls",
    "function_call",
    "reasoning_content",
    "reasoning",
    "annotations",
}


def _unknown_keys(wire: JsonObject) -> list[str]:
    return [key for key, value in wire.items() if key not in _KNOWN_KEYS and value not in (None, [], {})]


def _decode_call(value: Any, where: str) -> Part:
    call = as_object(value, where)
    match call:
        case {"id": str(call_id), "function": {"name": str(name), "arguments": str(raw)}}:
            return tool_call(id=call_id, name=name, raw_arguments=raw)
        case {"type": "custom", "id": str(call_id), "custom": {"name": str(name), "input": str(raw)}}:
            return ToolCall(id=call_id, name=name, arguments=None, raw_arguments=raw)
        case _:
            raise WireError(f"{where}: a tool call needs `id` and `function` with `name` and `arguments`.")


def _legacy_call(value: Any, where: str) -> ToolCall:
    call = as_object(value, where)
    raw = as_text(call.get("arguments"), f"{where}.arguments")
    return tool_call(id="function_call", name=as_text(call.get("name"), f"{where}.name"), raw_arguments=raw)


def _encode_message(message: Message, style: Style) -> list[JsonObject]:
    role = "developer" if message.said_as == "developer" else message.role.value
    parts = message.parts
    if len(parts) == 1 and type(parts[0]) is Text and message.name is None and message.role is not Role.TOOL:
        return [{"role": role, "content": parts[0].text}]
    head: JsonObject = {"role": role}
    if message.name is not None:
        head["name"] = message.name
    match message.role:
        case Role.SYSTEM | Role.USER:
            return [head | {"content": _encode_content(message.parts)}]
        case Role.ASSISTANT:
            return [head | encode_assistant(message.parts, style)]
        case Role.TOOL:
            return _encode_results(message, head)
        case _:
            assert_never(message.role)


def _encode_results(message: Message, head: JsonObject) -> list[JsonObject]:
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    others = [part for part in message.parts if not isinstance(part, ToolResult)]
    if others and len(results) != 1:
        raise UsageError("a tool turn with media needs exactly one result to belong to in the openai API.")
    if not others:
        return [head | {"tool_call_id": r.call_id, "content": r.text} for r in results]
    content = [{"type": "text", "text": results[0].text}, *(_encode_part(part) for part in others)]
    return [head | {"tool_call_id": results[0].call_id, "content": content}]


def _encode_content(parts: tuple[Part, ...]) -> str | list[JsonObject]:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_encode_part(part) for part in parts]


def _encode_part(part: Part) -> JsonObject:
    match part:
        case Text(text=text):
            return {"type": "text", "text": text}
        case Refusal(text=text):
            return {"type": "refusal", "refusal": text}
        case Media(detail=detail):
            return _encode_media(part, detail)
        case Opaque():
            return dict(own_payload(part, api=API)[1])
        case _:
            raise UsageError(f"a {type(part).__name__} part cannot stand in the content of this turn.")


def _encode_media(part: Media, detail: str | None) -> JsonObject:
    url = location_of(part)
    embedded = split_data_url(url)
    if embedded is not None and part.media_type.startswith("audio/"):
        return {"type": "input_audio", "input_audio": {"data": embedded[1], "format": part.media_type[6:]}}
    if not part.media_type.startswith("image/") or url.startswith((KEPT, "anthropic-file:")):
        return encode_file(part)
    return {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})}


def encode_assistant(parts: tuple[Part, ...], style: Style) -> JsonObject:
    """The fields of a model's turn, without its role."""
    wire: JsonObject = {}
    content: list[Part] = []
    calls: list[JsonObject] = []
    for part in parts:
        match part:
            case ToolCall():
                calls.append(_encode_call(part, style))
            case Reasoning(text=text):
                if style.with_reasoning and text:
                    wire["reasoning_content"] = wire.get("reasoning_content", "") + text
            case Opaque(kind="citation"):
                continue
            case Opaque(kind=kind) if kind.startswith("openai:message."):
                wire[kind.removeprefix("openai:message.")] = part.payload
            case _:
                content.append(part)
    if len(content) == 1 and isinstance(content[0], Refusal):
        wire |= {"content": None, "refusal": content[0].text}
    else:
        wire["content"] = _encode_content(tuple(content)) if content else None
    return wire | ({"tool_calls": calls} if calls else {})


def _encode_call(call: ToolCall, style: Style) -> JsonObject:
    if call.name in style.custom_tools:
        custom = {"name": call.name, "input": call.raw_arguments or ""}
        return {"id": call.id, "type": "custom", "custom": custom}
    function = {"name": call.name, "arguments": arguments_text(call)}
    return {"id": call.id, "type": "function", "function": function}
