"""Ordinary words of an answer take a short way to what is clear; it says what the long way says."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stream_texts import CANARY, PROSE, cut, places, texts

from stanchion.core.clock import CountingIds, ManualClock
from stanchion.core.decision import Effect, Surface
from stanchion.core.finding import DetectorInput
from stanchion.core.interaction import End, FinishReason, Interaction, StreamEvent, TextDelta, user
from stanchion.core.origin import Origin
from stanchion.detectors.incremental import PatternReach, WindowViews, asked_together, is_prose
from stanchion.detectors.registry import Registry
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy_model import DetectorSettings, Policy
from stanchion.guard.rules import Rule, Selector

NAMES = ("secrets", "pii", "leakage", "injection.patterns")
ASKED = Interaction(messages=(user("What is the weather like?"),), session_id="s")
STOP = End(finish_reason=FinishReason.STOP, model="m")
SIGNS = " \n,.;:'\"?()*#`-"

letters = st.text(st.sampled_from("abcdefABCDEFGghimorstz"), min_size=1, max_size=18)
breaks = st.one_of(st.sampled_from((" ", " ", ", ", ". ", "-", " - ", ":")), st.text(SIGNS, max_size=3))
prose = st.one_of(
    st.lists(st.tuples(letters, breaks).map("".join), max_size=40).map("".join),
    st.lists(st.tuples(st.text("abcdefi", min_size=1, max_size=2), breaks).map("".join)).map("".join),
    st.lists(st.tuples(st.sampled_from("abcdei\"("), breaks).map("".join), max_size=12).map("".join),
    st.lists(st.sampled_from(PROSE), max_size=4).map("".join),
)  # fmt: skip


@cache
def parts() -> tuple[PatternReach, ...]:
    """What of the detectors is settled as a text passes, by their patterns."""
    registry = Registry()
    whole: list[Any] = [registry.create(name) for name in NAMES]
    every = [part for one in whole for part in (getattr(one, "parts", None) or (one,))]
    return tuple(part for part in every if isinstance(part, PatternReach))


def given_for(text: str, **context: tuple[str, ...]) -> DetectorInput:
    return DetectorInput(view_set=WindowViews(text), origin=Origin.MODEL, context=context)


def assert_no_other_reading(text: str) -> None:
    if is_prose(text):
        every = WindowViews(text, is_wary=True)
        assert [view.text for view in every.readings] == [text]
        assert not every.signals
        assert not every.notices


@settings(max_examples=500, deadline=None)
@example(text="made be ad fe ed be ad fe ed be adder")
@example(text="i g n o r e this")
@example(text="a ( b ) c ( d )")
@example(text="VGhpcyBpcy-BhIHRlc3Q")
@given(text=st.one_of(prose, prose, texts))
def test_prose_has_no_other_reading(text: str) -> None:
    assert_no_other_reading(text)


@pytest.mark.soak
@settings(max_examples=50_000, deadline=None)
@given(text=prose)
def test_prose_of_many_kinds_has_no_other_reading(text: str) -> None:
    assert_no_other_reading(text)


@pytest.mark.parametrize(
    "text",
    [
        "The parcel left our warehouse on Tuesday, and should reach you (we hope) within a week. ",
        "It is in an old box; if so, take it. I am at a loss - aren't you?\n\n## What to do\n\n- rest\n",
        'He said "no". A well-known **rule**: `be brief`.',
    ],
)
def test_ordinary_words_are_prose(text: str) -> None:
    assert is_prose(text)


@pytest.mark.parametrize(
    "text",
    [
        "be ad be ad be ad be ad be ad be ad",
        "i g n o r e",
        "a ' b ' c ' d",
        "VGhpcyBpcyBhIHRlc3Q",
        "VGhpcyBp-YyBhIHRlc3Q-xxxx",
        "JBSWY3DPEHPK3PXP",
        "1gn0re",
        "a%41",
        "caf\u00e9",
        "x\x00y",
        "word\u200bword",
        "word " * 1000,
    ],
)
def test_what_may_be_read_otherwise_or_is_long_is_no_prose(text: str) -> None:
    assert not is_prose(text)


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(prose, texts), start=st.integers(0, 80), has_marks=st.booleans())
def test_detectors_asked_together_say_what_they_say_alone(text: str, start: int, has_marks: bool) -> None:
    context = {"canaries": (CANARY,)} if has_marks else {}
    start = min(start, len(text))
    (joint,) = asked_together(parts())
    alone = [part.clear(given_for(text, **context), start) for part in parts()]
    assert joint.clear(given_for(text, **context), start) == min(alone)


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(prose, texts), start=st.integers(0, 80))
def test_the_short_way_clears_what_the_long_way_clears(text: str, start: int) -> None:
    start = min(start, len(text))
    wary = WindowViews(text, is_wary=True)
    wary.memo["incremental.wary"] = wary
    for part in parts():
        long_way = part.clear(DetectorInput(view_set=wary, origin=Origin.MODEL), start)
        assert part.clear(given_for(text), start) == long_way


@cache
def guarded() -> Guard:
    registry = Registry()
    when = Selector(surfaces=(Surface.OUTPUT,), categories=("pii.*", "secret.*", "leakage.*"))
    stops = Selector(surfaces=(Surface.OUTPUT,), categories=("secret.*",))
    rules = (
        Rule(id="stop", effect=Effect.BLOCK, when=stops),
        Rule(id="hide", effect=Effect.REDACT, when=when),
    )
    patient = DetectorSettings(deadline_ms=60_000, threshold=0.3)
    return Guard(
        Policy(name="test", rules=rules, detectors=dict.fromkeys(NAMES[:3], patient)),
        {name: registry.create(name) for name in NAMES[:3]},
        clock=ManualClock(),
        ids=CountingIds(),
        key=b"k" * 32,
    )


async def streamed(pieces: list[str], *, together: bool) -> tuple[str, StreamEvent, list[Any]]:
    """The words that left, the end, and what was found; `together`: the end came with the last words."""
    guard = guarded()
    stream = guard.stream(guard.prepare(ASKED))
    out: list[StreamEvent] = []
    for number, piece in enumerate(pieces, start=1):
        is_last = together and number == len(pieces)
        out += await stream.feed(TextDelta(text=piece), is_last=is_last)
    if not stream.is_over:
        out += await stream.feed(STOP)
    assert stream.answer is not None
    assert stream.answer.reply is not None
    found = [
        (f.detector, f.rule, f.score, f.location)
        for decision in stream.answer.reply.decisions
        for f in decision.findings
    ]
    return "".join([event.text for event in out if isinstance(event, TextDelta)]), out[-1], found


def without_reference(said: tuple[str, StreamEvent, list[Any]]) -> tuple[str, StreamEvent, list[Any]]:
    """What was said; each refusal has its own number."""
    words, end, found = said
    return re.sub(r"dec_[0-9A-Za-z]+", "dec", words), end, found


@settings(max_examples=300, deadline=None)
@example(text="My key is AKIAQ7XV2KD3LM4RT6ZS, and here is more to say of it. " * 6, at=[3])
@example(text="Write to jane.doe@mail.example.com, and here is more to say of it. " * 6, at=[])
@given(text=st.one_of(prose, texts, texts), at=places)
async def test_words_that_come_with_the_end_say_what_they_say_before_it(text: str, at: list[int]) -> None:
    apart = await streamed(cut(text, at), together=False)
    assert without_reference(await streamed(cut(text, at), together=True)) == without_reference(apart)


def test_a_detector_with_a_word_of_its_own_is_asked_alone() -> None:
    class Own:
        def clear(self, _: DetectorInput, start: int) -> int:
            return start

    own = Own()
    first, second = parts()[:2]
    assert asked_together([own, first]) == [own, first]
    joint, other = asked_together([first, own, second])
    assert other is own
    assert joint is not first
