"""Errors, retries and raw answers: the vendors' clients see the same through the gateway as of the vendor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from vendor_gateway import Ask, anthropic_at, both, openai_at, served_vendors
from vendor_upstream import VendorUpstream

from stanchion.guard.pipeline import Guard

HELLO = [{"role": "user", "content": "What is your return policy?"}]


@pytest.fixture(scope="module")
def upstream() -> Iterator[VendorUpstream]:
    with VendorUpstream() as made:
        yield made


@pytest.fixture(scope="module")
def urls(upstream: VendorUpstream) -> Iterator[tuple[str, str]]:
    with served_vendors(upstream, {"default": Guard.unprotected()}) as (served, _):
        yield upstream.url, served.url


def _chat(model: str, **more: Any) -> Ask:
    return lambda client: client.chat.completions.create(model=model, messages=HELLO, **more)


def _responses(model: str, **more: Any) -> Ask:
    return lambda client: client.responses.create(model=model, input="Hello.", store=False, **more)


def _messages(model: str, **more: Any) -> Ask:
    return lambda client: client.messages.create(model=model, max_tokens=99, messages=HELLO, **more)


STATUSES = (400, 401, 403, 404, 413, 422, 429, 500, 503, 529)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_the_same_exceptions(urls: tuple[str, str], status: int, stream: bool) -> None:
    def caught(ask: Ask) -> Ask:
        def run(client: Any) -> tuple[type, int, str | None]:
            with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as raised:
                ask(client)
            headers = raised.value.response.headers
            return type(raised.value), raised.value.status_code, headers.get("retry-after")

        return run

    asks = {
        openai_at: (_chat(f"e{status}", stream=stream), _responses(f"e{status}", stream=stream)),
        anthropic_at: (_messages(f"e{status}", stream=stream),),
    }
    for make, listed in asks.items():
        for ask in listed:
            direct, through = both(urls, make, caught(ask))
            assert through == direct


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_of_the_gateways_that_is_refused_is_not_the_clients_fault(
    upstream: VendorUpstream, status: int
) -> None:
    guards = {"default": Guard.unprotected()}
    with (
        served_vendors(upstream, guards, gpt={"key": "sk-of-the-gateway"}) as (served, _),
        openai_at(served.url) as client,
        pytest.raises(openai.InternalServerError) as raised,
    ):
        client.chat.completions.create(model=f"e{status}", messages=HELLO)
    assert (raised.value.status_code, raised.value.code) == (502, "upstream_key")
    assert raised.value.response.headers["x-should-retry"] == "false"


def test_a_busy_provider_is_asked_again_as_the_client_would_ask_the_vendor(
    urls: tuple[str, str], upstream: VendorUpstream
) -> None:
    for status in (429, 500, 503, 529):
        tried = []
        for url in urls:
            before = len(upstream.asked)
            with (
                openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=1) as client,
                pytest.raises(openai.APIStatusError),
            ):
                client.with_options(timeout=30).chat.completions.create(model=f"e{status}", messages=HELLO)
            tried.append(len(upstream.asked) - before)
        assert tried == [2, 2], status


def test_raw_answers_name_the_gateways_request(urls: tuple[str, str]) -> None:
    with openai_at(urls[1]) as client:
        raw = client.chat.completions.with_raw_response.create(model="text", messages=HELLO)
        assert raw.request_id == raw.headers["x-request-id"] == raw.headers["x-stanchion-reference"]
        assert raw.parse().choices[0].finish_reason == "stop"
        with client.chat.completions.with_streaming_response.create(model="text", messages=HELLO) as streamed:
            assert streamed.json()["choices"][0]["finish_reason"] == "stop"
    with anthropic_at(urls[1]) as client:
        said = client.messages.with_raw_response.create(model="text", max_tokens=9, messages=HELLO)
        assert said.request_id == said.headers["request-id"] == said.headers["x-stanchion-reference"]
        assert said.parse().stop_reason == "end_turn"


async def test_the_async_clients_get_the_same(urls: tuple[str, str]) -> None:
    async with (
        openai.AsyncOpenAI(base_url=f"{urls[1]}/v1", api_key="k", max_retries=0) as client,
        anthropic.AsyncAnthropic(base_url=urls[1], api_key="k", max_retries=0) as claude,
    ):
        said = await client.responses.create(model="thinking", input="Hello.", store=False)
        async with client.responses.stream(model="thinking", input="Hello.", store=False) as stream:
            streamed = await (await stream.until_done()).get_final_response()
        assert streamed.output_text == said.output_text
        message = await claude.messages.create(model="thinking", max_tokens=9, messages=HELLO)
        async with claude.messages.stream(model="thinking", max_tokens=9, messages=HELLO) as events:
            assert (await events.get_final_message()).content[1].text == message.content[1].text
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="e429", messages=HELLO)
        with pytest.raises(anthropic.OverloadedError):
            await claude.messages.create(model="e529", max_tokens=9, messages=HELLO)
