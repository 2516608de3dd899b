"""Interactions and replies as hypothesis draws them, within what each API can say."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable

import msgspec
from hypothesis import strategies as st

from stanchion.core.interaction import (
    FinishReason,
    Interaction,
    Message,
    Reasoning,
    Refusal,
    Reply,
    Role,
    Sampling,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
    Usage,
)
from stanchion.core.origin import Origin
from stanchion.models.events import tool_call
from stanchion.models.wire import data_url, media_from_url

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.text("abcdefghij_", min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(names, json_values, max_size=3)
tools = st.lists(
    st.builds(ToolDefinition, name=names, description=words, parameters=objects.filter(bool)),
    max_size=2,
    unique_by=lambda tool: tool.name,
).map(tuple)
samplings = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    max_output_tokens=st.integers(1, 500),
    stop=st.lists(words, max_size=2).map(tuple),
    tool_choice=st.none() | st.sampled_from(["auto", "none", "required", "tool:refund"]),
    response_schema=st.none() | objects,
)
usages = st.builds(
    Usage,
    input_tokens=st.integers(100, 500),
    output_tokens=st.integers(0, 500),
    cached_input_tokens=st.none() | st.integers(0, 50),
    cache_write_tokens=st.just(msgspec.UNSET) | st.integers(0, 50),
    reasoning_tokens=st.just(msgspec.UNSET) | st.integers(0, 50),
)
marks = st.sampled_from([msgspec.UNSET, msgspec.UNSET, "ephemeral", "5m", "1h"])
_SAID_AS = {
    "openai": (msgspec.UNSET, "developer"),
    "responses": ("instructions", "developer", "system"),
}


def text(origin: Origin) -> st.SearchStrategy[Text]:
    return st.builds(Text, text=words, origin=st.just(origin))


def images(origin: Origin) -> st.SearchStrategy[object]:
    return st.binary(min_size=1, max_size=8).map(
        lambda data: media_from_url(
            data_url("image/png", base64.b64encode(data).decode()),
            origin=origin,
            fallback_type="image/*",
        )
    )


raw_arguments = st.one_of(
    objects.map(lambda value: json.dumps(value)),
    st.sampled_from(["", "{", "[1]", '{"a":1,"a":2}', '{ "a" : 1.0 }', "null"]),
)


def calls(*, valid: bool) -> st.SearchStrategy[ToolCall]:
    if valid:
        return st.builds(ToolCall, id=names, name=names, arguments=objects)
    return st.builds(tool_call, id=names, name=names, raw_arguments=raw_arguments)


@st.composite
def conversations(
    draw: st.DrawFn, *, valid_calls: bool, with_refusals: bool, errors: bool, vendor: str = ""
) -> Interaction:
    """A system turn perhaps, then user turns, answers and the results of their calls.

    `vendor` (`openai`, `responses`, `anthropic`) draws what only its API has words for as well.
    """
    messages = []
    if draw(st.booleans()):
        said_as = draw(st.sampled_from(_SAID_AS.get(vendor, (msgspec.UNSET,))))
        parts = (draw(text(Origin.SYSTEM)),)
        messages.append(Message(role=Role.SYSTEM, parts=parts, said_as=said_as))
    for _ in range(draw(st.integers(1, 3))):
        user_parts = draw(st.lists(text(Origin.USER) | images(Origin.USER), min_size=1, max_size=3))
        messages.append(Message(role=Role.USER, parts=tuple(user_parts)))
        made = draw(st.lists(calls(valid=valid_calls), max_size=2, unique_by=lambda call: call.id))
        said = draw(st.lists(text(Origin.MODEL), min_size=0 if made else 1, max_size=2))
        refusals = draw(st.lists(st.builds(Refusal, text=words), max_size=1)) if with_refusals else []
        messages.append(Message(role=Role.ASSISTANT, parts=(*said, *refusals, *made)))
        results = tuple(_result(draw, call, errors) for call in made)
        messages += [Message(role=Role.TOOL, parts=(result,)) for result in results]
    sampling = draw(samplings)
    if sampling.response_schema is not None and vendor in _SAID_AS:
        sampling = msgspec.structs.replace(sampling, response_name=draw(names))
    if vendor == "anthropic":
        messages = [_marked(draw, message) for message in messages]
    return Interaction(messages=tuple(messages), tools=draw(tools), model=draw(names), sampling=sampling)


def _marked(draw: st.DrawFn, message: Message) -> Message:
    parts = [
        msgspec.structs.replace(part, cache=draw(marks)) if hasattr(part, "cache") else part
        for part in message.parts
    ]
    return msgspec.structs.replace(message, parts=tuple(parts))


def _result(draw: st.DrawFn, call: ToolCall, errors: bool) -> ToolResult:
    is_error = draw(st.booleans()) if errors else False
    return ToolResult(call_id=call.id, name=call.name, text=draw(words), is_error=is_error)


@st.composite
def replies(draw: st.DrawFn, *, openai: bool, reasons: Iterable[FinishReason] = FinishReason) -> Reply:
    """Answers with at most one text (openai) or blocks in any order (anthropic)."""
    reasoning = st.builds(Reasoning, text=words, signature=st.none() if openai else words)
    if openai:
        optional = [reasoning, text(Origin.MODEL), st.builds(Refusal, text=words)]
        parts = [draw(one) for one in optional if draw(st.booleans())]
        parts += draw(st.lists(calls(valid=False), max_size=3))
    else:
        redacted = st.builds(Reasoning, text=st.just(""), signature=words, redacted=st.just(True))
        parts = draw(st.lists(reasoning | redacted | text(Origin.MODEL) | calls(valid=True), max_size=5))
    return Reply(
        message=Message(role=Role.ASSISTANT, parts=tuple(parts)),
        finish_reason=draw(st.sampled_from(list(reasons))),
        model=draw(names),
        usage=draw(usages),
    )
