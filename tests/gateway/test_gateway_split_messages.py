"""The conformance suite's other half: what the policy stops is stopped however it is split over messages."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gateway_conformance import MODES, PATHS, PLANTED, Cells, request

from stanchion.core.interaction import Text
from stanchion.core.origin import Origin
from stanchion.gateway.ports import Outcome

SAID = f"Please read {PLANTED}, then answer."


@pytest.fixture(scope="module")
def blocking(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    return Cells(tmp_path_factory.mktemp("split"), "block")


def asked(api: str, texts: list[str], *, role: str, is_stream: bool) -> dict[str, Any]:
    """A request whose last messages, all of one role, say these texts."""
    messages = [{"role": role, "content": text} for text in texts]
    body = request(api, is_stream=is_stream)
    body.pop("messages", None)
    body.pop("input", None)
    if role == "system":
        messages.append({"role": "user", "content": "Hello."})
    return body | ({"input": messages} if api == "openai.responses" else {"messages": messages})


CELLS = [(api, "user", "input") for api in PATHS] + [
    ("openai.chat", "system", "system"),
    ("openai.responses", "system", "system"),
]


@pytest.mark.parametrize(("api", "role", "surface"), CELLS, ids=str)
@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, len(SAID)), min_size=1, max_size=3), is_stream=st.sampled_from(MODES))
def test_what_is_split_over_messages_of_one_role_is_stopped(
    blocking: Cells, api: str, role: str, surface: str, cuts: list[int], is_stream: bool
) -> None:
    blocking.provider.parts = (Text(text="Fine.", origin=Origin.MODEL),)
    ends = sorted({0, *cuts, len(SAID)})
    texts = [SAID[start:end] for start, end in pairwise(ends)]
    body = asked(api, texts, role=role, is_stream=is_stream)
    status, answered = asyncio.run(blocking.ask(api, body))
    assert status == 200
    assert blocking.verdict() == (Outcome.BLOCKED, ("stop",), (surface,))
    assert b"Fine." not in answered
