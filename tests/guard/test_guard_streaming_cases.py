"""What streams do in the middle: broken checks, other guarantees, several parts, escapes; their work."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from guard_fakes import Hang, Misbehaving, Words, guard, policy, rule, with_settings
from stream_texts import PROSE, examples

from stanchion.core.decision import Effect, Mode, Surface
from stanchion.core.errors import UnavailableError, UsageError
from stanchion.core.finding import DetectorInput, Finding, Reach, ReachKind
from stanchion.core.interaction import (
    ArgumentDelta,
    End,
    FinishReason,
    Interaction,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolDefinition,
    user,
)
from stanchion.core.origin import Origin
from stanchion.detectors.incremental import WindowViews, wary
from stanchion.detectors.registry import Registry
from stanchion.detectors.scan import packaged_scanner
from stanchion.guard.hold_back import buffers, routes
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy import packaged_policies, packaged_policy
from stanchion.guard.policy_model import Guarantee, Streaming, ToolRules, WholeMessage
from stanchion.guard.streaming import StreamGuard
from stanchion.models.events import Assembler

STOP = End(finish_reason=FinishReason.STOP, model="m")
ASKED = Interaction(messages=(user("hello"),), session_id="s", tools=(ToolDefinition(name="mail"),))
NEAR = Reach(ReachKind.BOUNDED, 40)
OUT = rule("redact", id="out", surfaces=(Surface.OUTPUT, Surface.TOOL_CALL, Surface.REASONING))
LONG = "Ordinary words that nobody minds. " * 12


def made(*detectors: Any, out: Any = OUT, **fields: Any) -> Guard:
    settings = with_settings(**fields.pop("settings", {}))
    tools = ToolRules(default=Effect.ALLOW)
    words = detectors or (Words(pattern=r"\w+@[\w.]+\w", reach=NEAR),)
    return guard(policy(out, detectors=settings, tools=tools, **fields), *words)


async def through(guarded: Guard, events: Sequence[StreamEvent]) -> tuple[StreamGuard, list[StreamEvent]]:
    stream = guarded.stream(guarded.prepare(ASKED))
    out = [shown for event in events for shown in await stream.feed(event)]
    await stream.finish()
    return stream, out


def pieces(text: str, index: int = 0, size: int = 7) -> list[StreamEvent]:
    return [TextDelta(text=text[i : i + size], index=index) for i in range(0, len(text), size)]


def words(events: Sequence[StreamEvent], kind: Any = TextDelta, index: int | None = None) -> str:
    return "".join(e.text for e in events if isinstance(e, kind) and index in (None, e.index))


async def test_a_bounded_detector_holds_its_reach_and_a_step_and_no_more() -> None:
    text = LONG + "write to a.b@c.de now. " + LONG
    stream, out = await through(made(), [*pieces(text), STOP])

    assert words(out) == text.replace("a.b@c.de", "a.[EMAIL]")
    assert out[-1] == STOP
    assert stream.report.guarantee is Guarantee.NO_LEAK
    assert 0 < stream.report.most_held < 200
    assert stream.report.escaped == 0


async def test_a_detector_of_sentences_decides_sentence_by_sentence() -> None:
    sentences = Reach(ReachKind.SENTENCE)
    text = "First one. " * 20 + "Ask a@b.c today. " + "And so on. " * 20
    stream, out = await through(made(Words(pattern=r"\w@b\.c", reach=sentences)), [*pieces(text), STOP])

    assert words(out) == text.replace("a@b.c", "[EMAIL]")
    assert stream.report.most_held < 120


@pytest.mark.parametrize("effect", ["replace", "block"])
async def test_a_finding_that_ends_the_answer_ends_it_in_front_of_itself(effect: str) -> None:
    out_rule = rule(effect, id="out", surfaces=(Surface.OUTPUT,))
    call = ArgumentDelta(index=1, call_id="c", name="mail", json="{}")
    events = [*pieces(LONG + "a@b.c" + LONG), call, STOP]
    for size in (1, 5, 1000):
        chunked = [*pieces(LONG + "a@b.c" + LONG, size=size), call, STOP]
        stream, out = await through(made(out=out_rule), chunked)
        assert words(out, index=0) == LONG
        assert out[-1] == End(finish_reason=FinishReason.CONTENT_FILTER)
        assert not any(isinstance(event, ArgumentDelta) for event in out)
        assert stream.was_stopped
        assert stream.answer is not None
        assert stream.answer.reply is not None
        assert stream.answer.reply.message.text.startswith(LONG)
    assert await stream.feed(events[0]) == ()


async def test_a_check_that_raises_in_the_middle_ends_the_answer_and_shows_nothing_that_waited() -> None:
    def behave(given: DetectorInput) -> list[Finding]:
        if "boom" in given.text:
            raise RuntimeError("secret words")
        return []

    stream, out = await through(made(Misbehaving(behave, reach=NEAR)), [*pieces(LONG + "boom" + LONG), STOP])
    assert out[-1].finish_reason is FinishReason.CONTENT_FILTER  # type: ignore[union-attr]
    assert "boom" not in str(out)
    assert "secret words" not in str(out)
    assert words(out, index=0) == LONG[: len(words(out, index=0))]
    assert stream.was_stopped


async def test_a_check_that_hangs_in_the_middle_ends_the_answer() -> None:
    hang = Hang()
    detector = Misbehaving(lambda given: hang(given) if "hang" in given.text else [], reach=NEAR)
    try:
        _, out = await through(
            made(detector, settings={"deadline_ms": 300}), [*pieces(LONG + "hang" + LONG), STOP]
        )
    finally:
        hang.release.set()
    assert out[-1].finish_reason is FinishReason.CONTENT_FILTER  # type: ignore[union-attr]
    assert "hang" not in words(out, index=0)


async def test_a_detector_that_cannot_say_what_is_settled_fails_closed() -> None:
    class Odd(Words):
        before = 10

        def settled(self, given: DetectorInput, start: int) -> int:
            raise ValueError(given.text)

    odd = Odd(reach=Reach(ReachKind.AUTOMATON))
    stream, out = await through(made(odd), [*pieces(LONG), STOP])
    assert stream.was_stopped
    assert "Ordinary" not in words(out)


async def test_an_answer_that_breaks_off_leaves_what_waited_behind() -> None:
    guarded = made()
    stream = guarded.stream(guarded.prepare(ASKED))
    shown = [event for piece in pieces(LONG + "a@b") for event in await stream.feed(piece)]
    assert "a@b" not in words(shown)
    with pytest.raises(UnavailableError, match="broke off"):
        await stream.finish()
    with pytest.raises(UsageError, match="broke"):
        await stream.feed(STOP)


async def test_what_needs_the_whole_answer_decides_at_its_end() -> None:
    out_rule = rule("block", id="out", surfaces=(Surface.OUTPUT,))
    guarded = made(Words(pattern="never"), out=out_rule)
    call = ArgumentDelta(index=1, call_id="c", name="mail", json="{}")
    stream, out = await through(guarded, [TextDelta(text="never say "), TextDelta(text="it"), call, STOP])

    assert words(out, index=0) == "never say it"
    assert out[-1].finish_reason is FinishReason.CONTENT_FILTER  # type: ignore[union-attr]
    assert not any(isinstance(event, ArgumentDelta) for event in out)
    assert stream.report.at_end == ("pii",)


async def test_bounded_lets_go_of_what_is_older_and_counts_it() -> None:
    streaming = Streaming(guarantee=Guarantee.BOUNDED, hold_back=30)
    far = Words(pattern=r"\w+@[\w.]+\w", reach=Reach(ReachKind.BOUNDED, 500))
    stream, out = await through(made(far, streaming=streaming), [*pieces(LONG + "a@b.c " + LONG), STOP])

    assert stream.report.guarantee is Guarantee.BOUNDED
    assert stream.report.most_held <= 30
    assert stream.report.undecided > 0
    assert stream.report.escaped == len("a@b.c")
    assert out[-1] == STOP


async def test_audit_only_changes_nothing_and_records() -> None:
    streaming = Streaming(guarantee=Guarantee.AUDIT_ONLY)
    out_rule = rule("block", id="out", surfaces=(Surface.OUTPUT,))
    events = [*pieces(LONG + "a@b.c"), ArgumentDelta(index=1, call_id="c", name="mail", json="{}"), STOP]
    stream, out = await through(made(out=out_rule, streaming=streaming), events)

    assert out == events
    assert stream.report.most_held == 0
    assert stream.answer is not None
    assert stream.answer.reply is not None
    (said,) = [d for d in stream.answer.reply.decisions if d.surface is Surface.OUTPUT]
    assert (said.effect, said.mode, len(said.findings)) == (Effect.BLOCK, Mode.SHADOW, 1)


async def test_blocks_that_interleave_are_told_apart() -> None:
    first, second = LONG + "a@b.c. ", "Other words. " * 30 + "x@y.z. "
    mixed = [
        event for pair in itertools.zip_longest(pieces(first), pieces(second, 1)) for event in pair if event
    ]
    thought = [ReasoningDelta(text="mm a@b.c ", index=2), ReasoningDelta(text="", index=2, signature="s")]
    refused = [RefusalDelta(text="no, ask a@b.c", index=3)]
    stream, out = await through(made(), [*thought, *mixed, *refused, STOP])

    assert words(out, index=0) == LONG + "[EMAIL]. "
    assert words(out, index=1) == "Other words. " * 30 + "[EMAIL]. "
    assert words(out, ReasoningDelta) == "mm [EMAIL] "
    assert words(out, RefusalDelta) == "no, ask [EMAIL]"
    assert not any(isinstance(e, ReasoningDelta) and e.signature for e in out)
    shown = Assembler()
    for event in out:
        shown.feed(event)
    kinds = [type(part).__name__ for part in shown.reply().message.parts]
    assert kinds == ["Reasoning", "Text", "Text", "Refusal"]
    assert stream.answer is not None
    assert stream.answer.reply is not None
    assert stream.answer.reply.message.parts == shown.reply().message.parts


@pytest.mark.parametrize("size", [1, 2, 3, 50])
async def test_arguments_are_read_as_what_their_escapes_mean(size: int) -> None:
    source = '{"to": "\\ud83d\\ude00 \\u0061@b.c", "n": [1, "z@y.x"]}'
    events: list[StreamEvent] = [ArgumentDelta(index=1, call_id="c", name="mail")]
    events += [ArgumentDelta(index=1, json=source[i : i + size]) for i in range(0, len(source), size)]
    _, out = await through(made(), [*events, STOP])

    written = "".join(e.json for e in out if isinstance(e, ArgumentDelta))
    assert json.loads(written) == {"to": "\U0001f600 [EMAIL]", "n": [1, "[EMAIL]"]}


async def test_a_value_from_the_vault_comes_back_across_pieces() -> None:
    guarded = Guard.load()
    asked = Interaction(messages=(user("My card is 4111 1111 1111 1111."),), session_id="v")
    prepared = guarded.prepare(asked)
    token = prepared.interaction.messages[0].text.split("is ")[1].rstrip(".")
    stream = guarded.stream(prepared)
    out: list[StreamEvent] = []
    for event in [*pieces(f"You said {token}, is it right? {LONG}", size=1), STOP]:
        out += await stream.feed(event)
    assert words(out).startswith("You said 4111 1111 1111 1111, is it right?")


@pytest.mark.parametrize(
    "text", [LONG * 20, PROSE[1] * 200, "data: " + "QUJD" * 4_000], ids=["ascii", "any", "run"]
)
async def test_what_is_looked_at_grows_with_the_length_only(text: str) -> None:
    guarded = Guard.load()
    work = []
    for length in (len(text) // 4, len(text)):
        stream = guarded.stream(guarded.prepare(ASKED))
        for piece in pieces(text[:length], size=20):
            await stream.feed(piece)
        work.append(stream.report.work / length)
    assert work[1] < 1.5 * work[0] + 1
    assert work[1] < 30


async def test_prose_is_hardly_held_back_by_the_default_policy() -> None:
    guarded = Guard.load()
    stream = guarded.stream(guarded.prepare(ASKED))
    for piece in pieces(LONG * 10, size=20):
        await stream.feed(piece)
    assert stream.report.mean_held < 15
    assert stream.report.most_held < 64


def test_frames_find_what_a_look_at_the_whole_text_finds() -> None:
    """Every packaged example, behind and in front of prose, wherever a step falls into it."""
    registry = Registry()
    guarded = Guard(
        policy(rule("allow"), detectors={n: with_settings()["pii"] for n in ("secrets", "pii", "leakage")}),
        {name: registry.create(name) for name in ("secrets", "pii", "leakage")},
    )
    missed = []
    for number, example in enumerate(examples()):
        text = PROSE[0] * 3 + "x" * (number % 64) + "\n" + example + "\n" + PROSE[0] * 3
        given = DetectorInput(view_set=WindowViews(text), origin=Origin.MODEL)
        found = guarded.check(text, surface="output").decision.findings
        framed = {(f.rule, f.location.start, f.location.end) for f in found}
        for name in ("secrets", "pii", "leakage"):
            whole = registry.create(name).detect(given)  # type: ignore[union-attr]
            missed += [
                (f.rule, example)
                for f in whole
                if f.score >= 0.5 and (f.rule, f.location.start, f.location.end) not in framed
            ]
    assert missed == []


def test_a_live_match_is_never_taken_for_a_dead_one() -> None:
    """Against partial matching of the package `regex`, for the beginnings of every example."""
    regex = pytest.importorskip("regex")
    registry = Registry()
    early = []
    for name in ("secrets", "pii"):
        detector: Any = registry.create(name)
        for pattern in packaged_scanner().patterns_for(name):
            try:
                flags = regex.I if "caseless" in pattern.flags else 0
                expression = regex.compile(pattern.pattern.replace("(?-i)", ""), flags | regex.V0)
            except regex.error:
                continue
            for example in pattern.examples[:1]:
                for end in range(1, len(example), max(1, len(example) // 12)):
                    text = "so " + example[:end]
                    partial = expression.search(text, partial=True)
                    if partial is None or not partial.partial:
                        continue
                    given = DetectorInput(view_set=WindowViews(text), origin=Origin.MODEL)
                    if wary(given.view_set).readings and detector.clear(given, 0) > partial.start():
                        early.append((pattern.id, text))
    assert early == []


def test_the_documentation_tells_the_reach_of_every_detector() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "streaming.md").read_text()
    table = page.split("## Reach", 1)[1].split("## ", 1)[0]
    told = re.findall(r"^\| (`[^|]*?) \| (\w+) \|", table, re.MULTILINE)
    registry = Registry()
    for names, reach in told:
        for name in re.findall(r"`([\w.]+)`", names):
            made_one: Any = registry.create(name)
            parts = [made_one] if reach == "message" and ":" not in names else parts_of_detector(made_one)
            assert any(part.reach.kind.value == reach for part in parts), (name, reach)
    assert {"secrets", "pii", "leakage", "custom", "refusal"} <= set(re.findall(r"`([\w.]+)`", table))


def parts_of_detector(detector: Any) -> Sequence[Any]:
    return getattr(detector, "parts", (detector,))


def test_no_packaged_policy_makes_an_answer_wait_and_one_that_does_is_told() -> None:
    registry = Registry()
    for name in packaged_policies():
        one = packaged_policy(name, detectors=registry.ids())
        detectors = {n: registry.create(n, **s.options) for n, s in one.enabled_detectors.items()}
        assert all(buffers(route) == "" for route in routes(one, detectors)), name
    waits = policy(OUT, detectors=with_settings(stream=WholeMessage.BUFFER))
    (route, _) = routes(waits, {"pii": Words()})
    assert "waits as a whole for pii" in buffers(route)
