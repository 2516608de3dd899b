"""What must not get out may be cut over blocks of an answer: a reader, or an API, joins them."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from guard_fakes import Words, chat, guard, policy, rule, with_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_texts import CARD, KEY, PROSE, cut
from test_guard_streaming_frames import ASKED, made, through

from stanchion.core.clock import CountingIds, ManualClock
from stanchion.core.decision import Effect, Surface
from stanchion.core.interaction import (
    ArgumentDelta,
    End,
    FinishReason,
    Message,
    Part,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    Reply,
    Role,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    ToolDefinition,
    ToolResult,
)
from stanchion.core.origin import Origin
from stanchion.detectors.registry import Registry
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy_model import DetectorSettings, Policy, ToolRules, WholeMessage
from stanchion.guard.rules import Rule, Selector

STOP = End(finish_reason=FinishReason.STOP, model="m")
MAIL = ToolDefinition(name="mail")
CALL = ToolCall(id="c", name="mail", arguments={})
EDGES = st.lists(st.integers(0, 400), max_size=5)


def said(text: str) -> Text:
    return Text(text=text, origin=Origin.MODEL)


def events_of_blocks(blocks: list[str], at: list[int]) -> list[StreamEvent]:
    return [
        *(TextDelta(text=p, index=n) for n, block in enumerate(blocks) for p in (cut(block, at) or [""])),
        STOP,
    ]


def texts_by_index(out: list[Any]) -> dict[int, str]:
    found: dict[int, str] = {}
    for event in itertools.chain.from_iterable(out):
        if isinstance(event, TextDelta):
            found[event.index] = found.get(event.index, "") + event.text
    return found


@pytest.mark.parametrize(
    "parts",
    [
        (said(KEY[:10]), said(KEY[10:])),
        (said(KEY[:10]), CALL, said(KEY[10:])),
        (said(KEY[:10]), Refusal(text=KEY[10:])),
        (said(KEY[:5]), said(KEY[5:12]), said(KEY[12:])),
        (Reasoning(text=KEY[:10]), said("Hello. "), Reasoning(text=KEY[10:])),
    ],
)
def test_a_whole_answer_is_read_over_its_blocks(parts: tuple[Part, ...]) -> None:
    surfaces = (Surface.OUTPUT, Surface.REASONING)
    guarded = guard(
        policy(rule("redact", surfaces=surfaces), tools=ToolRules(default=Effect.ALLOW)), Words(pattern=KEY)
    )
    reply = Reply(message=Message(role=Role.ASSISTANT, parts=parts))

    shown = guarded.finish(guarded.prepare(msgspec.structs.replace(ASKED, tools=(MAIL,))), reply).reply

    assert shown is not None
    assert len(shown.message.parts) == len(parts)
    for before, after in zip(parts, shown.message.parts, strict=True):
        piece = getattr(before, "text", "")
        if piece and piece in KEY:
            assert getattr(after, "text", "") == "[EMAIL]"
        else:
            assert after == before


@pytest.mark.parametrize(
    "message",
    [
        Message(
            role=Role.USER,
            parts=(Text(text=KEY[:10], origin=Origin.USER), Text(text=KEY[10:], origin=Origin.USER)),
        ),
        Message(
            role=Role.SYSTEM,
            parts=(Text(text=KEY[:10], origin=Origin.SYSTEM), Text(text=KEY[10:], origin=Origin.SYSTEM)),
        ),
        Message(
            role=Role.TOOL,
            parts=(
                ToolResult(call_id="1", name="t", text=KEY[:10]),
                ToolResult(call_id="1", name="t", text=KEY[10:]),
            ),
        ),
    ],
)
def test_a_request_is_read_over_its_parts(message: Message) -> None:
    surfaces = (Surface.INPUT, Surface.SYSTEM, Surface.TOOL_RESULT)
    guarded = guard(policy(rule("redact", surfaces=surfaces)), Words(pattern=KEY))

    sent = guarded.prepare(chat(message)).interaction

    assert [getattr(part, "text", "") for part in sent.messages[0].parts] == ["[EMAIL]", "[EMAIL]"]


def test_a_part_is_read_for_itself_as_well() -> None:
    guarded = guard(policy(rule("redact", surfaces=(Surface.OUTPUT,))), Words(pattern=rf"\b{KEY}\b"))
    reply = Reply(message=Message(role=Role.ASSISTANT, parts=(said("so12"), said(KEY), said("34"))))

    shown = guarded.finish(guarded.prepare(ASKED), reply).reply

    assert shown is not None
    assert [getattr(part, "text", "") for part in shown.message.parts] == ["so12", "[EMAIL]", "34"]


def test_what_one_part_says_is_told_once() -> None:
    guarded = guard(policy(rule("redact", surfaces=(Surface.OUTPUT,))), Words(pattern=KEY))
    reply = Reply(message=Message(role=Role.ASSISTANT, parts=(said(f"{KEY} "), said("and nothing"))))

    shown = guarded.finish(guarded.prepare(ASKED), reply).reply

    assert shown is not None
    [found] = [found for decision in shown.decisions for found in decision.findings]
    assert found.location.field == "reply.parts[0]"


@settings(deadline=None, max_examples=60)
@given(
    secret=st.sampled_from([KEY, CARD]),
    before=st.sampled_from(PROSE),
    after=st.sampled_from(PROSE),
    edges=EDGES,
    at=EDGES,
    effect=st.sampled_from(["redact", "block"]),
)
async def test_for_every_cut_into_blocks_and_pieces_nothing_gets_out(
    secret: str, before: str, after: str, edges: list[int], at: list[int], effect: str
) -> None:
    text = f"{before} {secret} {after}"
    blocks = cut(text, edges) if edges else [text]
    guarded = made(effect)
    whole = guarded.finish(
        guarded.prepare(ASKED),
        Reply(message=Message(role=Role.ASSISTANT, parts=tuple(said(b) for b in blocks))),
    ).reply
    assert whole is not None

    stream, out = await through(guarded, events_of_blocks(blocks, at))

    shown = texts_by_index(out)
    assert secret not in "".join(shown.values())
    assert secret not in "".join(getattr(p, "text", "") for p in whole.message.parts)
    assert stream.report.escaped == 0
    assert stream.was_stopped is (effect == "block")
    if effect == "redact":
        assert [shown.get(n, "") for n in range(len(blocks))] == [
            getattr(part, "text", "") for part in whole.message.parts
        ]


def with_tools() -> Guard:
    found = Selector(surfaces=(Surface.OUTPUT,), categories=("secret.*",))
    rules_of = Policy(
        name="test",
        rules=(Rule(id="out", effect=Effect.REDACT, when=found),),
        detectors={"secrets": DetectorSettings(deadline_ms=60_000, threshold=0.3)},
        tools=ToolRules(default=Effect.ALLOW),
    )
    detectors = {"secrets": Registry().create("secrets")}
    return Guard(rules_of, detectors, clock=ManualClock(), ids=CountingIds(), key=b"k" * 32)


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("second", [TextDelta, RefusalDelta])
async def test_a_call_between_two_blocks_does_not_keep_them_apart(size: int, second: type) -> None:
    head, tail = "The key is " + KEY[:10], KEY[10:] + " as you know."
    events: list[StreamEvent] = [TextDelta(text=head[i : i + size]) for i in range(0, len(head), size)]
    if second is TextDelta:
        events.append(ArgumentDelta(index=1, call_id="c", name="mail", json="{}"))
    events += [second(text=tail[i : i + size], index=2) for i in range(0, len(tail), size)]

    stream = with_tools().stream(with_tools().prepare(msgspec.structs.replace(ASKED, tools=(MAIL,))))
    out = [await stream.feed(event) for event in [*events, STOP]]
    await stream.finish()

    words = "".join(getattr(e, "text", "") for batch in out for e in batch)
    assert KEY not in words
    assert KEY[:10] not in words
    assert KEY[10:] not in words
    assert words.startswith("The key is [")
    assert words.endswith(" as you know.")


async def test_thoughts_are_read_over_their_blocks_and_lose_their_signatures() -> None:
    waits = with_settings(stream=WholeMessage.BUFFER)
    guarded = guard(
        policy(rule("redact", surfaces=(Surface.REASONING,)), detectors=waits), Words(pattern=KEY)
    )
    events: list[StreamEvent] = [
        ReasoningDelta(text=KEY[:10], index=0),
        ReasoningDelta(text="", index=0, signature="c2ln"),
        ReasoningDelta(text=KEY[10:], index=1),
        ReasoningDelta(text="", index=1, signature="c2ln"),
        ReasoningDelta(text=" Fine.", index=2),
        ReasoningDelta(text="", index=2, signature="b2s="),
    ]

    _, out = await through(guarded, [*events, STOP])

    shown = [e for batch in out for e in batch if isinstance(e, ReasoningDelta)]
    assert KEY[:10] not in "".join(e.text for e in shown)
    assert [e.signature for e in shown if e.signature] == ["b2s="]


async def test_blocks_that_go_back_and_forth_are_read_as_a_whole() -> None:
    events: list[StreamEvent] = [
        TextDelta(text=KEY[:6], index=0),
        TextDelta(text=KEY[14:], index=1),
        TextDelta(text=KEY[6:14], index=0),
    ]

    _, out = await through(made("redact"), [*events, STOP])

    assert KEY not in "".join(texts_by_index(out).values())
