"""Anthropic messages <-> Interaction: pure functions, no I/O.

Field names: Anthropic API reference, messages (as typed by the `anthropic` client 2.x). A `tool_result` block
becomes a turn of its own with the origin `tool_result`. The text of document and search-result blocks is
listed in `Interaction.documents`, so that it is checked as retrieved text; the block itself is kept as
`Opaque` and sent back as it was. Cache marks stay on their blocks; one inside the content of a tool's result
moves to the result. Lost on the way out: `seed`, `caller` of a tool call, origins other than the role's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from msgspec import UNSET, UnsetType

from stanchion.core.errors import UsageError
from stanchion.core.interaction import (
    CacheMark,
    Document,
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
from stanchion.models.anthropic_files import decode_media, encode_media, words_of
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
    texts,
)

API = "anthropic"
DEFAULT_MAX_TOKENS = 4096
_ROLES = {
    "system": (Role.SYSTEM, Origin.SYSTEM),
    "user": (Role.USER, Origin.USER),
    "assistant": (Role.ASSISTANT, Origin.MODEL),
}
_CITATIONS = frozenset(
    {"char_location", "page_location", "content_block_location"}
    | {"web_search_result_location", "search_result_location"}
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_CHOICES_OUT = {ours: wire for wire, ours in _CHOICES.items()}
_UNDERSTOOD = frozenset(
    {"messages", "model", "system", "tools", "stream", "temperature", "top_p", "max_tokens", "stop_sequences"}
)


# --- requests -----------------------------------------------------------------------------------------------


def decode_request(body: Any) -> Request:
    """A messages request; parameters that we have no word for are in `extras`.

    Raises:
        WireError: for a wrong shape, with its path.
    """
    fields = as_object(body, "body")
    extras = {k: v for k, v in fields.items() if k not in _UNDERSTOOD and v is not None}
    turns = as_list(fields.get("messages"), "messages")
    messages = (*_decode_system(fields.get("system")), *_decode_messages(turns))
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


def encode_request(
    interaction: Interaction,
    *,
    stream: bool = False,
    extras: Mapping[str, Any] | None = None,
    default_max_tokens: int = DEFAULT_MAX_TOKENS,
) -> JsonObject:
    """The request body; the API demands a token limit, so the default stands in where none is asked for.

    Raises:
        UsageError: for a part that this API cannot say.
    """
    messages = interaction.messages
    leading = next((n for n, m in enumerate(messages) if m.role is not Role.SYSTEM), len(messages))
    system = tuple(part for message in messages[:leading] for part in message.parts)
    sampling = interaction.sampling
    body: JsonObject = {"model": interaction.model} if interaction.model else {}
    body["max_tokens"] = sampling.max_output_tokens or default_max_tokens
    if system:
        body["system"] = _encode_content(system)
    body["messages"] = list(_encode_messages(messages[leading:]))
    if interaction.tools:
        body["tools"] = [_encode_tool(tool) for tool in interaction.tools]
    body |= _encode_sampling(sampling)
    if stream:
        body["stream"] = True
    return body | dict(extras or {})


def _decode_sampling(fields: JsonObject, extras: JsonObject) -> Sampling:
    choice: str | None = None
    match extras.get("tool_choice"):
        case {"type": str(kind), **rest} if not rest and kind in _CHOICES:
            choice = _CHOICES[kind]
        case {"type": "tool", "name": str(name), **rest} if not rest:
            choice = f"tool:{name}"
    schema: JsonObject | None = None
    match extras.get("output_config"):
        case {"format": {"type": "json_schema", "schema": dict(found)}, **rest} if not rest:
            schema = found
    if choice is not None:
        del extras["tool_choice"]
    if schema is not None:
        del extras["output_config"]
    return Sampling(
        temperature=maybe_number(fields.get("temperature"), "temperature"),
        top_p=maybe_number(fields.get("top_p"), "top_p"),
        max_output_tokens=maybe_int(fields.get("max_tokens"), "max_tokens"),
        stop=texts(fields.get("stop_sequences"), "stop_sequences"),
        tool_choice=choice,
        response_schema=schema,
    )


def _encode_sampling(sampling: Sampling) -> JsonObject:
    fields: JsonObject = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop_sequences": list(sampling.stop) or None,
    }
    choice = sampling.tool_choice
    if choice is not None and choice.startswith("tool:"):
        fields["tool_choice"] = {"type": "tool", "name": choice.removeprefix("tool:")}
    elif choice is not None:
        fields["tool_choice"] = {"type": _CHOICES_OUT.get(choice, choice)}
    if sampling.response_schema is not None:
        fields["output_config"] = {"format": {"type": "json_schema", "schema": sampling.response_schema}}
    return {name: value for name, value in fields.items() if value is not None}


# --- tools --------------------------------------------------------------------------------------------------


def _decode_tool(tool: JsonObject, where: str) -> ToolDefinition:
    schema = tool.get("input_schema")
    kind = maybe_text(tool.get("type"), f"{where}.type")
    is_plain = set(tool) <= {"name", "description", "input_schema", "type"} and kind in (None, "custom")
    return ToolDefinition(
        name=as_text(tool.get("name", kind), f"{where}.name"),
        description=maybe_text(tool.get("description"), f"{where}.description") or "",
        parameters=as_schema({} if schema is None else schema, f"{where}.input_schema"),
        extra=None if is_plain else Opaque(kind="anthropic:tool", payload=tool),
    )


def _encode_tool(tool: ToolDefinition) -> JsonObject:
    payload: JsonObject = {}
    if tool.extra is not None and tool.extra.kind == "anthropic:tool":
        payload = dict(tool.extra.payload)
    elif tool.extra is not None and not tool.parameters:
        own_payload(tool.extra, api=API)
    is_ours = payload.get("type", "custom") == "custom"
    if is_ours or "name" in payload:
        payload["name"] = tool.name
    if tool.description:
        payload["description"] = tool.description
    if is_ours:
        payload["input_schema"] = tool.parameters or {"type": "object"}
    return payload


# --- messages -----------------------------------------------------------------------------------------------


def _decode_system(value: Any) -> tuple[Message, ...]:
    if value is None:
        return ()
    return (Message(role=Role.SYSTEM, parts=tuple(decode_content(value, Origin.SYSTEM, {}, "system"))),)


def _decode_messages(values: Iterable[Any]) -> Iterator[Message]:
    names: dict[str, str] = {}
    for number, value in enumerate(values):
        where = f"messages[{number}]"
        wire = as_object(value, where)
        role_name = as_text(wire.get("role"), f"{where}.role")
        if role_name not in _ROLES:
            raise WireError(f"{where}.role: unknown role.", hint=f"Allowed: {', '.join(_ROLES)}.")
        role, origin = _ROLES[role_name]
        parts = decode_content(wire.get("content"), origin, names, f"{where}.content")
        names.update({part.id: part.name for part in parts if isinstance(part, ToolCall)})
        yield from _turns(role, parts)


def _turns(role: Role, parts: list[Part]) -> Iterator[Message]:
    """One message, or a tool turn and what else the user said in the same breath."""
    if role is not Role.USER:
        yield Message(role=role, parts=tuple(parts))
        return
    groups: list[tuple[Role, list[Part]]] = []
    for part in parts:
        kind = Role.TOOL if _is_of_tool(part) else Role.USER
        if not groups or groups[-1][0] is not kind:
            groups.append((kind, []))
        groups[-1][1].append(part)
    for kind, members in groups or [(Role.USER, [])]:
        yield Message(role=kind, parts=tuple(members))


def _is_of_tool(part: Part) -> bool:
    match part:
        case ToolResult() | Media(origin=Origin.TOOL_RESULT):
            return True
        case Opaque(kind=kind):
            return kind.startswith("anthropic:tool_result.")
        case _:
            return False


def decode_content(value: Any, origin: Origin, names: Mapping[str, str], where: str) -> list[Part]:
    """A string or a list of blocks as parts; `names` tells the tool of each call id seen so far."""
    if isinstance(value, str):
        return [Text(text=value, origin=origin)]
    parts: list[Part] = []
    for number, item in enumerate(as_list(value, where)):
        parts += _decode_block(as_object(item, f"{where}[{number}]"), origin, names, f"{where}[{number}]")
    return parts


def _decode_block(block: JsonObject, origin: Origin, names: Mapping[str, str], where: str) -> Iterator[Part]:
    match block:
        case {"type": "text", "text": str(text)}:
            yield Text(text=text, origin=origin, cache=cache_mark(block, where))
            for citation in as_list(block.get("citations"), f"{where}.citations"):
                yield citation_part(as_object(citation, f"{where}.citations[]"))
        case {"type": "tool_use", "id": str(call_id), "name": str(name), "input": dict(arguments)}:
            yield ToolCall(id=call_id, name=name, arguments=arguments, cache=cache_mark(block, where))
        case {"type": "tool_result", "tool_use_id": str(call_id)}:
            yield from _decode_result(block, call_id, names, where)
        case {"type": "thinking", "thinking": str(text)}:
            yield Reasoning(text=text, signature=maybe_text(block.get("signature"), f"{where}.signature"))
        case {"type": "redacted_thinking", "data": str(data)}:
            yield Reasoning(text="", signature=data, redacted=True)
        case {"type": "tool_use" | "tool_result"}:
            raise WireError(f"{where}: a {block['type']} block with a missing or wrong field.")
        case _:
            opaque = Opaque(kind=f"anthropic:{as_text(block.get('type'), f'{where}.type')}", payload=block)
            yield decode_media(block, origin) or opaque


def cache_mark(block: JsonObject, where: str) -> CacheMark | UnsetType:
    """The cache mark of a block.

    Raises:
        WireError: for one that the API reference does not know: it would be text that nobody checks.
    """
    match block.get("cache_control"):
        case None:
            return UNSET
        case {"type": "ephemeral", **rest} if not rest:
            return "ephemeral"
        case {"type": "ephemeral", "ttl": "5m", **rest} if not rest:
            return "5m"
        case {"type": "ephemeral", "ttl": "1h", **rest} if not rest:
            return "1h"
        case _:
            raise WireError(
                f"{where}.cache_control: not a known cache mark.",
                hint='Send {"type": "ephemeral"}, with a `ttl` of "5m" or "1h" or none.',
            )


def _marked(block: JsonObject, mark: CacheMark | UnsetType) -> JsonObject:
    if mark is UNSET:
        return block
    ttl = {} if mark == "ephemeral" else {"ttl": mark}
    return block | {"cache_control": {"type": "ephemeral", **ttl}}


def is_own_citation(citation: JsonObject) -> bool:
    """Whether it is said as this API says one; another vendor's cannot be."""
    return citation.get("type") in _CITATIONS


def citation_part(citation: JsonObject) -> Opaque:
    """A citation as the part that a stream's `Citation` event amounts to; it keeps the wire's own words."""
    title = citation.get("document_title") or citation.get("title") or citation.get("source")
    quote = citation.get("cited_text")
    payload = {
        "document_id": title if isinstance(title, str) else str(citation.get("document_index", "")),
        "quote": quote if isinstance(quote, str) else "",
        "wire": citation,
    }
    return Opaque(kind="citation", payload=payload)


def _decode_result(block: JsonObject, call_id: str, names: Mapping[str, str], where: str) -> Iterator[Part]:
    inner = decode_content(block.get("content"), Origin.TOOL_RESULT, {}, f"{where}.content")
    marks = [part.cache for part in inner if isinstance(part, Text) and part.cache is not UNSET]
    yield ToolResult(
        call_id=call_id,
        name=names.get(call_id, ""),
        text="\n".join(part.text for part in inner if isinstance(part, Text)),
        is_error=block.get("is_error") is True,
        cache=cache_mark(block, where) or (marks[-1] if marks else UNSET),
    )
    for part in inner:
        match part:
            case Text():
                continue
            case Opaque(kind=kind, payload=payload):
                yield Opaque(kind=f"anthropic:tool_result.{kind.removeprefix('anthropic:')}", payload=payload)
            case _:
                yield part


def _documents(messages: Iterable[Message]) -> Iterator[Document]:
    """The words of document and search-result blocks, wherever they stand."""
    for turn, message in enumerate(messages):
        for number, part in enumerate(message.parts):
            if isinstance(part, Media):
                words = words_of(part)
                if words:
                    source = (part.name or "")[:200]
                    yield Document(id=f"messages[{turn}].parts[{number}]", text=words, source=source)
            elif isinstance(part, Opaque) and part.kind.rpartition(".")[2].rpartition(":")[2] in _WITH_TEXT:
                block = part.payload
                words = "\n".join(_block_words(block))
                source = str(block.get("title") or block.get("source") or "") if words else ""
                if words:
                    yield Document(id=f"messages[{turn}].parts[{number}]", text=words, source=source[:200])


_WITH_TEXT = frozenset({"document", "search_result"})


def _block_words(block: JsonObject) -> Iterator[str]:
    match block.get("source"):
        case {"type": "text", "data": str(data)}:
            yield data
        case {"type": "content", "content": content}:
            yield from _nested_words(content)
    if isinstance(block.get("context"), str):
        yield block["context"]
    yield from _nested_words(block.get("content"))


def _nested_words(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    for item in content if isinstance(content, list) else []:
        if isinstance(item, dict) and isinstance(item.get("text"), str):
            yield item["text"]


# --- encoding -----------------------------------------------------------------------------------------------


def _encode_messages(messages: Iterable[Message]) -> Iterator[JsonObject]:
    """Tool turns that follow each other are one user turn, with what the user says right behind them."""
    results: list[JsonObject] = []
    for role, group in groupby(messages, key=lambda message: message.role):
        members = list(group)
        if role is Role.TOOL:
            results = _encode_results([p for m in members for p in m.parts])
            continue
        if results:
            said = encode_blocks(members.pop(0).parts) if role is Role.USER else []
            yield {"role": "user", "content": results + said}
            results = []
        for message in members:
            yield {"role": role.value, "content": _encode_content(message.parts)}
    if results:
        yield {"role": "user", "content": results}


def _encode_results(parts: Iterable[Part]) -> list[JsonObject]:
    blocks: list[JsonObject] = []
    for part in parts:
        if isinstance(part, ToolResult):
            block = {"type": "tool_result", "tool_use_id": part.call_id, "content": part.text}
            blocks.append(_marked(block | ({"is_error": True} if part.is_error else {}), part.cache))
            continue
        if not blocks:
            raise UsageError(f"a {type(part).__name__} part of a tool turn has no result to belong to.")
        owner = blocks[-1]
        if isinstance(owner["content"], str):
            owner["content"] = [{"type": "text", "text": owner["content"]}] if owner["content"] else []
        owner["content"].append(_encode_block(part))
    return blocks


def _encode_content(parts: tuple[Part, ...]) -> str | list[JsonObject]:
    if len(parts) == 1 and isinstance(parts[0], Text) and parts[0].cache is UNSET:
        return parts[0].text
    return encode_blocks(parts)


def encode_blocks(parts: Iterable[Part]) -> list[JsonObject]:
    """Parts as content blocks; empty texts are left out, because the API refuses them.

    Raises:
        UsageError: for a part that this API cannot say.
    """
    blocks: list[JsonObject] = []
    for part in parts:
        match part:
            case Text(text="") | Refusal(text=""):
                continue
            case Opaque(kind="citation", payload={"wire": dict(citation)}) if is_own_citation(citation):
                if blocks and blocks[-1]["type"] == "text":
                    blocks[-1].setdefault("citations", []).append(citation)
            case Opaque(kind="citation"):
                continue
            case _:
                blocks.append(_encode_block(part))
    return blocks


def _encode_block(part: Part) -> JsonObject:
    match part:
        case Text(text=text, cache=mark):
            return _marked({"type": "text", "text": text}, mark)
        case Refusal(text=text):
            return {"type": "text", "text": text}
        case ToolCall(id=call_id, name=name, arguments=arguments):
            if arguments is None:
                raise UsageError(
                    f"the arguments of a call of {name!r} are no JSON object: the API needs one."
                )
            block = {"type": "tool_use", "id": call_id, "name": name, "input": arguments}
            return _marked(block, part.cache)
        case Reasoning(signature=signature, redacted=True):
            return {"type": "redacted_thinking", "data": signature or ""}
        case Reasoning(text=text, signature=signature):
            return {"type": "thinking", "thinking": text, "signature": signature or ""}
        case Media():
            return encode_media(part)
        case Opaque():
            return dict(own_payload(part, api=API)[1])
        case _:
            raise UsageError(f"a {type(part).__name__} part cannot stand in the content of this turn.")
