"""A request of one API for a provider of another: what is said differently, left out, or refused.

Everything goes through `Interaction`; what the guard has read is what is sent. A request for a provider of
the same API is not touched. What is left out is counted in `lost`; what would change the meaning is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from stanchion.core.interaction import (
    Interaction,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Reply,
    ToolCall,
    ToolDefinition,
    ToolResult,
)
from stanchion.models.events import arguments_text
from stanchion.models.foreign import lost_in
from stanchion.models.translation_options import (
    CHAT,
    CONVERSE,
    MESSAGES,
    RESPONSES,
    counted,
    read_options,
    write_options,
)
from stanchion.models.wire import JsonObject, Request, WireError

_VENDOR = {CHAT: "openai", RESPONSES: RESPONSES, MESSAGES: "anthropic", CONVERSE: "bedrock"}
_KEPT = {"openai-file:": (CHAT, RESPONSES), "anthropic-file:": (MESSAGES,)}
_NOT_AN_OBJECT = "INVALID_JSON"
_NAMED = (CHAT,)


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """A request as an API can be asked: the exchange, its parameters, and what was left out, by name."""

    interaction: Interaction
    extras: JsonObject
    lost: dict[str, int]


def fitted(asked: Request, *, surface: str, upstream: str) -> Fitted:
    """The request for a provider.

    Args:
        asked: what the client asked.
        surface: the API it asked with, such as `openai.chat`.
        upstream: the API of the provider.

    Raises:
        WireError: for what the provider's API cannot say and that must not be left out.
    """
    if surface == upstream:
        return Fitted(interaction=asked.interaction, extras=asked.extras, lost={})
    interaction = asked.interaction
    options = read_options(asked.extras, interaction.sampling, api=surface)
    extras = write_options(options, api=upstream, has_tools=bool(interaction.tools))
    lost = options.lost
    said = ((message, _message(message, upstream, lost)) for message in interaction.messages)
    messages = tuple(after for before, after in said if after.parts or not before.parts)
    tools = tuple(_tool(tool, upstream, lost) for tool in interaction.tools)
    if upstream == RESPONSES and options.sampling.stop:
        raise WireError("stop: the provider of this model takes no stop sequences.", hint="Leave them out.")
    changed = msgspec.structs.replace(interaction, messages=messages, tools=tools, sampling=options.sampling)
    return Fitted(interaction=changed, extras=extras, lost=counted(lost))


def lost_in_reply(reply: Reply, *, surface: str) -> dict[str, int]:
    """What an answer loses on its way to a client of this API, by kind."""
    return lost_in(reply, _VENDOR[surface])


def _message(message: Message, upstream: str, lost: list[str]) -> Message:
    name = message.name
    if name is not None and upstream not in _NAMED:
        lost.append("name")
        name = None
    parts = tuple(_parts(message, upstream, lost))
    return msgspec.structs.replace(message, parts=parts, name=name)


def _parts(message: Message, upstream: str, lost: list[str]) -> Iterator[Part]:
    for part in message.parts:
        if getattr(part, "cache", UNSET) is not UNSET:
            lost.append("cache_control")  # only the codec of its own vendor writes it
        match part:
            case Reasoning():
                lost.append("reasoning")
            case Opaque(kind="citation"):
                lost.append("citation")
            case Opaque(kind=kind):
                raise WireError(
                    f"a part of kind {kind!r} has no meaning for the provider of this model.",
                    hint="Leave it out, or ask a model whose provider speaks the same API.",
                )
            case Media():
                yield _media(part, upstream, lost)
            case ToolCall(arguments=None) if upstream in (MESSAGES, CONVERSE):
                whole = {_NOT_AN_OBJECT: arguments_text(part)}
                yield msgspec.structs.replace(part, arguments=whole, raw_arguments=None)
            case ToolResult(is_error=True) if upstream in (CHAT, RESPONSES):
                lost.append("is_error")
                yield part
            case _:
                yield part


def _media(part: Media, upstream: str, lost: list[str]) -> Media:
    for prefix, owners in _KEPT.items():
        if (part.location or "").startswith(prefix) and upstream not in owners:
            raise WireError(
                "a file that one vendor keeps cannot be used by another.", hint="Send the file itself."
            )
    if part.extra is not None:
        lost.append("media.extra")
    if part.detail is not None and upstream in (MESSAGES, CONVERSE):
        lost.append("media.detail")
    return msgspec.structs.replace(part, extra=None)


def _tool(tool: ToolDefinition, upstream: str, lost: list[str]) -> ToolDefinition:
    """The definition without what another vendor alone understands; built-in tools cannot go along."""
    if tool.extra is None:
        return tool
    payload: Any = tool.extra.payload
    kind = payload.get("type") or "function"
    if kind == "custom" and upstream in (CHAT, RESPONSES) and tool.extra.kind != "anthropic:tool":
        return msgspec.structs.replace(tool, extra=_custom(tool, payload, upstream))
    if kind != "function" and not (kind == "custom" and tool.extra.kind == "anthropic:tool"):
        raise WireError(
            f"tools: the provider of this model has no tool of the type {kind!r}.",
            hint="Leave it out, or ask a model whose provider speaks the same API.",
        )
    inner = payload.get("function", payload)
    known = {"name", "description", "parameters", "input_schema", "type"}
    lost += [f"tools.{key}" for key in sorted(set(inner) - known)]
    return msgspec.structs.replace(tool, extra=None)


def _custom(tool: ToolDefinition, payload: JsonObject, upstream: str) -> Opaque:
    """A tool that takes free text, in the other of the two APIs of OpenAI."""
    inner: JsonObject = dict(payload.get("custom", payload))
    inner.pop("type", None)
    inner |= {"name": tool.name}
    if upstream == CHAT:
        return Opaque(kind="openai:tool", payload={"type": "custom", "custom": inner})
    return Opaque(kind=f"{RESPONSES}:tool", payload={"type": "custom", **inner})


# What translation leaves out or refuses, as the documentation prints it: what, for which API, what becomes.
LOSSES = (
    ("earlier reasoning of a model", "every other API", "left out: only its own vendor takes it again"),
    ("citations in earlier answers", "every other API, and OpenAI chat", "left out"),
    ("citations without an address, in answers", "OpenAI chat", "left out"),
    ("citations of another vendor, in answers", "OpenAI responses", "links, where there is an address"),
    ("citations of another vendor, in answers", "Anthropic", "left out"),
    ("parts that only one vendor knows", "every other API", "refused"),
    ("files that a vendor keeps", "APIs of another vendor", "refused"),
    ("title, cache mark and the like of a file", "every other API", "left out, apart from the name"),
    ("cache mark of a text, a call or a result", "every other API", "left out"),
    ("resolution of a picture (`detail`)", "Anthropic, Bedrock", "left out"),
    ("name of a speaker", "all but OpenAI chat", "left out"),
    ("mark that a tool failed (`is_error`)", "OpenAI", "left out; the words stay"),
    ("arguments of a call that are no JSON object", "Anthropic, Bedrock", 'sent as `{"INVALID_JSON": text}`'),
    ("built-in tools", "every other API", "refused"),
    ("tools that take free text", "between the APIs of OpenAI", "translated; refused elsewhere"),
    ("`strict`, cache marks and the like of a tool", "every other API", "left out"),
    ("`seed`", "all but OpenAI chat", "left out"),
    ("`temperature` above 1", "Anthropic, Bedrock", "lowered to 1"),
    ("stop sequences", "OpenAI responses", "refused"),
    ("JSON mode without a schema", "Anthropic, Bedrock", "refused"),
    ("a JSON schema that need not be kept", "every other API", "kept strictly"),
    ("penalties, `logit_bias`, log probabilities, `top_k`, `thinking`", "every other API", "left out"),
    (
        "`parallel_tool_calls`, `user`, effort of reasoning",
        "where there is a word",
        "translated, else left out",
    ),
    ("any other parameter", "every other API", "refused"),
    ("parts of an answer that only its vendor knows", "clients of another API", "left out and counted"),
)
