"""One verdict, wherever a text is cut into blocks: parts, content blocks with a call between, thoughts.

What a reader reads as one text is checked as one, in every API, streamed or not, asked or answered.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_gateway_conformance import (
    MODES,
    PATHS,
    PLANTED,
    QUICK,
    Cells,
    _said,
    request,
    sizes,
    words,
)

from stanchion.core.interaction import Part, Reasoning, Refusal, Text, ToolCall
from stanchion.core.origin import Origin
from stanchion.gateway.ports import Outcome

cuts = st.lists(st.integers(0, 40), min_size=1, max_size=3)
LAYOUTS = ("texts", "texts with calls between", "text and refusal", "thoughts")


@pytest.fixture(scope="module")
def blocking(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    return Cells(tmp_path_factory.mktemp("block"), "block")


@pytest.fixture(scope="module")
def redacting(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    return Cells(tmp_path_factory.mktemp("redact"), "redact")


def pieces(text: str, places: Sequence[int]) -> list[str]:
    """The text in pieces, none of them empty."""
    bounds = sorted({0, len(text), *(place % len(text) for place in places)})
    return [text[start:end] for start, end in itertools.pairwise(bounds)]


def parts_of(layout: str, said: str, places: Sequence[int]) -> tuple[Part, ...]:
    """An answer that says the text over several blocks."""
    cut = pieces(said, places)
    match layout:
        case "thoughts":
            thoughts = [Reasoning(text=piece) for piece in cut]
            return (*thoughts, Text(text="As I thought.", origin=Origin.MODEL))
        case "text and refusal":
            texts = [Text(text=piece, origin=Origin.MODEL) for piece in cut[:-1]]
            return (*texts, Refusal(text=cut[-1]))
    parts: list[Part] = []
    for number, piece in enumerate(cut):
        if number and layout == "texts with calls between":
            parts.append(ToolCall(id=f"c{number}", name="look_up", arguments={"what": [str(number)]}))
        parts.append(Text(text=piece, origin=Origin.MODEL))
    return tuple(parts)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("effect", ["block", "redact"])
@QUICK
@given(sizes=sizes, said=words, places=cuts)
def test_an_answer_over_several_blocks_is_decided_like_one(
    blocking: Cells,
    redacting: Cells,
    effect: str,
    layout: str,
    sizes: list[int],
    said: str,
    places: list[int],
) -> None:
    cells = blocking if effect == "block" else redacting
    outcome = Outcome.BLOCKED if effect == "block" else Outcome.REDACTED

    async def run() -> None:
        cells.provider.parts, cells.provider.sizes = parts_of(layout, said, places), sizes
        for api in PATHS:
            for is_stream in MODES:
                status, body = await cells.ask(api, request(api, is_stream=is_stream))
                assert status == 200, (api, is_stream)
                assert cells.verdict()[:2] == (outcome, ("stop",)), (api, is_stream)
                assert PLANTED not in _joined(_said(body)), (api, is_stream)

    asyncio.run(run())


def _joined(said: str) -> str:
    """What a client that puts all texts together would read."""
    return said + "".join(said.split("\n"))


def asked(api: str, role: str, cut: list[str]) -> dict[str, Any]:
    """A request in which one turn says the text over several parts."""
    if api == "openai.responses":
        kind = "output_text" if role == "assistant" else "input_text"
        turn = {"role": role, "content": [{"type": kind, "text": piece} for piece in cut]}
        return {"input": [turn, {"role": "user", "content": "Go on."}]}
    texts = [{"type": "text", "text": piece} for piece in cut]
    if api == "anthropic.messages" and role == "system":
        return {"system": texts, "messages": [{"role": "user", "content": "Go on."}]}
    return {"messages": [{"role": role, "content": texts}, {"role": "user", "content": "Go on."}]}


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
@QUICK
@given(said=words, places=cuts)
def test_a_turn_over_several_parts_is_decided_like_one(
    blocking: Cells, role: str, said: str, places: list[int]
) -> None:
    async def run() -> None:
        blocking.provider.parts = (Text(text="Fine.", origin=Origin.MODEL),)
        for api in PATHS:
            for is_stream in MODES:
                body = request(api, is_stream=is_stream)
                body.pop("messages", None)
                body.pop("input", None)
                _, answered = await blocking.ask(api, body | asked(api, role, pieces(said, places)))
                assert blocking.verdict()[:2] == (Outcome.BLOCKED, ("stop",)), (api, is_stream)
                assert "Fine." not in _said(answered), (api, is_stream)

    asyncio.run(run())


@pytest.mark.parametrize("role", ["user", "assistant"])
@QUICK
@given(said=words, places=cuts)
def test_a_turn_over_several_messages_is_decided_like_one(
    blocking: Cells, role: str, said: str, places: list[int]
) -> None:
    async def run() -> None:
        blocking.provider.parts = (Text(text="Fine.", origin=Origin.MODEL),)
        turns = [{"role": role, "content": piece} for piece in pieces(said, places)]
        turns.append({"role": "user" if role == "assistant" else "assistant", "content": "Go on."})
        for api in PATHS:
            body = request(api, is_stream=False)
            body.pop("messages", None)
            body.pop("input", None)
            where = "input" if api == "openai.responses" else "messages"
            _, answered = await blocking.ask(api, body | {where: turns})
            assert blocking.verdict()[:2] == (Outcome.BLOCKED, ("stop",)), api
            assert "Fine." not in _said(answered), api

    asyncio.run(run())
