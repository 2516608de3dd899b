"""One look stands for the frames of a text only where no part of the text holds anything."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stream_texts import CANARY, cut, examples, places, texts

from stanchion.core.clock import CountingIds, ManualClock
from stanchion.core.decision import Effect, Surface
from stanchion.core.finding import DetectorInput, Finding
from stanchion.core.interaction import End, FinishReason, Interaction, Reply, TextDelta, assistant, user
from stanchion.core.origin import Origin
from stanchion.detectors.incremental import WindowViews
from stanchion.detectors.registry import Registry
from stanchion.detectors.scan import packaged_scanner
from stanchion.guard.frames import FieldScan
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy_model import DetectorSettings, Policy
from stanchion.guard.rules import Rule, Selector

NAMES = ("secrets", "pii", "leakage", "injection.patterns")
STOP = End(finish_reason=FinishReason.STOP, model="m")
ASKED = Interaction(messages=(user("What is the weather like?"),), session_id="s")
QUIET = (
    "The weather was fine and we walked along the river, e.g. to the old mill (it's closed). ",
    "Es war sch\u00f6n; \u201eherrlich\u201c, sagte K\u00e4the \u2013 wir gingen \u00fcber die Br\u00fccke. ",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u3002",
    "\n\n## What to do\n\n- first, rest\n- then go on\n\n",
    "I said a, b and c to him. ",
    "Please note that it\u2019s not a bug. ",
)


@cache
def parts() -> tuple[Any, ...]:
    """What of the detectors is settled as a text passes."""
    registry = Registry()
    whole: list[Any] = [registry.create(name) for name in NAMES]
    every = [part for one in whole for part in (getattr(one, "parts", None) or (one,))]
    return tuple(part for part in every if hasattr(part, "calm"))


@cache
def all_examples() -> tuple[str, ...]:
    """The examples, and what looks like them, of every packaged pattern."""
    found = ((*p.examples, *p.counter_examples) for p in packaged_scanner().patterns)
    return tuple(dict.fromkeys(itertools.chain.from_iterable(found)))


def given_for(text: str, **context: tuple[str, ...]) -> DetectorInput:
    return DetectorInput(view_set=WindowViews(text), origin=Origin.MODEL, context=context)


def found_in(part: Any, text: str) -> Sequence[Finding]:
    found: Sequence[Finding] = part.detect(given_for(text))
    return found


def windows(text: str, at: list[int]) -> Iterator[str]:
    """Parts of a text: as frames cut it, and between some of the places."""
    yield from (text[max(0, end - 380) : end] for end in range(64, len(text) + 64, 64))
    ends = sorted(place % (len(text) + 1) for place in at)
    yield from (text[a:b] for a, b in itertools.pairwise(ends[:12]))


pieces = st.one_of(
    st.sampled_from(QUIET),
    st.sampled_from(QUIET),
    st.tuples(
        st.deferred(lambda: st.sampled_from(all_examples())), st.integers(0, 40), st.integers(0, 40)
    ).map(lambda made: made[0][made[1] : max(made[1], len(made[0]) - made[2])]),
    st.text(st.sampled_from("ab1@./:=%+-\\ \n\u200b\u0301\u00e9\uff14\u0441"), max_size=6),
    st.text(max_size=3),
)
joined = st.lists(pieces, max_size=6).map("".join)


def assert_calm_in_every_part(text: str, at: list[int]) -> None:
    for part in parts():
        if part.calm(given_for(text)):
            assert not [window for window in windows(text, at) if found_in(part, window)]


@settings(max_examples=300, deadline=None)
@example(text="5" * 3 + "4dm1n" + " t" * 400, at=[])  # a spelling that only a cut makes one
@given(text=st.one_of(joined, texts), at=places)
def test_a_calm_text_holds_nothing_in_any_part(text: str, at: list[int]) -> None:
    assert_calm_in_every_part(text, at)


@pytest.mark.soak
@settings(max_examples=20_000, deadline=None)
@given(text=st.one_of(joined, texts), at=places)
def test_a_calm_text_of_many_holds_nothing_in_any_part(text: str, at: list[int]) -> None:
    assert_calm_in_every_part(text, at)


@cache
def guarded() -> Guard:
    registry = Registry()
    when = Selector(surfaces=(Surface.OUTPUT,))
    patient = DetectorSettings(deadline_ms=60_000, threshold=0.3)
    return Guard(
        Policy(
            name="test",
            rules=(Rule(id="out", effect=Effect.ALLOW, when=when),),
            detectors=dict.fromkeys(NAMES, patient),
        ),
        {name: registry.create(name) for name in NAMES},
        clock=ManualClock(),
        ids=CountingIds(),
        key=b"k" * 32,
    )


def found_by(answer: Interaction | None) -> list[Any]:
    assert answer is not None
    assert answer.reply is not None
    return [
        (f.detector, f.rule, f.category, f.score, f.location, f.view)
        for decision in answer.reply.decisions
        for f in decision.findings
        if decision.surface is Surface.OUTPUT
    ]


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(joined, texts), at=places)
async def test_a_whole_answer_says_what_its_frames_say(text: str, at: list[int]) -> None:
    guard = guarded()
    stream = guard.stream(guard.prepare(ASKED))
    for piece in cut(text, at):
        await stream.feed(TextDelta(text=piece))
    await stream.feed(STOP)
    unstreamed = guard.finish(guard.prepare(ASKED), Reply(message=assistant(text)))
    assert found_by(unstreamed) == found_by(stream.answer)


@pytest.mark.parametrize("text", QUIET)
def test_ordinary_text_is_calm(text: str) -> None:
    assert [part.id for part in parts() if not part.calm(given_for(text * 40))] == []


def test_no_example_is_calm_for_its_detector() -> None:
    by_id = {part.id.partition(".")[0]: part for part in parts()}
    own = [p for p in packaged_scanner().patterns if p.detector in by_id]
    taken = [
        (pattern.id, sample)
        for pattern in own
        for sample in pattern.examples
        if by_id[pattern.detector].calm(given_for(f"{QUIET[0]}{sample} {QUIET[0]}"))
    ]
    assert len(own) > 400
    assert taken == []


def test_where_marks_are_planted_nothing_is_calm_for_leakage() -> None:
    leakage = next(part for part in parts() if part.id == "leakage")
    assert leakage.calm(given_for(QUIET[0]))
    assert not leakage.calm(given_for(QUIET[0], canaries=(CANARY,)))


async def test_a_calm_answer_costs_one_look_and_another_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    step = FieldScan.step

    async def counted(self: FieldScan, door: Any) -> Any:
        steps.append(self.settled)
        return await step(self, door)

    monkeypatch.setattr(FieldScan, "step", counted)
    guard = guarded()
    guard.finish(guard.prepare(ASKED), Reply(message=assistant(QUIET[0] * 20)))
    assert steps == []
    guard.finish(guard.prepare(ASKED), Reply(message=assistant(QUIET[0] * 20 + examples()[0])))
    assert len(steps) > 20
    steps.clear()
    guard.finish(guard.prepare(ASKED), Reply(message=assistant(examples()[0] + QUIET[0] * 200)))
    assert max(steps) < len(QUIET[0]) * 120  # the calm rest is looked at once
