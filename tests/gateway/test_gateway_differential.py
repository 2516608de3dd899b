"""The vendors' clients get the same objects through the gateway as from the vendor, without a policy.

The same upstream is asked directly and through the gateway; what the clients parse must be equal, apart from
`DECLARED`, a list with reasons that the reference page repeats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import openai
import pydantic
import pytest
from vendor_gateway import Ask, anthropic_at, both, openai_at, served_vendors
from vendor_upstream import SCHEMA, VendorUpstream

from stanchion.guard.pipeline import Guard

# What may differ, by a pattern on the path of the value, and why.
DECLARED = (
    (r"(.*\.)?id|(.*\.)?item_id|_request_id|response_id", "answers and their items have ids of the gateway"),
    (r"(.*\.)?created(_at)?", "the time at which the gateway answered"),
    (r"(.*\.)?obfuscation|(.*\.)?sequence_number", "numbers and padding of events"),
    (r"temperature|top_p", "defaults that a provider fills in are not told, what the client set is"),
    (r"(.*\.)?logprobs(\[.*)?", "never asked for: absent, null and empty say the same"),
)
_ALLOWED = re.compile("|".join(f"(?:{pattern})" for pattern, _ in DECLARED))


class Answer(pydantic.BaseModel):
    city: str
    days: int


WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CHAT_TOOL = {"type": "function", "function": WEATHER}
RESPONSES_TOOL = {"type": "function", **WEATHER, "strict": False}
MESSAGES_TOOL = {
    "name": "weather",
    "description": WEATHER["description"],
    "input_schema": WEATHER["parameters"],
}
HELLO = [{"role": "user", "content": "What is your return policy?"}]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that says something, by its path; null and absent are the same to a reader."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from leaves(one, f"{path}[{number}]")
    elif value is not None:
        yield path, value


def comparable(value: Any) -> dict[str, Any]:
    if isinstance(value, pydantic.BaseModel):
        value = value.model_dump(warnings=False)
    return {path: one for path, one in leaves(value) if not _ALLOWED.fullmatch(path)}


@pytest.fixture(scope="module")
def upstream() -> Iterator[VendorUpstream]:
    with VendorUpstream() as made:
        yield made


@pytest.fixture(scope="module")
def urls(upstream: VendorUpstream) -> Iterator[tuple[str, str]]:
    with served_vendors(upstream, {"default": Guard.unprotected()}) as (served, _):
        yield upstream.url, served.url


# --- whole answers and streams, by scenario -----------------------------------------------------------------


def _chat(model: str, **more: Any) -> Ask:
    return lambda client: client.chat.completions.create(model=model, messages=HELLO, **more)


def _chat_streamed(model: str, **more: Any) -> Ask:
    """What the client's own streaming helper puts together."""

    def ask(client: openai.OpenAI) -> Any:
        options = {"include_usage": True}
        with client.chat.completions.stream(
            model=model, messages=HELLO, stream_options=options, **more
        ) as stream:
            return stream.until_done().get_final_completion()

    return ask


def _responses(model: str, **more: Any) -> Ask:
    return lambda client: client.responses.create(model=model, input="Hello.", store=False, **more)


def _responses_streamed(model: str, **more: Any) -> Ask:
    def ask(client: openai.OpenAI) -> Any:
        with client.responses.stream(model=model, input="Hello.", store=False, **more) as stream:
            return stream.until_done().get_final_response()

    return ask


def _messages(model: str, **more: Any) -> Ask:
    return lambda client: client.messages.create(model=model, max_tokens=99, messages=HELLO, **more)


def _messages_streamed(model: str, **more: Any) -> Ask:
    def ask(client: anthropic.Anthropic) -> Any:
        with client.messages.stream(model=model, max_tokens=99, messages=HELLO, **more) as stream:
            return stream.get_final_message()

    return ask


CHATS = {
    "text": {},
    "tools": {"tools": [CHAT_TOOL]},
    "refusal": {},
    "length": {"max_completion_tokens": 9},
    "filter": {},
    "cited": {},
}
RESPONSES = {
    **CHATS,
    "tools": {"tools": [RESPONSES_TOOL]},
    "length": {"max_output_tokens": 9},
    "thinking": {},
}
MESSAGES = {
    "text": {},
    "tools": {"tools": [MESSAGES_TOOL]},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "length": {},
    "stopped": {"stop_sequences": ["END"]},
    "filter": {},
    "cited": {},
}


@pytest.mark.parametrize("scenario", CHATS)
def test_chat_completions(urls: tuple[str, str], scenario: str) -> None:
    direct, through = both(urls, openai_at, _chat(scenario, **CHATS[scenario]))
    assert comparable(through) == comparable(direct)


@pytest.mark.parametrize("scenario", [one for one in CHATS if one not in ("length", "filter")])
def test_streamed_chat_completions(urls: tuple[str, str], scenario: str) -> None:
    direct, through = both(urls, openai_at, _chat_streamed(scenario, **CHATS[scenario]))
    assert comparable(through) == comparable(direct)


@pytest.mark.parametrize("scenario", RESPONSES)
def test_responses(urls: tuple[str, str], scenario: str) -> None:
    direct, through = both(urls, openai_at, _responses(scenario, **RESPONSES[scenario]))
    assert comparable(through) == comparable(direct)
    asked = {"temperature": 0.5, "top_p": 0.9}
    with openai_at(urls[1]) as client:
        told = _responses(scenario, **asked, **RESPONSES[scenario])(client)
    assert {"temperature": told.temperature, "top_p": told.top_p} == asked


@pytest.mark.parametrize("scenario", [one for one in RESPONSES if one not in ("length", "filter")])
def test_streamed_responses(urls: tuple[str, str], scenario: str) -> None:
    direct, through = both(urls, openai_at, _responses_streamed(scenario, **RESPONSES[scenario]))
    assert comparable(through) == comparable(direct)


@pytest.mark.parametrize("scenario", MESSAGES)
def test_messages(urls: tuple[str, str], scenario: str) -> None:
    direct, through = both(urls, anthropic_at, _messages(scenario, **MESSAGES[scenario]))
    assert comparable(through) == comparable(direct)


@pytest.mark.parametrize("scenario", MESSAGES)
def test_streamed_messages(urls: tuple[str, str], scenario: str) -> None:
    direct, through = both(urls, anthropic_at, _messages_streamed(scenario, **MESSAGES[scenario]))
    assert comparable(through) == comparable(direct)


# --- the kinds of events that a stream has ------------------------------------------------------------------


def _event_types(ask: Ask) -> Ask:
    return lambda client: [event.type for event in ask(client)]


@pytest.mark.parametrize("scenario", ["text", "tools", "thinking", "refusal", "cited", "length"])
def test_responses_streams_have_the_same_events_in_the_same_order(
    urls: tuple[str, str], scenario: str
) -> None:
    ask = _responses(scenario, stream=True, **RESPONSES[scenario])
    direct, through = both(urls, openai_at, _event_types(ask))
    if scenario == "tools":  # calls stay open until the end: a provider may send their pieces in any order
        assert sorted(_once(through)) == sorted(_once(direct))
    else:
        assert _once(through) == _once(direct)


@pytest.mark.parametrize("scenario", MESSAGES)
def test_messages_streams_have_the_same_events_in_the_same_order(
    urls: tuple[str, str], scenario: str
) -> None:
    ask = _messages(scenario, stream=True, **MESSAGES[scenario])
    direct, through = both(urls, anthropic_at, _event_types(ask))
    assert _once(through) == _once([kind for kind in direct if kind != "ping"])


def _once(kinds: list[str]) -> list[str]:
    """Deltas that follow each other are one: where a text is cut is nobody's promise."""
    return [
        kind for n, kind in enumerate(kinds) if n == 0 or kinds[n - 1] != kind or not kind.endswith("delta")
    ]


# --- structured output --------------------------------------------------------------------------------------


def test_parsed_answers(urls: tuple[str, str], upstream: VendorUpstream) -> None:
    def chat(client: openai.OpenAI) -> Any:
        return client.chat.completions.parse(model="json", messages=HELLO, response_format=Answer)

    def responses(client: openai.OpenAI) -> Any:
        return client.responses.parse(model="json", input="Hello.", text_format=Answer, store=False)

    def messages(client: anthropic.Anthropic) -> Any:
        return client.messages.parse(model="json", max_tokens=99, messages=HELLO, output_format=Answer)

    for make, ask in ((openai_at, chat), (openai_at, responses), (anthropic_at, messages)):
        direct, through = both(urls, make, ask)
        assert comparable(through) == comparable(direct)
        assert _meant(upstream.asked[-2].body) == _meant(upstream.asked[-1].body)
    with openai_at(urls[1]) as first, anthropic_at(urls[1]) as second:
        assert chat(first).choices[0].message.parsed == Answer(city="Bern", days=3)
        assert responses(first).output_parsed == Answer(city="Bern", days=3)
        assert messages(second).parsed_output == Answer(city="Bern", days=3)


@pytest.mark.parametrize("strict", [True, False, None])
@pytest.mark.parametrize("description", ["What is wanted.", None])
def test_a_schema_keeps_its_name_strictness_and_description(
    urls: tuple[str, str], upstream: VendorUpstream, strict: bool | None, description: str | None
) -> None:
    named = {"name": "trip_plan", "schema": SCHEMA, "strict": strict, "description": description}
    inner = {key: value for key, value in named.items() if value is not None}
    wanted = {"type": "json_schema", "json_schema": inner}
    with openai_at(urls[1]) as client:
        client.chat.completions.create(model="json", messages=HELLO, response_format=wanted)
        assert upstream.last.body["response_format"] == wanted
        form = {"format": {"type": "json_schema", **inner}}
        answered = client.responses.create(model="json", input="Hello.", text=form, store=False)
        assert upstream.last.body["text"] == form
    assert comparable(answered.text)["format.name"] == "trip_plan"


# --- what the provider gets ---------------------------------------------------------------------------------


def _meant(body: dict[str, Any]) -> dict[str, Any]:
    """A request body without forms that say the same in two ways."""
    same = {
        key: value for key, value in body.items() if key not in ("stream", "stream_options", "store", "n")
    }
    if isinstance(same.get("input"), str):
        same["input"] = [{"role": "user", "content": same["input"]}]
    for turn in same.get("messages", ()):
        content = turn.get("content")
        if isinstance(content, list) and [set(part) for part in content] == [{"type", "text"}]:
            turn["content"] = content[0]["text"]
    return same


REQUESTS: dict[str, tuple[Literal["chat", "responses", "messages"], dict[str, Any]]] = {
    "chat: every parameter": (
        "chat",
        {
            "messages": [
                {"role": "developer", "content": "Be kind."},
                {"role": "system", "content": "Be brief."},
                {"role": "user", "name": "ann", "content": "Hello."},
                {
                    "role": "assistant",
                    "content": "I look.",
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
                        },
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "Sunny."},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "And"}, {"type": "text", "text": " now?"}],
                },
            ],
            "tools": [{"type": "function", "function": {**WEATHER, "strict": True}}],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "parallel_tool_calls": False,
            "n": 1,
            "seed": 7,
            "service_tier": "flex",
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": ["END"],
            "max_completion_tokens": 50,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.2,
            "logit_bias": {"50256": -100},
            "reasoning_effort": "low",
            "verbosity": "low",
            "user": "customer-1",
            "metadata": {"order": "17"},
            "store": False,
            "prompt_cache_key": "k1",
            "safety_identifier": "s1",
        },
    ),
    "responses: every parameter": (
        "responses",
        {
            "instructions": "Be kind.",
            "input": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": "Hello."},
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Bern"}'},
                {"type": "function_call_output", "call_id": "c1", "output": "Sunny."},
            ],
            "tools": [RESPONSES_TOOL],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "max_output_tokens": 50,
            "max_tool_calls": 3,
            "service_tier": "flex",
            "temperature": 0.5,
            "top_p": 0.9,
            "reasoning": {"effort": "low"},
            "truncation": "auto",
            "user": "customer-1",
            "metadata": {"order": "17"},
            "text": {"verbosity": "low"},
        },
    ),
    "responses: a developer's turn comes first": (
        "responses",
        {"input": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hello."}]},
    ),
    "responses: a system turn comes first": (
        "responses",
        {"input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]},
    ),
    "messages: every parameter": (
        "messages",
        {
            "max_tokens": 50,
            "system": [
                {"type": "text", "text": "Be kind."},
                {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            ],
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Hello.", "cache_control": {"type": "ephemeral"}},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
                            "cache_control": {"type": "ephemeral"},
                        },
                        {
                            "type": "document",
                            "source": {"type": "text", "media_type": "text/plain", "data": "Terms."},
                            "title": "Terms",
                            "citations": {"enabled": True},
                            "cache_control": {"type": "ephemeral"},
                        },
                    ],
                },
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                        {"type": "text", "text": "I look."},
                        {
                            "type": "tool_use",
                            "id": "c1",
                            "name": "weather",
                            "input": {"city": "Bern"},
                            "cache_control": {"type": "ephemeral", "ttl": "5m"},
                        },
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "c1",
                            "content": "Sunny.",
                            "is_error": True,
                            "cache_control": {"type": "ephemeral"},
                        },
                        {"type": "text", "text": "And now?"},
                    ],
                },
            ],
            "tools": [{**MESSAGES_TOOL, "cache_control": {"type": "ephemeral"}}],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
            "extra_body": {"temperature": 0.5, "top_p": 0.9, "top_k": 5},
            "stop_sequences": ["END"],
            "metadata": {"user_id": "customer-1"},
            "service_tier": "auto",
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "cache_control": {"type": "ephemeral"},
        },
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_provider_gets_what_the_client_said(
    urls: tuple[str, str], upstream: VendorUpstream, name: str
) -> None:
    resource, body = REQUESTS[name]

    def ask(client: Any) -> Any:
        place = {"chat": "chat.completions", "responses": "responses", "messages": "messages"}[resource]
        target = client
        for step in place.split("."):
            target = getattr(target, step)
        return target.create(model="text", **body)

    both(urls, anthropic_at if resource == "messages" else openai_at, ask)
    direct, through = upstream.asked[-2].body, upstream.asked[-1].body
    assert _meant(through) == _meant(direct)


def test_every_chunk_names_tier_and_configuration_as_the_provider_does(urls: tuple[str, str]) -> None:
    def ask(client: openai.OpenAI) -> Any:
        with client.chat.completions.create(model="text", messages=HELLO, stream=True) as stream:
            return {(chunk.service_tier, chunk.system_fingerprint) for chunk in stream}

    direct, through = both(urls, openai_at, ask)
    assert direct == through == {("default", "fp_1")}


def test_a_guarded_stream_and_answer_name_them_too(upstream: VendorUpstream) -> None:
    with (
        served_vendors(upstream, {"default": Guard.load("default")}) as (served, _),
        openai_at(served.url) as gpt,
        anthropic_at(served.url) as claude,
    ):
        whole = _chat("text")(gpt)
        assert (whole.service_tier, whole.system_fingerprint) == ("default", "fp_1")
        final = _chat_streamed("text")(gpt)
        assert (final.service_tier, final.system_fingerprint) == ("default", "fp_1")
        assert _responses("text")(gpt).service_tier == "default"
        assert _responses_streamed("text")(gpt).service_tier == "default"
        for ask in (_messages("text"), _messages_streamed("text")):
            assert (ask(claude).usage.service_tier, ask(claude).usage.inference_geo) == ("standard", "us")
