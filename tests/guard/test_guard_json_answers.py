"""What is rewritten in answers that are JSON leaves JSON, whole and streamed, however it is cut."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.interaction import (
    End,
    FinishReason,
    Interaction,
    Message,
    Reply,
    Role,
    Text,
    TextDelta,
    assistant,
)
from stanchion.core.origin import Origin
from stanchion.core.resources import data_path
from stanchion.guard.json_answer import JsonAnswer, fitted
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy import load_policy
from stanchion.guard.policy_model import Redaction
from stanchion.guard.redaction import Mark, Redactor
from stanchion.guard.rules import Operator

CARD = "4539578763621486"
ASKED = Interaction(messages=(Message(role=Role.USER, parts=(Text(text="Hi.", origin=Origin.USER),)),))
REDACTOR = Redactor(Redaction(), key=b"k" * 32)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@pytest.fixture(scope="module")
def guard() -> Guard:
    return Guard.load(load_policy(data_path("policies", "default.yaml")))


def whole(guard: Guard, text: str) -> str:
    prepared = guard.prepare(ASKED)
    reply = guard.finish(prepared, Reply(message=assistant(text))).reply
    assert reply is not None
    return reply.message.text


def streamed(guard: Guard, text: str, size: int) -> str:
    async def run() -> str:
        stream = guard.stream(await guard.aprepare(ASKED))
        said = []
        for at in range(0, len(text), size):
            said += await stream.feed(TextDelta(text=text[at : at + size]))
        said += await stream.feed(End(finish_reason=FinishReason.STOP))
        return "".join(event.text for event in said if isinstance(event, TextDelta))

    return asyncio.run(run())


ANSWERS = [
    f'{{"card": {CARD}}}',
    f'{{"a": 1, "cards": [{CARD}, {CARD}], "ok": true}}',
    f'{{"card": "{CARD}", "mail": "\\nanna.meier@example.com"}}',
    f'{{"at": "\\u00e9\\nalice.b@example.com", "n": {CARD}}}',
    f"[{CARD}]",
    f' {{"card": {CARD}',
]
PROSE = [f"It is {CARD}.", f"[note] It is {CARD}.", f"{{name}} {CARD}", f"[1] {CARD}"]
OPERATORS = [Operator.REPLACE, Operator.MASK, Operator.PLACEHOLDER, Operator.HASH]
SPANS = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 40)), max_size=6)


@pytest.mark.parametrize("text", ANSWERS)
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_redacted_answer_is_json_still_and_the_same_streamed(guard: Guard, text: str, size: int) -> None:
    said = whole(guard, text)
    assert CARD not in said
    closed = said + "}" * (said.count("{") - said.count("}"))
    read: Any = json.loads(closed)
    assert "[" in json.dumps(read)
    assert streamed(guard, text, size) == said


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("text", PROSE)
def test_prose_gets_no_quotes(guard: Guard, text: str, size: int) -> None:
    said = whole(guard, text)
    assert '"' not in said
    assert CARD not in said
    assert streamed(guard, text, size) == said


@given(JSON, SPANS, st.booleans(), st.sampled_from(OPERATORS))
@settings(deadline=None, max_examples=300)
def test_any_marks_leave_json(value: Any, spans: Any, ascii_: bool, operator: Operator) -> None:
    text = json.dumps({"v": value}, ensure_ascii=ascii_)
    marks = [
        Mark(start=at, end=min(at + length, len(text)), category="pii.card", operator=operator)
        for at, length in spans
        if at < len(text) and set(text[at : at + length]) - set('{}[]":, ')
    ]
    said = REDACTOR.redact(text, fitted(text, marks))
    assert isinstance(json.loads(said, object_pairs_hook=list), list)


@given(JSON, st.lists(st.integers(1, 9), min_size=1, max_size=20))
@settings(deadline=None)
def test_what_is_read_does_not_hang_on_the_pieces(value: Any, sizes: list[int]) -> None:
    text = json.dumps([value], ensure_ascii=False)
    answer, at = JsonAnswer(), 0
    for number in range(len(text)):
        size = sizes[number % len(sizes)]
        answer.add(text[at : at + size])
        at = min(at + size, len(text))
        assert answer.whole_to(at) <= at
    answer.close()
    mark = Mark(start=0, end=len(text), category="pii.card", operator=Operator.REPLACE)
    assert answer.fitted([mark]) == JsonAnswer(text, is_over=True).fitted([mark])
    assert not answer.is_prose or text in ("[]", "[{}]")
