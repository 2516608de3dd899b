"""The vendors' own clients as judges: they read what we write, and we read what they write."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web
from loopback import serving

from stanchion.core.interaction import (
    FinishReason,
    Interaction,
    Media,
    Message,
    Reasoning,
    Reply,
    Role,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
    Usage,
)
from stanchion.core.origin import Origin
from stanchion.models.anthropic import decode_request as decode_anthropic
from stanchion.models.anthropic_answers import EventEncoder
from stanchion.models.anthropic_answers import encode_response as encode_anthropic
from stanchion.models.endpoint import EndpointModel
from stanchion.models.events import collect, events_of
from stanchion.models.openai import decode_request as decode_openai
from stanchion.models.openai_answers import ChunkEncoder
from stanchion.models.openai_answers import encode_response as encode_openai
from stanchion.models.sse import encode_sse

REPLY = Reply(
    message=Message(
        role=Role.ASSISTANT,
        parts=(
            Text(text="Let me look. Grüße 👋", origin=Origin.MODEL),
            ToolCall(id="call_1", name="lookup_order", arguments={"id": 7, "note": "é"}),
            ToolCall(id="call_2", name="refund", arguments={}),
        ),
    ),
    finish_reason=FinishReason.TOOL_CALLS,
    model="demo-1",
    usage=Usage(input_tokens=12, output_tokens=5, cached_input_tokens=4),
)
SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}}}


class Gateway:
    """Answers both APIs with one reply, through our codecs only, and keeps what it was asked."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked: list[Interaction] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        is_openai = request.path.endswith("/chat/completions")
        decoded = (decode_openai if is_openai else decode_anthropic)(body)
        self.asked.append(decoded.interaction)
        if not decoded.stream:
            return web.json_response(
                encode_openai(self.reply, response_id="r1", created=1)
                if is_openai
                else encode_anthropic(self.reply, response_id="r1")
            )
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for piece in self._pieces(is_openai, include_usage=decoded.include_usage):
            await response.write(piece)
        return response

    def _pieces(self, is_openai: bool, *, include_usage: bool) -> list[bytes]:
        events = list(events_of(self.reply, chunk_chars=3))
        if is_openai:
            chunks = ChunkEncoder(response_id="r1", created=1, model="demo-1", include_usage=include_usage)
            pieces = [encode_sse(json.dumps(c)) for e in events for c in chunks.feed(e)]
            return [*pieces, encode_sse("[DONE]")]
        blocks = EventEncoder(response_id="r1", model="demo-1")
        return [encode_sse(json.dumps(d), event=name) for e in events for name, d in blocks.feed(e)]


@asynccontextmanager
async def openai_client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        yield client


@asynccontextmanager
async def anthropic_client(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
        yield client


OPENAI_ASKED: dict[str, Any] = {
    "model": "demo-1",
    "messages": [
        {"role": "system", "content": "Be kind."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Where is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
            ],
        },
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "c0",
                    "type": "function",
                    "function": {"name": "lookup_order", "arguments": '{"id":1}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c0", "content": "It is lost."},
    ],
    "tools": [
        {"type": "function", "function": {"name": "lookup_order", "description": "d", "parameters": SCHEMA}}
    ],
    "max_completion_tokens": 50,
}
ANTHROPIC_ASKED: dict[str, Any] = {
    "model": "demo-1",
    "max_tokens": 50,
    "system": "Be kind.",
    "tools": [{"name": "lookup_order", "description": "d", "input_schema": SCHEMA}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Where is it?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c0", "name": "lookup_order", "input": {"id": 1}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "c0", "content": "It is lost."}],
        },
    ],
}


def check_asked(asked: Interaction) -> None:
    """Both clients asked the same thing, and it arrived as the same thing."""
    system, user, called, result = asked.messages
    assert system.text == "Be kind."
    assert user.text == "Where is it?"
    assert isinstance(user.parts[1], Media)
    assert user.parts[1].media_type == "image/png"
    assert called.tool_calls == (ToolCall(id="c0", name="lookup_order", arguments={"id": 1}),)
    assert result.parts == (
        ToolResult(call_id="c0", name="lookup_order", text="It is lost.", origin=Origin.TOOL_RESULT),
    )
    assert asked.tools == (ToolDefinition(name="lookup_order", description="d", parameters=SCHEMA),)
    assert asked.sampling.max_output_tokens == 50


async def test_openai_client_whole() -> None:
    gateway = Gateway(REPLY)
    async with serving(gateway.handle) as url, openai_client(url) as client:
        completion = await client.chat.completions.create(**OPENAI_ASKED)
    check_asked(gateway.asked[0])
    [choice] = completion.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me look. Grüße 👋"
    calls = choice.message.tool_calls or []
    assert [(c.id, c.function.name, json.loads(c.function.arguments)) for c in calls] == [  # type: ignore[union-attr]
        ("call_1", "lookup_order", {"id": 7, "note": "é"}),
        ("call_2", "refund", {}),
    ]
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 12
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 4


async def test_openai_client_streamed() -> None:
    gateway = Gateway(REPLY)
    async with serving(gateway.handle) as url, openai_client(url) as client:
        streaming = client.chat.completions.stream(**OPENAI_ASKED, stream_options={"include_usage": True})
        async with streaming as stream:
            completion = await stream.get_final_completion()
    check_asked(gateway.asked[0])
    message = completion.choices[0].message
    assert message.content == "Let me look. Grüße 👋"
    assert [json.loads(c.function.arguments) for c in message.tool_calls or []] == [
        {"id": 7, "note": "é"},
        {},
    ]
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 5


async def test_anthropic_client_whole() -> None:
    gateway = Gateway(REPLY)
    async with serving(gateway.handle) as url, anthropic_client(url) as client:
        message = await client.messages.create(**ANTHROPIC_ASKED)
    check_asked(gateway.asked[0])
    check_anthropic_message(message)


async def test_anthropic_client_streamed() -> None:
    gateway = Gateway(REPLY)
    async with (
        serving(gateway.handle) as url,
        anthropic_client(url) as client,
        client.messages.stream(**ANTHROPIC_ASKED) as stream,
    ):
        message = await stream.get_final_message()
    check_asked(gateway.asked[0])
    check_anthropic_message(message)


def check_anthropic_message(message: anthropic.types.Message) -> None:
    text, first, second = message.content
    assert isinstance(text, anthropic.types.TextBlock)
    assert text.text == "Let me look. Grüße 👋"
    assert isinstance(first, anthropic.types.ToolUseBlock)
    assert (first.id, first.name, first.input) == ("call_1", "lookup_order", {"id": 7, "note": "é"})
    assert isinstance(second, anthropic.types.ToolUseBlock)
    assert second.input == {}
    assert message.stop_reason == "tool_use"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (8, 5)
    assert message.usage.cache_read_input_tokens == 4


async def test_anthropic_client_reads_thinking_and_its_signature() -> None:
    parts = (
        Reasoning(text="hm", signature="sig"),
        Reasoning(text="", signature="sealed", redacted=True),
        Text(text="Yes.", origin=Origin.MODEL),
    )
    reply = Reply(message=Message(role=Role.ASSISTANT, parts=parts), model="demo-1")
    async with (
        serving(Gateway(reply).handle) as url,
        anthropic_client(url) as client,
        client.messages.stream(**ANTHROPIC_ASKED) as stream,
    ):
        message = await stream.get_final_message()
    thinking, sealed, text = message.content
    assert isinstance(thinking, anthropic.types.ThinkingBlock)
    assert (thinking.thinking, thinking.signature) == ("hm", "sig")
    assert isinstance(sealed, anthropic.types.RedactedThinkingBlock)
    assert sealed.data == "sealed"
    assert isinstance(text, anthropic.types.TextBlock)


@pytest.mark.parametrize("api", ["openai", "anthropic"])
@pytest.mark.parametrize("stream", [False, True])
async def test_our_client_and_our_server_agree(api: Any, stream: bool) -> None:
    """The whole circle, over a real connection: encode, decode, answer, decode."""
    gateway = Gateway(REPLY)
    decode: Callable[..., Any] = decode_openai if api == "openai" else decode_anthropic
    asked = decode(OPENAI_ASKED if api == "openai" else ANTHROPIC_ASKED).interaction
    async with serving(gateway.handle) as url:
        base = f"{url}/v1" if api == "openai" else url
        model = EndpointModel(base, api=api, model="demo-1")
        try:
            if stream:
                reply = await collect(model.stream(asked))
            else:
                answered = await model.invoke(asked)
                assert answered.reply is not None
                reply = answered.reply
        finally:
            await model.aclose()
    assert reply.message == REPLY.message
    assert reply.usage == REPLY.usage
    assert reply.finish_reason is REPLY.finish_reason
    assert gateway.asked == [asked]
