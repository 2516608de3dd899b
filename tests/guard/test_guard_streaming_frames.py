"""Words leave on the way, for every chunking the same, and no character of what must not get out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stream_texts import CANARY, PROSE, cut, places, texts

from stanchion.core.clock import CountingIds, ManualClock
from stanchion.core.decision import Effect, Surface
from stanchion.core.interaction import (
    End,
    FinishReason,
    Interaction,
    Reply,
    StreamEvent,
    TextDelta,
    assistant,
    user,
)
from stanchion.detectors.registry import Registry
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy_model import DetectorSettings, Policy, Redaction
from stanchion.guard.rules import Operator, Rule, Selector
from stanchion.guard.streaming import StreamGuard

STOP = End(finish_reason=FinishReason.STOP, model="m")
ASKED = Interaction(messages=(user("What is the weather like?"),), session_id="s")
CONTEXT = {"canaries": (CANARY,)}
PASSING = ("secrets", "pii", "leakage", "injection.patterns")


@cache
def made(effect: str, operator: str = "replace", mask_keep_last: int = 0) -> Guard:
    registry = Registry()
    patient = DetectorSettings(deadline_ms=60_000, threshold=0.3)
    rules = (
        Rule(
            id="out",
            effect=Effect(effect),
            when=Selector(surfaces=(Surface.OUTPUT,), categories=("pii.*", "secret.*", "leakage.*")),
        ),
        Rule(id="signs", effect=Effect.ALLOW, when=Selector(surfaces=(Surface.OUTPUT,))),
    )
    policy = Policy(
        name="test",
        rules=rules,
        detectors=dict.fromkeys(PASSING, patient),
        redaction=Redaction(operator=Operator(operator), mask_keep_last=mask_keep_last),
    )
    detectors = {name: registry.create(name) for name in PASSING}
    return Guard(policy, detectors, clock=ManualClock(), ids=CountingIds(), key=b"k" * 32)


async def through(
    guard: Guard, events: Sequence[StreamEvent]
) -> tuple[StreamGuard, list[tuple[StreamEvent, ...]]]:
    stream = guard.stream(guard.prepare(ASKED), context=CONTEXT)
    released = [await stream.feed(event) for event in events]
    await stream.finish()
    return stream, released


def words(released: Sequence[tuple[StreamEvent, ...]]) -> str:
    return "".join(event.text for events in released for event in events if isinstance(event, TextDelta))


def findings(stream: StreamGuard) -> list[Any]:
    assert stream.answer is not None
    assert stream.answer.reply is not None
    return [
        (f.detector, f.rule, f.category, f.score, f.location, f.view)
        for decision in stream.answer.reply.decisions
        for f in decision.findings
        if decision.surface is Surface.OUTPUT
    ]


async def compare(text: str, at: list[int], guard: Guard) -> None:
    events: list[StreamEvent] = [*(TextDelta(text=piece) for piece in cut(text, at)), STOP]
    whole, released_whole = await through(guard, [TextDelta(text=text), STOP])
    stream, released = await through(guard, events)
    shown = words(released).split(" (Reference: ")[0]

    assert shown == words(released_whole).split(" (Reference: ")[0]
    assert findings(stream) == findings(whole)
    assert stream.report.escaped == whole.report.escaped == 0
    unstreamed = guard.finish(guard.prepare(ASKED), Reply(message=assistant(text)), context=CONTEXT).reply
    assert unstreamed is not None
    if not stream.was_stopped:
        assert shown == unstreamed.message.text
        assert findings(stream) == [
            (f.detector, f.rule, f.category, f.score, f.location, f.view)
            for decision in unstreamed.decisions
            for f in decision.findings
            if decision.surface is Surface.OUTPUT
        ]
    else:
        assert unstreamed.finish_reason is FinishReason.CONTENT_FILTER


OPERATORS = (("replace", 0), ("mask", 2), ("hash", 0), ("placeholder", 0))
EFFECTS = st.sampled_from(
    [
        *(("redact", operator, kept) for operator, kept in OPERATORS),
        *((effect, "replace", 0) for effect in ("replace", "block", "allow")),
    ]
)


@settings(max_examples=300, deadline=None)
@example(  # a row of codes that begins inside a word
    text="16a 61 6e 65 2e 64 6f 65 40 6d 61 69 6c 2e 65 78 61 6d 70 6c 65 2e 63 6f 6d",
    at=[],
    how=("redact", "replace", 0),
)
@example(  # a match whose reported group begins behind its first word
    text=PROSE[3] + "My password is \u4eca\u5929\u5929\u6c14| a | b |\n" + PROSE[3] + "thank you",
    at=[],
    how=("redact", "replace", 0),
)
@given(text=texts, at=places, how=EFFECTS)
async def test_every_chunking_shows_the_same_and_finds_the_same(
    text: str, at: list[int], how: tuple[str, str, int]
) -> None:
    await compare(text, at, made(*how))


@pytest.mark.soak
@settings(max_examples=10_000, deadline=None)
@given(text=texts, at=places, how=EFFECTS)
async def test_every_chunking_of_many_texts_shows_the_same(
    text: str, at: list[int], how: tuple[str, str, int]
) -> None:
    await compare(text, at, made(*how))
