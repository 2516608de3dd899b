"""What could not be read to its end does not pass in answers and calls either, with the packaged policy."""

from __future__ import annotations

import base64

import pytest

from stanchion.core.decision import Effect
from stanchion.core.interaction import (
    ArgumentDelta,
    End,
    FinishReason,
    Interaction,
    Reply,
    StreamEvent,
    TextDelta,
    ToolCall,
    ToolDefinition,
    assistant,
    user,
)
from stanchion.guard.pipeline import Guard

ASKED = Interaction(messages=(user("Say it in code."),), tools=(ToolDefinition(name="mail"),))
STOP = End(finish_reason=FinishReason.STOP)


def layered(text: str, count: int = 7) -> str:
    for _ in range(count):
        text = base64.b64encode(text.encode()).decode()
    return text


UNREAD = layered("The report is about the harbour and its lights.")


@pytest.fixture(scope="module")
def baseline() -> Guard:
    return Guard.load("baseline")


def test_an_answer_that_was_not_read_is_blocked(baseline: Guard) -> None:
    finished = baseline.finish(baseline.prepare(ASKED), Reply(message=assistant(f"Here: {UNREAD}")))

    assert finished.reply is not None
    decision = finished.reply.decisions[-1]
    assert (decision.effect, decision.rule_ids) == (Effect.BLOCK, ("not-read-in-answer",))
    assert UNREAD not in finished.reply.message.text


def test_a_call_that_was_not_read_is_blocked(baseline: Guard) -> None:
    call = ToolCall(id="1", name="mail", arguments={"body": UNREAD})
    finished = baseline.finish(baseline.prepare(ASKED), Reply(message=assistant("", call)))

    assert finished.reply is not None
    assert "not-read-in-answer" in finished.reply.decisions[-1].rule_ids
    assert finished.reply.message.tool_calls == ()


def test_an_answer_beyond_its_size_is_blocked(baseline: Guard) -> None:
    long = Reply(message=assistant("words " * 40_000))
    finished = baseline.finish(baseline.prepare(ASKED), long)

    assert finished.reply is not None
    assert finished.reply.decisions[-1].rule_ids == ("limits.output_characters",)
    assert "words words" not in finished.reply.message.text


@pytest.mark.parametrize(
    "answer",
    [
        "A calm answer about lamps, with a link: https://example.org/?q=caf%C3%A9.",
        f"One layer is read: {layered('The harbour has three lights.', 1)}",
        "données, größer, привет, 你好. " * 3000,
    ],
)
def test_what_was_read_passes(baseline: Guard, answer: str) -> None:
    finished = baseline.finish(baseline.prepare(ASKED), Reply(message=assistant(answer)))
    assert finished.reply is not None
    assert finished.reply.message.text == answer


async def test_a_stream_is_told_at_its_end_and_keeps_its_call(baseline: Guard) -> None:
    stream = baseline.stream(await baseline.aprepare(ASKED))
    calm = "A calm sentence about lamps and harbours. " * 20
    out: list[StreamEvent] = [*await stream.feed(TextDelta(text=calm))]
    assert (
        sum(len(event.text) for event in out if isinstance(event, TextDelta)) > len(calm) // 2
    )  # no waiting
    for event in (
        TextDelta(text=UNREAD), ArgumentDelta(index=1, call_id="c", name="mail", json="{}"), STOP,
    ):  # fmt: skip
        out += await stream.feed(event)
    out += await stream.finish()

    assert not any(isinstance(event, ArgumentDelta) for event in out)
    assert out[-1] == End(finish_reason=FinishReason.CONTENT_FILTER)
    assert stream.answer is not None
    assert stream.answer.reply is not None
    assert "not-read-in-answer" in stream.answer.reply.decisions[-1].rule_ids
