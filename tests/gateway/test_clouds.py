"""Clouds from the gateway file: asked in their own way, whatever API the request came by."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stanchion.core.clock import SystemClock
from stanchion.core.errors import FilesError, UnavailableError, UsageError
from stanchion.core.interaction import FinishReason
from stanchion.files.schema import load_file
from stanchion.gateway.asking import question_for
from stanchion.gateway.building import make_models
from stanchion.gateway.extra_parameters import check_extras
from stanchion.gateway.gateway_file import GatewayModel
from stanchion.gateway.ports import Refused
from stanchion.gateway.upstream import Question, Route
from stanchion.models.surfaces import SURFACES

CHAT = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}]
}
CONVERSED = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 1, "outputTokens": 2},
}
CLAUDE = {"model": "c", "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn"}
ASKED: dict[str, dict[str, Any]] = {
    "openai.chat": {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "seed": 1},
    "openai.responses": {"model": "m", "input": "Hi"},
    "anthropic.messages": {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hi"}],
    },
}


class Cloud:
    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.raw_path, headers, await request.json()))
        return web.json_response(self.answer)


@asynccontextmanager
async def served(cloud: Cloud) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", cloud.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def written(tmp_path: Path, provider: str) -> Path:
    (tmp_path / "key").write_text("a-secret")
    path = tmp_path / "gateway.yaml"
    path.write_text(f"""
providers:
  cloud:
    key: "${{file:key}}"
{provider}
models:
  m: {{provider: cloud, model: there-v1}}
""")
    return path


def route(tmp_path: Path, provider: str) -> Route:
    loaded = load_file(written(tmp_path, provider), GatewayModel)
    models = make_models(loaded.value, folder=tmp_path, clock=SystemClock())
    return models.find("m", vendor="openai")


CASES = [
    ("    api: azure\n    azure: {endpoint: URL}", CHAT, "/openai/v1/chat/completions", "api-key"),
    ("    api: bedrock\n    bedrock: {region: eu-central-1, access_key: AK, endpoint: URL}", CONVERSED,
        "/model/there-v1/converse", "x-amz-date"),
    ("    api: vertex\n    vertex: {project: p, location: l, endpoint: URL}", CLAUDE,
        "/v1/projects/p/locations/l/publishers/anthropic/models/there-v1:rawPredict", "authorization"),
]  # fmt: skip


@pytest.mark.parametrize("surface", list(ASKED))
@pytest.mark.parametrize(("provider", "answer", "path", "header"), CASES, ids=["azure", "bedrock", "vertex"])
async def test_any_request_is_asked_of_a_cloud(
    tmp_path: Path, surface: str, provider: str, answer: Any, path: str, header: str
) -> None:
    cloud = Cloud(answer)
    async with served(cloud) as url:
        there = route(tmp_path, provider.replace("URL", url))
        request = SURFACES[surface].decode_request(ASKED[surface])
        question = Question(request=request, surface=surface, model=there.model)
        upstream = there.provider.upstream
        reply = await upstream.ask(question)
        batches = [batch async for batch in upstream.stream(question)]
        await upstream.aclose()
    assert reply.message.text == "Hello"
    assert reply.finish_reason is FinishReason.STOP
    assert len(batches) == 1
    [(said, headers, body), (again, _, _)] = cloud.asked
    assert said == path
    assert again.startswith(path.rpartition("/")[0])
    assert header in headers
    assert "a-secret" not in json.dumps(body)
    assert ("seed" in question.lost) is (surface == "openai.chat" and "azure" not in provider)


async def test_a_clients_own_key_goes_to_no_cloud(tmp_path: Path) -> None:
    there = route(tmp_path, "    api: azure\n    azure: {endpoint: http://127.0.0.1:1}")
    request = SURFACES["openai.chat"].decode_request(ASKED["openai.chat"])
    with pytest.raises(UsageError, match="own key"):
        await there.provider.upstream.ask(
            Question(request=request, surface="openai.chat", model="m", key="sk-client")
        )
    assert not there.provider.takes_keys


@pytest.mark.parametrize(
    "provider",
    ["    api: azure", "    api: bedrock\n    bedrock: {region: x}", "    api: vertex\n    azure: {endpoint: http://x}"],
)  # fmt: skip
def test_a_cloud_without_its_section_is_told_where(tmp_path: Path, provider: str) -> None:
    with pytest.raises(FilesError, match=r"gateway\.yaml:\d"):
        load_file(written(tmp_path, provider), GatewayModel)


# --- betas of Anthropic's API -------------------------------------------------------------------------------

BEDROCK = (
    "    api: bedrock\n    bedrock: {region: eu-central-1, access_key: AK, endpoint: URL, api: messages}"
)
VERTEX = "    api: vertex\n    vertex: {project: p, location: l, endpoint: URL}"
BETAS = "context-1m-2025-08-07,interleaved-thinking-2025-05-14"


def by_the_sdk(platform: str, betas: str) -> tuple[str, dict[str, Any]]:
    """What Anthropic's own client for a cloud makes of betas: the header left, and the body."""
    from anthropic._models import FinalRequestOptions

    body = json.loads(json.dumps(ASKED["anthropic.messages"]))
    options = FinalRequestOptions.construct(
        method="post", url="/v1/messages", json_data=body, headers={"anthropic-beta": betas}
    )
    if platform == "bedrock":
        from anthropic.lib.bedrock._client import _prepare_options as prepare

        made = prepare(options, {})
    else:
        from anthropic.lib.vertex._client import _prepare_options as prepare_vertex

        made = prepare_vertex(options, project_id="p", region="l")
    headers: Any = made.headers
    return str(headers.get("anthropic-beta", "")), dict(made.json_data)  # type: ignore[call-overload]


async def sent(tmp_path: Path, provider: str, betas: str, *, more: str = "") -> list[Any]:
    """What reaches a cloud of a message with betas, whole and streamed, by the gateway's rules."""
    cloud = Cloud(CLAUDE)
    async with served(cloud) as url:
        there = route(tmp_path, provider.replace("URL", url) + more)
        request = SURFACES["anthropic.messages"].decode_request(ASKED["anthropic.messages"])
        headers = {"anthropic-beta": betas, "anthropic-version": "2023-06-01"}
        check_extras(request, surface="anthropic.messages", provider=there.provider, headers=headers)
        question = Question(request=request, surface="anthropic.messages", model=there.model, headers=headers)
        asked = question_for(there, question)
        await there.provider.upstream.ask(asked)
        with contextlib.suppress(UnavailableError):  # the answer of this fake is no stream of the cloud's
            async for _ in there.provider.upstream.stream(asked):
                pass
        await there.provider.upstream.aclose()
    assert len(cloud.asked) == 2
    return cloud.asked


async def test_bedrock_gets_betas_in_the_body_as_its_own_client_sends_them(tmp_path: Path) -> None:
    _, wanted = by_the_sdk("bedrock", BETAS)
    for path, headers, body in await sent(tmp_path, BEDROCK, BETAS):
        assert body["anthropic_beta"] == wanted["anthropic_beta"] == BETAS.split(",")
        assert "/invoke" in path
        assert not {"anthropic-beta", "anthropic-version"} & headers.keys()
        signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0]
        assert "anthropic-beta" not in signed


async def test_vertex_gets_betas_in_the_header_as_its_own_client_sends_them(tmp_path: Path) -> None:
    header, wanted = by_the_sdk("vertex", BETAS)
    for _, headers, body in await sent(tmp_path, VERTEX, BETAS):
        assert headers["anthropic-beta"] == header == BETAS
        assert "anthropic_beta" not in body
        assert "anthropic_beta" not in wanted
        assert "anthropic-version" not in headers


@pytest.mark.parametrize("provider", [BEDROCK, VERTEX], ids=["bedrock", "vertex"])
async def test_a_cloud_gets_no_beta_that_is_not_allowed(tmp_path: Path, provider: str) -> None:
    both = f"{BETAS},computer-use-2025-01-24"
    with pytest.raises(Refused, match="computer-use"):
        await sent(tmp_path, provider, both)
    for _, headers, body in await sent(tmp_path, provider, both, more="\n    unknown_betas: drop"):
        said = body.get("anthropic_beta") or headers["anthropic-beta"].split(",")
        assert said == BETAS.split(",")
    for _, headers, body in await sent(
        tmp_path, provider, both, more="\n    allow_betas: [computer-use-2025-01-24]"
    ):
        assert (body.get("anthropic_beta") or headers["anthropic-beta"].split(",")) == both.split(",")


async def test_converse_is_another_api_and_gets_no_betas(tmp_path: Path) -> None:
    cloud = Cloud(CONVERSED)
    async with served(cloud) as url:
        there = route(tmp_path, CASES[1][0].replace("URL", url))
        request = SURFACES["anthropic.messages"].decode_request(ASKED["anthropic.messages"])
        question = Question(
            request=request,
            surface="anthropic.messages",
            model=there.model,
            headers={"anthropic-beta": BETAS},
        )
        await there.provider.upstream.ask(question_for(there, question))
        await there.provider.upstream.aclose()
    [(_, headers, body)] = cloud.asked
    assert "anthropic-beta" not in headers
    assert "anthropic_beta" not in body
    assert question.lost["anthropic-beta"] == 2, "left out, and counted"
