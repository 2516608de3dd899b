"""Bedrock on the loopback interface: signed requests, Converse, and Claude in a binary stream."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import serving
from provider_loopback import (
    CLAUDE,
    CLOCK,
    CONVERSE,
    CREDENTIALS,
    EVENT_STREAM,
    Upstream,
    streamed,
    whole,
)

from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import (
    FinishReason,
    Interaction,
    Media,
    Message,
    Reasoning,
    Reply,
    Role,
    Sampling,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
    Usage,
    assistant,
    system,
    user,
)
from stanchion.core.origin import Origin
from stanchion.models.aws_event_stream import encode_message
from stanchion.models.aws_signature import Scope, Signer
from stanchion.models.bedrock import BedrockOptions, BedrockProvider, ConverseReader, InvokeReader
from stanchion.models.bedrock_converse import decode_response, encode_request
from stanchion.models.events import Assembler
from stanchion.models.surfaces import SURFACES
from stanchion.models.translation import fitted
from stanchion.models.wire import media_from_url


def bedrock(url: str, **options: Any) -> BedrockProvider:
    return BedrockProvider(
        BedrockOptions(region="us-east-1", endpoint=url, **options), credentials=CREDENTIALS, clock=CLOCK
    )


def binary(events: list[Any]) -> bytes:
    return b"".join(
        encode_message(
            {":event-type": kind, ":content-type": "application/json", ":message-type": "event"},
            json.dumps(value).encode(),
        )
        for kind, value in events
    )


def chunks(values: list[Any]) -> bytes:
    said = [{"bytes": base64.b64encode(json.dumps(value).encode()).decode(), "p": "abc"} for value in values]
    return binary([["chunk", value] for value in said])


async def test_bedrock_requests_are_signed_as_they_are_sent() -> None:
    upstream = Upstream(CONVERSE["response"])
    async with serving(upstream.handle) as url:
        await whole(bedrock(url), "anthropic.claude-v1:0", headers={"traceparent": "00-1-2-01"})
    [(path, headers, body)] = upstream.asked
    assert path == "/model/anthropic.claude-v1%3A0/converse"
    covered = headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    assert {"host", "content-type", "traceparent", "x-amz-date"} <= set(covered)
    signer = Signer(CREDENTIALS, Scope(region="us-east-1", service="bedrock"))
    sent = {name: headers[name] for name in covered if name not in ("host", "x-amz-date")}
    again = signer.sign("POST", f"{url}{path}", headers=sent, body=body, now=CLOCK.now())
    assert again["authorization"] == headers["authorization"]


def test_a_converse_request_is_as_the_reference_says() -> None:
    call = ToolCall(id="t1", name="lookup", arguments={"id": 1})
    picture = media_from_url("data:image/png;base64,aGk=", origin=Origin.USER, fallback_type="image/*")
    result = ToolResult(call_id="t1", name="lookup", text="Lost.", is_error=True)
    asked = Interaction(
        messages=(
            system("Be kind."),
            Message(role=Role.USER, parts=(Text(text="Where is it?", origin=Origin.USER), picture)),
            assistant("", call),
            Message(role=Role.TOOL, parts=(result,)),
            user("And now?"),
        ),
        tools=(ToolDefinition(name="lookup", description="d", parameters={"type": "object"}),),
        sampling=Sampling(
            max_output_tokens=50, temperature=0.5, top_p=0.9, stop=("END",), tool_choice="required"
        ),
    )
    assert encode_request(asked) == CONVERSE["request"]


def check_converse(reply: Reply) -> None:
    thought, words, call = reply.message.parts
    assert thought == Reasoning(text="hm", signature="sig")
    assert words == Text(text="Let me look.", origin=Origin.MODEL)
    assert call == ToolCall(id="t2", name="lookup", arguments={"id": 2})
    assert reply.finish_reason is FinishReason.TOOL_CALLS
    assert reply.usage == Usage(input_tokens=13, output_tokens=5, cached_input_tokens=3)


async def test_converse_answers() -> None:
    check_converse(decode_response(CONVERSE["response"]))
    upstream = Upstream(binary(CONVERSE["stream"]), kind=EVENT_STREAM)
    async with serving(upstream.handle) as url:
        reply, _ = await streamed(bedrock(url), "m")
    check_converse(reply)
    assert upstream.asked[0][0] == "/model/m/converse-stream"


@given(st.lists(st.integers(0, 99_999), max_size=20))
@settings(deadline=None)
def test_converse_streams_under_every_cutting(cuts: list[int]) -> None:
    raw = binary(CONVERSE["stream"])
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    reader, assembler = ConverseReader(), Assembler()
    for a, b in pairwise(edges):
        for event in reader.feed(raw[a:b]):
            assembler.feed(event)
    assert reader.is_over
    assert reader.end() == []
    check_converse(assembler.reply())


async def test_claude_on_bedrock_speaks_messages_in_chunks() -> None:
    upstream = Upstream(chunks(CLAUDE["events"]), kind=EVENT_STREAM)
    async with serving(upstream.handle) as url:
        reply, _ = await streamed(bedrock(url, api="messages"), "anthropic.claude-v1:0")
    assert reply.message.text == "Hello"
    assert reply.usage == Usage(input_tokens=9, output_tokens=4)
    [(path, _, body)] = upstream.asked
    assert path == "/model/anthropic.claude-v1%3A0/invoke-with-response-stream"
    sent = json.loads(body)
    assert sent["anthropic_version"] == "bedrock-2023-05-31"
    assert not {"model", "stream"} & set(sent)


DELTA = {":message-type": "event", ":event-type": "contentBlockDelta"}


@pytest.mark.parametrize(
    ("raw", "why", "is_retryable"),
    [
        (encode_message({":message-type": "exception", ":exception-type": "throttlingException"}, b"{}"),
            "throttlingException", True),
        (encode_message({":message-type": "exception", ":exception-type": "validationException"}, b"{}"),
            "validationException", False),
        (encode_message({":message-type": "error", ":error-code": "Broken"}), "Broken", False),
        (encode_message({}, b"{}"), "notype|no type|without a code", False),
        (encode_message(DELTA, b"{"), "not JSON", False),
        (encode_message(DELTA, b"[]"), "shape", False),
        (encode_message(DELTA, b'{"a":1,"a":2}'), "key twice", False),
        (binary(CONVERSE["stream"][:6]), "broke off", True),
        (binary(CONVERSE["stream"])[:-3], "broke off", True),
        (b"", "broke off", True),
    ],
)  # fmt: skip
def test_what_goes_wrong_in_a_binary_stream_is_clear(raw: bytes, why: str, is_retryable: bool) -> None:
    reader = ConverseReader()
    with pytest.raises(UnavailableError, match=why) as caught:
        [*reader.feed(raw), *reader.end()]
    assert caught.value.is_retryable is is_retryable


def test_chunks_that_are_no_base64_are_refused() -> None:
    with pytest.raises(UnavailableError, match="base64"):
        InvokeReader().feed(binary([["chunk", {"bytes": "*"}]]))


@given(
    st.binary(max_size=60), st.dictionaries(st.sampled_from(["bytes", "delta", "x"]), st.text(), max_size=2)
)
@settings(deadline=None)
def test_no_payload_crashes_a_reader(raw: bytes, value: dict[str, str]) -> None:
    for payload in (raw, json.dumps(value).encode()):
        for reader, kind in ((ConverseReader(), "contentBlockDelta"), (InvokeReader(), "chunk")):
            try:
                reader.feed(encode_message({":message-type": "event", ":event-type": kind}, payload))
            except UnavailableError:
                continue


@pytest.mark.parametrize(
    "asked",
    [
        Interaction(messages=(user("x"),), sampling=Sampling(response_schema={"type": "object"})),
        Interaction(
            messages=(user("x"),), tools=(ToolDefinition(name="f"),), sampling=Sampling(tool_choice="none")
        ),
        Interaction(messages=(assistant("", ToolCall(id="c", name="f", arguments=None, raw_arguments="{")),)),
        Interaction(messages=(Message(role=Role.USER, parts=(Media(
            media_type="image/png", origin=Origin.USER, digest="", location="https://example.com/a.png"),)),)),
    ],
)  # fmt: skip
def test_what_converse_cannot_say_is_refused(asked: Interaction) -> None:
    with pytest.raises(UsageError):
        encode_request(asked)


WORDS = {
    "openai.chat": {"model": "m", "messages": [{"role": "user", "content": "Where is it?"}], "seed": 1},
    "openai.responses": {"model": "m", "input": "Where is it?", "reasoning": {"effort": "low"}},
    "anthropic.messages": {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Where is it?"}],
        "top_k": 3,
    },
}


@pytest.mark.parametrize(
    ("surface", "lost"), [("openai.chat", "seed"), ("openai.responses", "reasoning_effort"),
        ("anthropic.messages", "top_k")],
)  # fmt: skip
def test_every_surface_can_be_asked_of_converse(surface: str, lost: str) -> None:
    asked = SURFACES[surface].decode_request(WORDS[surface])
    fit = fitted(asked, surface=surface, upstream="bedrock.converse")
    body = encode_request(fit.interaction, extras=fit.extras)
    assert body["messages"] == [{"role": "user", "content": [{"text": "Where is it?"}]}]
    assert fit.extras == {}
    assert fit.lost == {lost: 1}
