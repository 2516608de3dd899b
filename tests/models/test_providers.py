"""Providers on the loopback interface: addresses, headers, bodies and answers as the references say."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from loopback import serving
from provider_loopback import (
    AZURE,
    CLAUDE,
    CLOCK,
    CREDENTIALS,
    Shown,
    Upstream,
    sse,
    streamed,
    whole,
)

from stanchion.core.clock import ManualClock
from stanchion.core.errors import StanchionError, UnavailableError, UsageError
from stanchion.core.interaction import (
    End,
    FinishReason,
    Opaque,
    Text,
    TextDelta,
    UnknownEvent,
    Usage,
)
from stanchion.core.origin import Origin
from stanchion.models.azure import FILTERED, AzureOptions, AzureProvider
from stanchion.models.bedrock import BedrockOptions, BedrockProvider
from stanchion.models.providers import AnthropicProvider, OpenAiProvider, Provider
from stanchion.models.vertex import (
    AccessTokens,
    ServiceAccount,
    StaticToken,
    VertexOptions,
    VertexProvider,
    service_account,
)

# --- direct -------------------------------------------------------------------------------------------------


async def test_a_request_carries_key_model_extras_and_trace() -> None:
    upstream = Upstream(AZURE["whole"])
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    async with serving(upstream.handle) as url:
        provider = OpenAiProvider(f"{url}/v1", key=Shown("k"))
        reply = await whole(provider, "gpt-x", extras={"logprobs": True}, headers=trace)
    assert reply.message.text == "Hello"
    [(path, headers, body)] = upstream.asked
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer k"
    assert headers["traceparent"] == trace["traceparent"]
    sent = json.loads(body)
    assert (sent["model"], sent["logprobs"], sent["max_completion_tokens"]) == ("gpt-x", True, 9)


@pytest.mark.parametrize(
    "name", ["Authorization", "x-api-key", "Host", "cookie", "X-Amz-Date", "a b", "a\r\nb"]
)
async def test_callers_cannot_replace_what_the_provider_says(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be added"):
        await whole(OpenAiProvider("http://127.0.0.1:1/v1"), headers={name: "x"})


@pytest.mark.parametrize("value", ["x\r\ny: z", "é"])
async def test_a_header_cannot_split_a_line(value: str) -> None:
    with pytest.raises(UsageError, match="cannot be added"):
        await whole(OpenAiProvider("http://127.0.0.1:1/v1"), headers={"traceparent": value})


@pytest.mark.parametrize("key", ["k\n", " k", "ké"])
def test_a_key_that_no_header_carries_is_refused_without_showing_it(key: str) -> None:
    for make in (
        lambda: OpenAiProvider("http://x/v1", key=Shown(key)),
        lambda: AnthropicProvider("http://x", key=Shown(key)),
        lambda: AzureProvider(AzureOptions(endpoint="http://x"), key=Shown(key)),
    ):
        with pytest.raises(UsageError, match="no HTTP header") as caught:
            make()
        assert key.strip() not in str(caught.value).split() or key.strip() == "k"


async def test_anthropic_is_asked_at_its_own_path() -> None:
    upstream = Upstream(CLAUDE["whole"])
    async with serving(upstream.handle) as url:
        reply = await whole(AnthropicProvider(f"{url}/v1", key=Shown("k"), beta=("a", "b")), "claude-x")
    assert reply.message.text == "Hello"
    [(path, headers, _)] = upstream.asked
    assert path == "/v1/messages"
    assert (headers["x-api-key"], headers["anthropic-beta"]) == ("k", "a,b")


async def test_errors_of_a_stream_are_clear() -> None:
    broken = Upstream(sse(AZURE["stream"][:3], done=False), kind="text/event-stream")
    async with serving(broken.handle) as url:
        with pytest.raises(UnavailableError, match="broke off"):
            await streamed(OpenAiProvider(f"{url}/v1"))
    page = Upstream(b"<html>", kind="text/html")
    async with serving(page.handle) as url:
        with pytest.raises(UnavailableError, match="HTML page"):
            await streamed(OpenAiProvider(f"{url}/v1"))
    twice = Upstream(b'{"choices": [], "choices": []}')
    async with serving(twice.handle) as url:
        with pytest.raises(UnavailableError, match="says a key twice"):
            await whole(OpenAiProvider(f"{url}/v1"))


# --- Azure --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, "/openai/v1/chat/completions"),
        ({"api_version": "preview"}, "/openai/v1/chat/completions?api-version=preview"),
        ({"path": "deployments", "api_version": "2024-10-21"},
            "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"),
    ],
)  # fmt: skip
async def test_azure_addresses_and_keys(options: dict[str, Any], path: str) -> None:
    upstream = Upstream(AZURE["whole"])
    async with serving(upstream.handle) as url:
        await whole(AzureProvider(AzureOptions(endpoint=url, **options), key=Shown("k")), "my-gpt")
        bearer = AzureOptions(endpoint=f"{url}/openai/v1", auth="bearer", **options)
        await whole(AzureProvider(bearer, key=Shown("t")), "my-gpt")
    (first, headers, body), (second, more, _) = upstream.asked
    assert first == second == path
    assert headers["api-key"] == "k"
    assert "authorization" not in headers
    assert more["authorization"] == "Bearer t"
    assert json.loads(body)["model"] == "my-gpt"


async def test_azure_streams_without_findings_are_plain() -> None:
    upstream = Upstream(sse(AZURE["stream"]), kind="text/event-stream")
    async with serving(upstream.handle) as url:
        reply, events = await streamed(AzureProvider(AzureOptions(endpoint=url), key=Shown("k")))
    assert reply.message.parts == (Text(text="Hello", origin=Origin.MODEL),)
    assert reply.usage == Usage(input_tokens=3, output_tokens=2)
    assert not any(isinstance(event, UnknownEvent) for event in events)


async def test_what_azure_filtered_is_told_before_the_end() -> None:
    values = [*AZURE["stream"][:4], AZURE["filtered_chunk"]]
    upstream = Upstream(sse(values), kind="text/event-stream")
    async with serving(upstream.handle) as url:
        _, events = await streamed(AzureProvider(AzureOptions(endpoint=url), key=Shown("k")))
    found, end = events[-2:]
    assert isinstance(found, UnknownEvent)
    assert found.kind == FILTERED
    assert found.payload["answer"]["violence"] == {"filtered": True, "severity": "high"}
    assert isinstance(end, End)
    assert end.finish_reason is FinishReason.CONTENT_FILTER


async def test_what_azure_detected_is_a_part_of_a_whole_answer() -> None:
    upstream = Upstream(AZURE["whole"])
    async with serving(upstream.handle) as url:
        reply = await whole(AzureProvider(AzureOptions(endpoint=url), key=Shown("k")))
    [part] = [part for part in reply.message.parts if isinstance(part, Opaque)]
    assert part.payload["answer"]["protected_material_text"]["detected"] is True


async def test_a_prompt_that_azure_stopped_is_a_blocked_answer() -> None:
    upstream = Upstream(AZURE["filtered_prompt"], status=400)
    async with serving(upstream.handle) as url:
        provider = AzureProvider(AzureOptions(endpoint=url), key=Shown("k"))
        reply = await whole(provider)
        again, _ = await streamed(provider)
    assert reply.finish_reason is again.finish_reason is FinishReason.CONTENT_FILTER
    other = Upstream({"error": {"code": "invalid_request"}}, status=400)
    async with serving(other.handle) as url:
        with pytest.raises(UnavailableError, match="invalid_request"):
            await whole(AzureProvider(AzureOptions(endpoint=url), key=Shown("k")))


@pytest.mark.parametrize(
    "options",
    [{"path": "deployments"}, {"api": "anthropic.messages"}, {"endpoint": "ftp://x"},
        {"api": "openai.responses", "path": "deployments", "api_version": "x"}],
)  # fmt: skip
def test_wrong_azure_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        AzureProvider(AzureOptions(**{"endpoint": "http://x", **options}), key=Shown("k"))


@pytest.mark.parametrize("model", ["", "a/b", "a?b", "a b", "..%2f"])
async def test_a_models_name_cannot_change_the_address(model: str) -> None:
    azure = AzureProvider(AzureOptions(endpoint="http://127.0.0.1:1"), key=Shown("k"))
    with pytest.raises(UsageError, match="cannot be the name"):
        await whole(azure, model)
    if model != "a b":
        vertex = VertexProvider(VertexOptions(project="p", location="l"), tokens=StaticToken(Shown("t")))
        with pytest.raises(StanchionError):
            await whole(vertex, f"{model}?x" if "/" in model else model)


# --- Vertex -------------------------------------------------------------------------------------------------

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


def unpacked(part: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


async def test_a_token_is_granted_for_a_signed_claim_and_kept() -> None:
    upstream = Upstream({"access_token": "ya29.x", "expires_in": 3600, "token_type": "Bearer"})
    clock = ManualClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    async with serving(upstream.handle) as url:
        account = service_account(
            {
                "client_email": "a@p.iam",
                "private_key": PEM,
                "private_key_id": "k1",
                "token_uri": f"{url}/token",
            },
            Shown,
        )
        tokens = AccessTokens(account, clock=clock)
        assert await asyncio.gather(*(tokens.token() for _ in range(5))) == ["ya29.x"] * 5
        clock.advance(3600 - 121)
        await tokens.token()
        assert len(upstream.asked) == 1
        clock.advance(2)
        await tokens.token()
        await tokens.aclose()
    assert len(upstream.asked) == 2
    form = parse_qs(upstream.asked[0][2].decode())
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    text, _, signed = form["assertion"][0].rpartition(".")
    raw = base64.urlsafe_b64decode(signed + "=" * (-len(signed) % 4))
    KEY.public_key().verify(raw, text.encode(), padding.PKCS1v15(), hashes.SHA256())
    header, claims = (unpacked(part) for part in text.split("."))
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    assert claims["iss"] == "a@p.iam"
    assert claims["aud"] == f"{url}/token"
    assert claims["exp"] - claims["iat"] == 3600
    assert PEM not in repr(account)


@pytest.mark.parametrize(
    ("answer", "status"),
    [({"error": "invalid_grant"}, 400), ({"token": "x"}, 200), ({"access_token": "x\ny"}, 200)],
)  # fmt: skip
async def test_no_token_is_a_clear_error(answer: dict[str, Any], status: int) -> None:
    upstream = Upstream(answer, status=status)
    async with serving(upstream.handle) as url:
        account = ServiceAccount(email="a", private_key=Shown(PEM), token_url=f"{url}/token")
        tokens = AccessTokens(account, clock=CLOCK)
        with pytest.raises(UnavailableError) as caught:
            await tokens.token()
        await tokens.aclose()
    assert "PRIVATE" not in str(caught.value)


async def test_a_key_that_cannot_be_read_is_not_shown() -> None:
    tokens = AccessTokens(
        ServiceAccount(email="a", private_key=Shown("s3cret"), token_url="http://x"), clock=CLOCK
    )
    with pytest.raises(UsageError, match="no RSA key") as caught:
        await tokens.token()
    assert "s3cret" not in str(caught.value)


def vertex(url: str, api: Any) -> VertexProvider:
    options = VertexOptions(project="p-1", location="europe-west1", api=api, endpoint=url)
    return VertexProvider(options, tokens=StaticToken(Shown("tok")))


async def test_claude_on_vertex() -> None:
    upstream = Upstream(sse(CLAUDE["events"], named=True, done=False), kind="text/event-stream")
    async with serving(upstream.handle) as url:
        reply, events = await streamed(vertex(url, "messages"), "claude-x@20250514")
        upstream.body, upstream.kind = json.dumps(CLAUDE["whole"]).encode(), "application/json"
        again = await whole(vertex(url, "messages"), "claude-x@20250514")
    assert reply.message.text == again.message.text == "Hello"
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hel", "lo"]
    (path, headers, body), (other, _, _) = upstream.asked
    place = "/v1/projects/p-1/locations/europe-west1/publishers/anthropic/models/claude-x@20250514"
    assert path == f"{place}:streamRawPredict"
    assert other == f"{place}:rawPredict"
    assert headers["authorization"] == "Bearer tok"
    sent = json.loads(body)
    assert sent["anthropic_version"] == "vertex-2023-10-16"
    assert sent["stream"] is True
    assert "model" not in sent


async def test_other_models_on_vertex() -> None:
    upstream = Upstream(AZURE["whole"])
    async with serving(upstream.handle) as url:
        await whole(vertex(url, "chat"), "google/gemini-x")
    [(path, _, body)] = upstream.asked
    assert path == "/v1/projects/p-1/locations/europe-west1/endpoints/openapi/chat/completions"
    assert json.loads(body)["model"] == "google/gemini-x"


@pytest.mark.parametrize("options", [{"project": "a/b"}, {"location": ""}, {"endpoint": "file:///x"}])
def test_wrong_vertex_options_are_refused(options: dict[str, str]) -> None:
    named = {"project": "p", "location": "l", **options}
    with pytest.raises(UsageError):
        VertexProvider(VertexOptions(**named), tokens=StaticToken(Shown("t")))


def test_public_addresses() -> None:
    tokens = StaticToken(Shown("t"))

    async def urls() -> list[str]:
        providers: list[Provider] = [
            VertexProvider(VertexOptions(project="p", location="global"), tokens=tokens),
            VertexProvider(VertexOptions(project="p", location="us-east5"), tokens=tokens),
            BedrockProvider(BedrockOptions(region="eu-central-1"), credentials=CREDENTIALS, clock=CLOCK),
        ]
        return [(await p.call({}, model="m", stream=False)).url for p in providers]

    assert [url.split("/")[2] for url in asyncio.run(urls())] == [
        "aiplatform.googleapis.com",
        "us-east5-aiplatform.googleapis.com",
        "bedrock-runtime.eu-central-1.amazonaws.com",
    ]
