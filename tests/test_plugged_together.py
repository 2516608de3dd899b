"""What is plugged together: targets that ask once and keep answers, guards around them, judges by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from pydantic import TypeAdapter

from stanchion.bootstrap import judge_factory, make_registry, make_target
from stanchion.config import Settings, load_settings
from stanchion.core.clock import SystemClock
from stanchion.core.errors import FilesError, UnavailableError
from stanchion.core.interaction import Interaction, user
from stanchion.evals.cache import AnswerCache
from stanchion.evals.target_file import AnyTargetModel

QUESTION = Interaction(messages=(user("How long?"),))
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "30 days"}, "finish_reason": "stop"}]}
MESSAGE = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "30 days"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 2},
}


class Endpoint:
    """A chat endpoint that counts; busy when its path says so."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        if request.path.startswith("/busy"):
            return web.Response(status=503)
        if request.path.endswith("/messages"):
            return web.json_response(MESSAGE)
        return web.json_response(ANSWER)


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
def answers() -> Iterator[AnswerCache]:
    cache = AnswerCache(None, clock=SystemClock())
    yield cache
    cache.close()


def target(model: dict[str, Any], *, answers: AnswerCache | None = None, folder: Path = Path()) -> Any:
    read = TypeAdapter[AnyTargetModel](AnyTargetModel).validate_python(model)
    settings = load_settings()
    return make_target(read, settings, folder=folder, registry=make_registry(settings), answers=answers)


async def said(asked: Any) -> str:
    try:
        reply = (await asked.invoke(QUESTION)).reply
    finally:
        await asked.aclose()
    return str(reply.message.text)


async def test_an_answer_is_asked_for_once_even_under_a_guard(
    endpoint: Endpoint, answers: AnswerCache
) -> None:
    plain = {"kind": "endpoint", "base_url": f"{endpoint.url}/v1", "model": "m"}
    guarded = {"kind": "guard", "policy": "default", "around": plain}
    assert await said(target(plain, answers=answers)) == "30 days"
    assert await said(target(guarded, answers=answers)) == "30 days"
    assert len(endpoint.paths) == 1
    assert await said(target(guarded)) == "30 days"
    assert len(endpoint.paths) == 2


async def test_a_target_asks_once_and_leaves_asking_again_to_the_run(endpoint: Endpoint) -> None:
    model = {"kind": "endpoint", "base_url": f"{endpoint.url}/busy", "model": "m"}
    for each in (model, {"kind": "guard", "around": model}):
        endpoint.paths.clear()
        with pytest.raises(UnavailableError):
            await said(target(each))
        assert len(endpoint.paths) == 1


async def test_a_policy_file_of_a_guard_lies_beside_the_suite(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match=r"policy\.yaml"):
        target({"kind": "guard", "policy": "policy.yaml"}, folder=tmp_path)
    assert "30" not in await said(target({"kind": "guard"}))


@pytest.mark.parametrize(
    ("name", "path", "identity"),
    [
        ("gpt", "/openai/chat/completions", "gpt"),
        ("openai/gpt", "/openai/chat/completions", "gpt"),
        ("acme/gpt", "/openai/chat/completions", "acme/gpt"),
        ("anthropic/claude", "/anthropic/v1/messages", "claude"),
    ],
)
async def test_a_judge_is_found_by_its_name(endpoint: Endpoint, name: str, path: str, identity: str) -> None:
    base: dict[str, Any] = {
        "openai_base_url": f"{endpoint.url}/openai",
        "anthropic_base_url": f"{endpoint.url}/anthropic",
    }
    judge = judge_factory(load_settings().model_copy(update=base))(name)
    assert identity in judge.id
    assert await said(judge) == "30 days"
    assert endpoint.paths == [path]


def test_the_local_model_judges_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path | None] = []
    monkeypatch.setattr("stanchion.models.local.LocalModel", made.append)
    judge_factory(Settings.model_construct())("local")
    assert made == [None]
