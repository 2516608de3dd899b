"""A request of one API for a provider of another: the words arrive, losses are counted, the rest refused."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_strategies import conversations

from stanchion.core.interaction import Interaction, Part, Reasoning, Role, ToolCall
from stanchion.models.surfaces import SURFACES
from stanchion.models.translation import LOSSES, Fitted, fitted
from stanchion.models.upstreams import UPSTREAMS
from stanchion.models.wire import Request, WireError

CHAT, RESPONSES, MESSAGES = "openai.chat", "openai.responses", "anthropic.messages"
BASE: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    RESPONSES: {"model": "m", "input": "Hi"},
    MESSAGES: {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
}


def translated(surface: str, upstream: str, **fields: Any) -> tuple[dict[str, Any], Fitted]:
    asked = SURFACES[surface].decode_request({**BASE[surface], **fields})
    fit = fitted(asked, surface=surface, upstream=upstream)
    body = UPSTREAMS[upstream].encode_request(fit.interaction, stream=False, extras=fit.extras)
    return json.loads(json.dumps(body)), fit


def said(interaction: Interaction) -> list[tuple[Role, Part]]:
    return [(message.role, part) for message in interaction.messages for part in message.parts]


@pytest.mark.parametrize(("surface", "upstream"), list(permutations([CHAT, RESPONSES, MESSAGES], 2)))
@given(conversations(valid_calls=True, with_refusals=False, errors=False))
@settings(deadline=None, max_examples=40)
def test_the_same_words_arrive(surface: str, upstream: str, interaction: Interaction) -> None:
    plain = msgspec.structs.replace(interaction.sampling, stop=())
    asked = msgspec.structs.replace(interaction, sampling=plain)
    body = UPSTREAMS[surface].encode_request(asked, stream=True)
    request = SURFACES[surface].decode_request(json.loads(json.dumps(body)))
    fit = fitted(request, surface=surface, upstream=upstream)
    sent = UPSTREAMS[upstream].encode_request(fit.interaction, stream=True, extras=fit.extras)
    arrived = SURFACES[upstream].decode_request(json.loads(json.dumps(sent))).interaction
    assert said(arrived) == said(interaction)
    assert arrived.tools == interaction.tools
    assert arrived.model == interaction.model
    assert arrived.sampling.response_schema == plain.response_schema
    assert arrived.sampling.tool_choice == plain.tool_choice
    assert arrived.sampling.max_output_tokens == plain.max_output_tokens
    assert set(fit.lost) <= {"temperature"}


def test_a_request_for_the_same_api_is_not_touched() -> None:
    asked = SURFACES[CHAT].decode_request(BASE[CHAT] | {"logit_bias": {"1": 2}, "brand_new": True})
    fit = fitted(asked, surface=CHAT, upstream=CHAT)
    assert fit.interaction is asked.interaction
    assert fit.extras == {"logit_bias": {"1": 2}, "brand_new": True}


@pytest.mark.parametrize(
    ("surface", "upstream", "fields", "expected"),
    [
        (CHAT, MESSAGES, {"user": "u1"}, {"metadata": {"user_id": "u1"}}),
        (MESSAGES, CHAT, {"metadata": {"user_id": "u1"}}, {"user": "u1"}),
        (CHAT, RESPONSES, {"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}, "store": False}),
        (RESPONSES, CHAT, {"reasoning": {"effort": "low"}}, {"reasoning_effort": "low", "store": False}),
        (MESSAGES, CHAT, {"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        (CHAT, RESPONSES, {"response_format": {"type": "json_object"}},
            {"text": {"format": {"type": "json_object"}}, "store": False}),
        (RESPONSES, CHAT, {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
            {"response_format": {"type": "json_object"}, "verbosity": "low"}),
        (CHAT, RESPONSES, {"metadata": {"a": "b"}, "verbosity": "high"},
            {"metadata": {"a": "b"}, "text": {"verbosity": "high"}}),
        (CHAT, MESSAGES, {"max_tokens": 7, "stop": ["x"]}, {"max_tokens": 7, "stop_sequences": ["x"]}),
        (CHAT, MESSAGES, {"response_format": {"type": "json_schema", "json_schema": {
            "name": "n", "schema": {"type": "object"}}}},
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}),
    ],
)  # fmt: skip
def test_parameters_find_their_word(
    surface: str, upstream: str, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    body, _ = translated(surface, upstream, **fields)
    assert {key: body.get(key) for key in expected} == expected


def test_calls_one_at_a_time_are_asked_for_in_each_way() -> None:
    function = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    body, _ = translated(CHAT, MESSAGES, tools=[function], parallel_tool_calls=False, tool_choice="required")
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    tool = {"name": "f", "input_schema": {"type": "object"}}
    choice = {"type": "tool", "name": "f", "disable_parallel_tool_use": True}
    body, _ = translated(MESSAGES, CHAT, tools=[tool], tool_choice=choice)
    assert body["parallel_tool_calls"] is False
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("surface", "upstream", "fields", "lost"),
    [
        (CHAT, MESSAGES, {"frequency_penalty": 1.0, "seed": 3, "temperature": 1.5},
            {"frequency_penalty": 1, "seed": 1, "temperature": 1}),
        (CHAT, RESPONSES, {"seed": 3, "frequency_penalty": 1.0}, {"seed": 1, "frequency_penalty": 1}),
        (MESSAGES, CHAT, {"top_k": 3, "thinking": {"type": "adaptive"}}, {"top_k": 1, "thinking": 1}),
        (RESPONSES, MESSAGES, {"include": ["x"], "reasoning": {"summary": "auto"}},
            {"include": 1, "reasoning.summary": 1}),
    ],
)  # fmt: skip
def test_what_is_left_out_is_counted(
    surface: str, upstream: str, fields: dict[str, Any], lost: dict[str, int]
) -> None:
    assert translated(surface, upstream, **fields)[1].lost == lost


@pytest.mark.parametrize(
    ("surface", "upstream", "fields"),
    [
        (CHAT, MESSAGES, {"web_search_options": {}}),
        (CHAT, MESSAGES, {"brand_new": 1}),
        (CHAT, MESSAGES, {"modalities": ["text", "audio"]}),
        (CHAT, MESSAGES, {"response_format": {"type": "json_object"}}),
        (CHAT, MESSAGES, {"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}),
        (CHAT, RESPONSES, {"stop": ["x"]}),
        (MESSAGES, CHAT, {"mcp_servers": [{}]}),
        (MESSAGES, CHAT, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        (RESPONSES, CHAT, {"tools": [{"type": "web_search"}]}),
        (RESPONSES, CHAT, {"input": [{"type": "local_shell_call_output", "id": "c", "output": "x"}]}),
        (RESPONSES, MESSAGES, {"input": [{"role": "user", "content": [
            {"type": "input_image", "file_id": "file-1", "detail": "auto"}]}]}),
        (MESSAGES, CHAT, {"messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "file", "file_id": "file_1"}}]}]}),
        (MESSAGES, CHAT, {"messages": [{"role": "user", "content": [{"type": "search_result", "source": "s",
            "title": "t", "content": [{"type": "text", "text": "x"}]}]}]}),
    ],
)  # fmt: skip
def test_what_would_change_the_meaning_is_refused(
    surface: str, upstream: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(WireError):
        translated(surface, upstream, **fields)


def test_earlier_reasoning_stays_with_its_vendor() -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "Yes?"}]},
        {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]},
    ]  # fmt: skip
    for upstream in (CHAT, RESPONSES):
        body, fit = translated(MESSAGES, upstream, messages=turns)
        assert fit.lost == {"reasoning": 2}
        assert not any(isinstance(part, Reasoning) for _, part in said(fit.interaction))
        assert "hm" not in json.dumps(body)
        assert len(fit.interaction.messages) == 2


def test_free_text_tools_go_between_the_two_apis_of_openai() -> None:
    tool = {"type": "custom", "custom": {"name": "sql", "description": "runs it"}}
    body, fit = translated(CHAT, RESPONSES, tools=[tool])
    assert body["tools"] == [{"type": "custom", "name": "sql", "description": "runs it"}]
    back = fitted(Request(interaction=fit.interaction), surface=RESPONSES, upstream=CHAT).interaction
    assert UPSTREAMS[CHAT].encode_request(back, stream=False)["tools"] == [tool]
    with pytest.raises(WireError, match="custom"):
        translated(CHAT, MESSAGES, tools=[tool])


def test_arguments_that_are_no_object_are_sent_as_text_in_one() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{oops"}}
    turns = [{"role": "assistant", "tool_calls": [call]}]
    _, fit = translated(CHAT, MESSAGES, messages=turns)
    [(_, part)] = said(fit.interaction)
    assert isinstance(part, ToolCall)
    assert part.arguments == {"INVALID_JSON": "{oops"}


EXTRAS = st.dictionaries(
    st.sampled_from(
        [
            *("metadata", "user", "store", "text", "reasoning", "response_format", "tool_choice", "thinking"),
            *("x", "output_config", "top_k", "logprobs", "parallel_tool_calls", "verbosity", "modalities"),
        ]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda inner: st.dictionaries(
            st.sampled_from(["type", "format", "effort", "schema", "name", "user_id", "json_schema"]), inner
        ),
        max_leaves=4,
    ),
    max_size=4,
)


@pytest.mark.parametrize(("surface", "upstream"), list(permutations([CHAT, RESPONSES, MESSAGES], 2)))
@given(EXTRAS)
@settings(deadline=None, max_examples=60)
def test_any_parameters_are_translated_or_refused(
    surface: str, upstream: str, extras: dict[str, Any]
) -> None:
    """No parameter vanishes: each is said, counted as left out, or refused."""
    asked = Request(interaction=Interaction(messages=(), model="m"), extras=extras)
    try:
        fit = fitted(asked, surface=surface, upstream=upstream)
    except WireError:
        return
    schema = fit.interaction.sampling.response_schema
    traces = json.dumps([fit.extras, sorted(fit.lost), fit.interaction.sampling.tool_choice, schema])
    for key, value in extras.items():
        says_nothing = value in (None, False, {}, {"type": "text"}) or (key, value) == (
            "parallel_tool_calls",
            True,
        )
        if not says_nothing and key not in ("modalities", "text", "reasoning", "metadata", "response_format"):
            assert key in traces or json.dumps(value)[1:-1] in traces


def test_the_documentation_prints_the_table_of_losses() -> None:
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs/explanation/translation.md").read_text()
    for what, where, becomes in LOSSES:
        assert f"| {what} | {where} | {becomes} |" in page
