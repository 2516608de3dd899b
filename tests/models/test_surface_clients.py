"""The vendors' own clients read what every surface writes: answers, streams, blocked answers, errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web
from loopback import serving

from stanchion.core.interaction import (
    Citation,
    End,
    FinishReason,
    Message,
    Reasoning,
    Refusal,
    Reply,
    Role,
    StreamEvent,
    Text,
    ToolCall,
    Usage,
    assistant,
)
from stanchion.core.origin import Origin
from stanchion.models.events import events_of
from stanchion.models.openai_vectors import (
    ModerationVerdict,
    anthropic_models,
    moderation_reply,
    openai_models,
)
from stanchion.models.surfaces import SURFACES
from stanchion.models.upstreams import UPSTREAMS

REPLY = Reply(
    message=Message(
        role=Role.ASSISTANT,
        parts=(
            Reasoning(text="Think first."),
            Text(text="Let me look. Grüße 👋", origin=Origin.MODEL),
            ToolCall(id="call_1", name="lookup", arguments={"id": 7, "note": "é"}),
            ToolCall(id="call_2", name="refund", arguments={}),
        ),
    ),
    finish_reason=FinishReason.TOOL_CALLS,
    model="demo-1",
    usage=Usage(input_tokens=12, output_tokens=5, cached_input_tokens=4),
)
BLOCKED = Reply(message=assistant("I cannot help with that."), finish_reason=FinishReason.CONTENT_FILTER)
REFUSED = Reply(message=Message(role=Role.ASSISTANT, parts=(Refusal(text="No."),)), model="demo-1")
TOOL = {
    "type": "function",
    "name": "lookup",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}
PATHS = {
    "/v1/chat/completions": "openai.chat",
    "/v1/responses": "openai.responses",
    "/v1/embeddings": "openai.embeddings",
    "/v1/moderations": "openai.moderations",
    "/v1/messages": "anthropic.messages",
}


class Server:
    """Answers every API with one reply through the surfaces; may break a stream off with an error."""

    def __init__(self, reply: Reply, *, breaks_after: int | None = None, status: int = 200) -> None:
        self.reply = reply
        self.breaks_after = breaks_after
        self.status = status

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/models":
            is_openai = "authorization" in request.headers
            listed = openai_models(["a", "b"], created=1) if is_openai else anthropic_models(
                ["a", "b"], created="2026-01-01T00:00:00Z")  # fmt: skip
            return web.json_response(listed)
        codec = SURFACES[PATHS[request.path]]
        if self.status != 200:
            said = {"code": "limited", "message": "Too much.", "retry_after_s": 3.0}
            return web.json_response(codec.encode_error(status=self.status, **said), status=self.status)  # type: ignore[arg-type]
        asked = codec.decode_request(await request.json())
        if not asked.stream:
            body = codec.encode_reply(self.reply, asked=asked, response_id="resp_1", created=7)
            return web.json_response(body)
        encoder = codec.stream_encoder(asked=asked, response_id="resp_1", created=7)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number, event in enumerate(self._events()):
            if number == self.breaks_after:
                frames = encoder.error(status=503, code="switched_off", message="It was switched off.")
                await response.write(b"".join(frames))
                return response
            await response.write(b"".join(encoder.feed(event)))
        await response.write(b"".join(encoder.finish()))
        return response

    def _events(self) -> list[StreamEvent]:
        return list(events_of(self.reply, chunk_chars=3))


@asynccontextmanager
async def openai_at(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        serving(server.handle) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client,
    ):
        yield client


@asynccontextmanager
async def anthropic_at(server: Server) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with (
        serving(server.handle) as url,
        anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client,
    ):
        yield client


def check_response(response: Any) -> None:
    thought, message, first, second = response.output
    assert thought.summary[0].text == "Think first."
    assert message.content[0].text == "Let me look. Grüße 👋"
    assert response.output_text == "Let me look. Grüße 👋"
    calls = [(call.call_id, call.name, json.loads(call.arguments)) for call in (first, second)]
    assert calls == [("call_1", "lookup", {"id": 7, "note": "é"}), ("call_2", "refund", {})]
    assert response.status == "completed"
    assert response.usage.input_tokens_details.cached_tokens == 4
    assert response.tools[0].name == "lookup"


async def test_responses_whole() -> None:
    async with openai_at(Server(REPLY)) as client:
        check_response(await client.responses.create(model="m", input="Hi", tools=[TOOL]))  # type: ignore[list-item]


async def test_responses_streamed() -> None:
    async with (
        openai_at(Server(REPLY)) as client,
        client.responses.stream(model="m", input="Hi", tools=[TOOL]) as stream,  # type: ignore[list-item]
    ):
        kinds = [event.type async for event in stream]
        check_response(await stream.get_final_response())
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert "response.function_call_arguments.done" in kinds


async def test_a_refusal_and_a_citation_reach_a_responses_client() -> None:
    async with openai_at(Server(REFUSED)) as client:
        response = await client.responses.create(model="m", input="Hi")
        async with client.responses.stream(model="m", input="Hi") as stream:
            streamed = await stream.get_final_response()
    for answer in (response, streamed):
        assert answer.output[0].content[0].refusal == "No."  # type: ignore[union-attr]


class Citing(Server):
    def _events(self) -> list[StreamEvent]:
        link = {"type": "url_citation", "url": "https://example.com", "title": "E", "start_index": 0}
        cited = Citation(document_id="https://example.com", wire=link | {"end_index": 1})
        words, end = next(iter(events_of(BLOCKED))), End(finish_reason=FinishReason.STOP, model="m")
        return [words, cited, end]


async def test_a_citation_reaches_a_responses_client() -> None:
    async with (
        openai_at(Citing(BLOCKED)) as client,
        client.responses.stream(model="m", input="Hi") as stream,
    ):
        response = await stream.get_final_response()
    [annotation] = response.output[0].content[0].annotations  # type: ignore[union-attr]
    assert annotation.url == "https://example.com"  # type: ignore[union-attr]


async def test_blocked_answers_do_not_crash_the_clients() -> None:
    async with openai_at(Server(BLOCKED)) as client:
        ask: Any = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        completion = await client.chat.completions.create(**ask)
        streamed = [chunk async for chunk in await client.chat.completions.create(**ask, stream=True)]
        with pytest.raises(openai.ContentFilterFinishReasonError):  # this helper of the client always does
            async with client.chat.completions.stream(**ask) as chat:
                await chat.get_final_completion()
        response = await client.responses.create(model="m", input="Hi")
        async with client.responses.stream(model="m", input="Hi") as stream:
            events = [event async for event in stream]
    assert completion.choices[0].finish_reason == "content_filter"
    assert completion.choices[0].message.content == "I cannot help with that."
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == "I cannot help with that."
    assert streamed[-1].choices[0].finish_reason == "content_filter"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "content_filter"
    assert response.output_text == "I cannot help with that."
    assert events[-1].type == "response.incomplete"
    async with anthropic_at(Server(BLOCKED)) as other:
        asked: Any = {"model": "m", "max_tokens": 9, "messages": ask["messages"]}
        message = await other.messages.create(**asked)
        async with other.messages.stream(**asked) as said:
            last = await said.get_final_message()
    for one in (message, last):
        assert one.stop_reason == "refusal"
        assert one.content[0].text == "I cannot help with that."  # type: ignore[union-attr]


async def test_errors_in_the_middle_of_a_stream_are_raised() -> None:
    server = Server(REPLY, breaks_after=6)
    async with openai_at(server) as client:
        ask: Any = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        with pytest.raises(openai.APIError, match="switched off") as caught:
            _ = [chunk async for chunk in await client.chat.completions.create(**ask)]
        assert caught.value.code == "switched_off"
        with pytest.raises(openai.APIError, match="switched off") as caught:
            _ = [event async for event in await client.responses.create(model="m", input="Hi", stream=True)]
        assert caught.value.code == "switched_off"
    async with anthropic_at(server) as other:
        asked: Any = {"model": "m", "max_tokens": 9, "messages": ask["messages"]}
        with pytest.raises(anthropic.APIStatusError, match="switched off"):
            async with other.messages.stream(**asked) as stream:
                await stream.get_final_message()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "BadRequestError"), (401, "AuthenticationError"), (403, "PermissionDeniedError"),
        (404, "NotFoundError"), (429, "RateLimitError"), (503, "InternalServerError")],
)  # fmt: skip
async def test_errors_are_the_clients_own_exceptions(status: int, kind: str) -> None:
    server = Server(REPLY, status=status)
    async with openai_at(server) as client:
        with pytest.raises(getattr(openai, kind), match=r"Try again in 3 s") as caught:
            await client.responses.create(model="m", input="Hi")
        assert caught.value.code == "limited"
    async with anthropic_at(server) as other:
        # the client calls 503 a ServiceUnavailableError, which it does not export
        name = anthropic.APIStatusError if status == 503 else getattr(anthropic, kind)
        with pytest.raises(name, match=r"Try again in 3 s"):
            await other.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])


async def test_free_text_tools_reach_both_openai_apis() -> None:
    call = ToolCall(id="c", name="sql", arguments=None, raw_arguments="select 1")
    reply = Reply(message=assistant("", call), finish_reason=FinishReason.TOOL_CALLS, model="m")
    async with openai_at(Server(reply)) as client:
        tool: Any = {"type": "custom", "custom": {"name": "sql"}}
        completion = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi"}], tools=[tool]
        )
        response = await client.responses.create(
            model="m", input="Hi", tools=[{"type": "custom", "name": "sql"}]
        )
    [made] = completion.choices[0].message.tool_calls or []
    assert made.type == "custom"
    assert made.custom.input == "select 1"
    assert response.output[0].type == "custom_tool_call"
    assert response.output[0].input == "select 1"


async def test_embeddings_moderations_and_models() -> None:
    vectors = [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}]
    body = {"object": "list", "data": vectors, "model": "e", "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    async with openai_at(Server(UPSTREAMS["openai.embeddings"].decode_reply(body))) as client:
        embedded = await client.embeddings.create(model="e", input=["x"], encoding_format="float")
        models = await client.models.list()
    assert embedded.data[0].embedding == [0.5, -1.0]
    assert embedded.usage.total_tokens == 2
    assert [model.id for model in models.data] == ["a", "b"]
    verdict = ModerationVerdict(flagged=True, categories={"violence": True}, scores={"violence": 0.9})
    async with openai_at(Server(moderation_reply([verdict], model="own"))) as client:
        moderation = await client.moderations.create(input="x")
    assert moderation.results[0].flagged
    assert moderation.results[0].category_scores.violence == 0.9
    async with anthropic_at(Server(REPLY)) as other:
        page = await other.models.list()
    assert [model.id for model in page.data] == ["a", "b"]
