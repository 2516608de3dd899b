"""A stream that waits for a detector of the whole answer leaks nothing, and ends as the unstreamed one does.

What leaves on the way, where nothing needs the whole answer, is tested in `test_guard_streaming_frames.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from guard_fakes import Words, guard, policy, rule, with_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.components import ComponentSet
from stanchion.core.decision import Effect, Surface
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.interaction import (
    ArgumentDelta,
    Citation,
    End,
    FinishReason,
    Interaction,
    Reply,
    StreamEvent,
    TextDelta,
    ToolDefinition,
    UnknownEvent,
    Usage,
    UsageEvent,
    user,
)
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy_model import Handling, Limits, ToolRules, WholeMessage
from stanchion.guard.rules import Operator
from stanchion.models.events import Assembler

OUT = rule("redact", id="out", surfaces=(Surface.OUTPUT,))
STOP = End(finish_reason=FinishReason.STOP, model="m")
ASKED = Interaction(messages=(user("write to u@b.c"),), session_id="s", tools=(ToolDefinition(name="mail"),))


def made(*rules: Any, **fields: Any) -> Guard:
    vault = rule("redact", id="in", surfaces=(Surface.INPUT,), operator=Operator.VAULT)
    waits = with_settings(stream=WholeMessage.BUFFER)
    return guard(
        policy(vault, *rules, detectors=waits, tools=ToolRules(default=Effect.ALLOW), **fields),
        Words(pattern=r"\w+@[\w.]+\w"),
    )


async def through(guarded: Guard, events: list[StreamEvent]) -> tuple[list[StreamEvent], Interaction | None]:
    stream = guarded.stream(await guarded.aprepare(ASKED))
    out: list[StreamEvent] = []
    for event in events:
        out.extend(await stream.feed(event))
    out.extend(await stream.finish())
    return out, stream.answer


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in itertools.pairwise(ends)]


def summary(events: list[StreamEvent]) -> Any:
    """What a client has in the end, without the ids of decisions."""
    assembler = Assembler()
    for event in events:
        assembler.feed(event)
    reply = assembler.reply()
    return msgspec.structs.replace(reply, usage=Usage())


@settings(deadline=None, max_examples=60)
@given(
    text=st.lists(st.sampled_from(["a@b.c ", "TOKEN ", "hello ", "\n", "x@"]), max_size=6).map("".join),
    json_text=st.sampled_from(
        ['{"to": "TOKEN"}', '{"to": "z@y.x"}', '{"to": ["a", "\\u003cTOK>"]}', "{", "{}"]
    ),
    cuts=st.lists(st.integers(0, 200), max_size=12),
    effect=st.sampled_from(["allow", "redact", "replace", "block"]),
)
async def test_for_every_chunking_the_client_has_the_same_and_never_more(
    text: str, json_text: str, cuts: list[int], effect: str
) -> None:
    rules = rule(effect, id="out", surfaces=(Surface.OUTPUT, Surface.TOOL_CALL))
    guarded = made(rules)
    token = guarded.prepare(ASKED).interaction.messages[0].text.split()[-1]
    text = text.replace("TOKEN", token)
    json_text = json_text.replace("TOKEN", token).replace("\\u003cTOK>", "\\u003c" + token[1:])
    events: list[StreamEvent] = [TextDelta(text=piece) for piece in cut(text, cuts)]
    events.append(ArgumentDelta(index=1, call_id="c", name="mail"))
    events += [ArgumentDelta(index=1, json=piece) for piece in cut(json_text, cuts)]
    events.append(STOP)
    unstreamed = Assembler()
    for event in events:
        unstreamed.feed(event)
    wanted = guarded.finish(guarded.prepare(ASKED), unstreamed.reply()).reply
    assert wanted is not None

    streamed, answer = await through(guarded, events)

    shown = str(msgspec.to_builtins(streamed))
    if effect != "allow":
        assert "a@b.c" not in shown
        assert "z@y.x" not in shown
    got = summary(streamed)
    assert got.finish_reason is wanted.finish_reason
    if got.finish_reason is FinishReason.CONTENT_FILTER:
        assert got.message.tool_calls == ()
    else:
        assert got.message == wanted.message
        assert token not in shown
    assert answer is not None
    assert answer.reply is not None
    assert answer.reply.finish_reason is got.finish_reason


async def test_nothing_leaves_before_the_end_but_counts() -> None:
    guarded = made(OUT)
    stream = guarded.stream(guarded.prepare(ASKED))
    count = UsageEvent(usage=Usage(output_tokens=1))

    assert await stream.feed(TextDelta(text="hello")) == ()
    assert await stream.feed(count) == (count,)
    assert await stream.feed(ArgumentDelta(index=1, call_id="1", name="mail", json="{}")) == ()
    released = await stream.feed(STOP)
    assert released == (
        TextDelta(text="hello"),
        ArgumentDelta(index=1, call_id="1", name="mail", json="{}"),
        STOP,
    )
    assert await stream.feed(count) == (count,)
    with pytest.raises(UsageError, match="came after the end"):
        await stream.feed(TextDelta(text="more"))


async def test_an_answer_that_breaks_off_leaves_nothing() -> None:
    guarded = made(OUT)
    stream = guarded.stream(guarded.prepare(ASKED))
    assert await stream.feed(TextDelta(text="hello")) == ()
    with pytest.raises(UnavailableError, match="broke off"):
        await stream.finish()
    with pytest.raises(UsageError, match="broke"):
        await stream.feed(STOP)


async def test_the_vault_gives_values_back_in_a_stream() -> None:
    guarded = made()
    token = guarded.prepare(ASKED).interaction.messages[0].text.split()[-1]
    events: list[StreamEvent] = [TextDelta(text="I wrote to "), *(TextDelta(text=c) for c in token), STOP]
    out, _ = await through(guarded, events)

    assert "".join(e.text for e in out if isinstance(e, TextDelta)) == "I wrote to u@b.c"


@pytest.mark.parametrize("handling", list(Handling))
async def test_an_event_that_nobody_understands_follows_its_rule(handling: Handling) -> None:
    unknown = UnknownEvent(kind="video", payload={"a": 1})
    out, _ = await through(made(OUT, opaque=handling), [TextDelta(text="hi"), unknown, STOP])

    assert (unknown in out) is (handling is Handling.ALLOW)
    assert (TextDelta(text="hi") in out) is (handling is Handling.ALLOW)


async def test_citations_are_checked_with_all_their_words() -> None:
    clean = Citation(document_id="d", quote="fine")
    wired = Citation(document_id="d", quote="fine", wire={"text": "a@b.c"})
    out, _ = await through(made(OUT), [TextDelta(text="hi"), clean, wired, STOP])

    assert clean in out
    assert "a@b.c" not in str(msgspec.to_builtins(out))
    assert sum(isinstance(event, Citation) for event in out) == 2


async def test_a_flood_is_cut_off_and_refused() -> None:
    guarded = made(OUT, limits=Limits(output_characters=100))
    stream = guarded.stream(guarded.prepare(ASKED))
    out: list[StreamEvent] = []
    for number in range(1000):
        out += await stream.feed(TextDelta(text="x" * 10))
        assert stream.is_over is (number >= 10)
    assert "xxx" not in str(out)
    assert out[-1] == End(finish_reason=FinishReason.CONTENT_FILTER)


class Streaming:
    id = "model"
    components = ComponentSet()

    def __init__(self, *events: StreamEvent) -> None:
        self.events = events
        self.asked: list[Interaction] = []

    async def invoke(self, interaction: Interaction) -> Interaction:
        return msgspec.structs.replace(interaction, reply=Reply(message=user("unused")))

    async def stream(self, interaction: Interaction) -> AsyncIterator[StreamEvent]:
        self.asked.append(interaction)
        for event in self.events:
            yield event

    async def aclose(self) -> None:
        return None


async def test_a_wrapped_model_streams_under_guard() -> None:
    model = Streaming(TextDelta(text="a@b.c"), STOP)
    events = [event async for event in made(OUT).wrap(model).stream(ASKED)]

    assert events == [TextDelta(text="[EMAIL]"), STOP]
    assert "u@b.c" not in model.asked[0].messages[0].text


async def test_a_stopped_request_streams_its_safe_completion_and_asks_nobody() -> None:
    model = Streaming(TextDelta(text="hi"), STOP)
    blocking = guard(policy(rule("block")))
    events = [event async for event in blocking.wrap(model).stream(ASKED)]

    assert model.asked == []
    assert isinstance(events[-1], End)
    assert events[-1].finish_reason is FinishReason.CONTENT_FILTER


async def test_a_target_that_does_not_stream_says_so() -> None:
    class Still:
        id = "still"
        components = ComponentSet()

        async def invoke(self, interaction: Interaction) -> Interaction:
            return interaction

        async def aclose(self) -> None:
            return None

    with pytest.raises(UsageError, match="does not stream"):
        [event async for event in made().wrap(Still()).stream(ASKED)]
