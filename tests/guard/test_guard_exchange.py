"""Whole exchanges: what goes to the model, what comes back, and the record of it."""

from __future__ import annotations

import msgspec
import pytest
from guard_fakes import Model, Words, chat, finding, guard, policy, rule

from stanchion.core.decision import CheckStatus, Effect, Mode, Surface
from stanchion.core.errors import UnavailableError
from stanchion.core.interaction import (
    Document,
    FinishReason,
    Interaction,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Reply,
    Role,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
    assistant,
    system,
    user,
)
from stanchion.core.origin import Origin
from stanchion.core.target import Target
from stanchion.guard.answers import GuardState
from stanchion.guard.media_rules import MediaHandling, MediaRules
from stanchion.guard.policy_model import (
    Handling,
    Limits,
    MarkingStyle,
    ToolRules,
)
from stanchion.guard.rules import Operator

ALLOW_TOOLS = ToolRules(default=Effect.ALLOW)
MEDIA = {
    Handling.ALLOW: MediaRules.every(MediaHandling.ALLOW),
    Handling.BLOCK: MediaRules.every(MediaHandling.BLOCK),
}


async def test_an_unchanged_request_is_the_same_object_for_the_model() -> None:
    model = Model()
    wrapped = guard(policy(rule("redact"))).wrap(model)
    asked = chat(system("be kind"), user("hello"), session_id="s")

    answered = await wrapped.invoke(asked)

    assert model.asked[0] is asked
    assert answered.reply is not None
    assert answered.reply.message.text == "fine"
    assert [d.surface for d in answered.reply.decisions] == [Surface.SYSTEM, Surface.INPUT, Surface.OUTPUT]
    assert isinstance(wrapped, Target)
    assert wrapped.id == "model guarded"
    assert wrapped.components.model == model.components.model
    assert wrapped.components.policy


async def test_prepare_and_finish_are_what_wrap_does_so_that_an_answer_can_be_reused() -> None:
    made = guard(policy(rule("redact", operator=Operator.VAULT)))
    model = Model("I wrote to a@b.c and noted it.")
    asked = chat(user("hello"), session_id="s")
    unguarded = (await model.invoke(asked)).reply
    assert unguarded is not None

    prepared = made.prepare(asked)
    assert prepared.is_unchanged
    reused = made.finish(prepared, msgspec.structs.replace(unguarded, reused_from="sha256:x"))
    fresh = await made.wrap(model).invoke(asked)

    assert reused.reply is not None
    assert fresh.reply is not None
    assert reused.reply.message == fresh.reply.message
    assert reused.reply.message.text == "I wrote to [EMAIL] and noted it."
    assert reused.reply.reused_from == "sha256:x"
    assert not made.prepare(chat(user("mail a@b.c"))).is_unchanged


async def test_the_vault_hides_values_from_the_model_and_gives_them_back_across_turns_and_json() -> None:
    def answer(interaction: Interaction) -> Message:
        token = interaction.messages[-1].text.split()[-1]
        return Message(
            role=Role.ASSISTANT,
            parts=(
                Text(text=f"I will write to {token}.", origin=Origin.MODEL),
                ToolCall(
                    id="1",
                    name="mail",
                    arguments={"to": [token], "n": 1},
                    raw_arguments=f'{{"to": ["\\u003c{token[1:]}"], "n": 1}}',
                ),
            ),
        )

    made = guard(policy(rule("redact", operator=Operator.VAULT), tools=ALLOW_TOOLS))
    model = Model(answer)
    mail = ToolDefinition(name="mail", parameters={})
    wrapped = made.wrap(model)
    first = await wrapped.invoke(chat(user("my mail is o@b.c"), session_id="s", tools=(mail,)))

    assert "o@b.c" not in str(msgspec.to_builtins(model.asked[0]))
    assert first.reply is not None
    assert first.reply.message.text == "I will write to o@b.c."
    call = first.reply.message.tool_calls[0]
    assert call.arguments == {"to": ["o@b.c"], "n": 1}
    assert call.raw_arguments == '{"to": ["o@b.c"], "n": 1}'

    second = await wrapped.invoke(
        chat(user("o@b.c"), first.reply.message, user("and again o@b.c"), session_id="s", tools=(mail,))
    )
    assert second.reply is not None
    assert model.asked[1].messages[0].text == model.asked[0].messages[0].text.split()[-1]
    assert "o@b.c" not in str(msgspec.to_builtins(model.asked[1]))
    other = await wrapped.invoke(chat(user(model.asked[0].messages[0].text), session_id="t", tools=(mail,)))
    assert other.reply is not None
    assert "o@b.c" not in other.reply.message.text


@pytest.mark.parametrize("effect", [Effect.REPLACE, Effect.ROUTE, Effect.REQUIRE_APPROVAL, Effect.BLOCK])
async def test_a_stopped_request_never_reaches_the_model_and_the_user_reads_what_to_do(
    effect: Effect,
) -> None:
    model = Model()
    made = guard(policy(rule(effect)))
    answered = await made.wrap(model).invoke(chat(user("mail a@b.c")))

    assert model.asked == []
    assert answered.reply is not None
    assert answered.reply.finish_reason is FinishReason.CONTENT_FILTER
    assert answered.reply.decisions[0].reference in answered.reply.message.text
    assert "a@b.c" not in answered.reply.message.text
    assert answered.messages == (user("mail a@b.c"),)


async def test_a_stopped_reply_is_replaced_and_keeps_usage_and_model() -> None:
    answered = (
        await guard(policy(rule("replace", surfaces=(Surface.OUTPUT,))))
        .wrap(Model("x@y.z"))
        .invoke(chat(user("mail a@b.c")))
    )
    assert answered.reply is not None
    assert "x@y.z" not in answered.reply.message.text
    assert answered.reply.finish_reason is FinishReason.CONTENT_FILTER
    assert (answered.reply.model, answered.reply.usage.output_tokens) == ("m", 3)


async def test_a_poisoned_document_or_tool_result_is_taken_out_and_the_exchange_goes_on() -> None:
    model = Model()
    made = guard(policy(rule("replace", surfaces=(Surface.RETRIEVED, Surface.TOOL_RESULT))))
    asked = chat(
        Message(
            role=Role.USER,
            parts=(
                Text(text="bad a@b.c", origin=Origin.RETRIEVED),
                Text(text="good", origin=Origin.RETRIEVED),
                Text(text="question from q@b.c", origin=Origin.USER),
            ),
        ),
        Message(role=Role.TOOL, parts=(ToolResult(call_id="1", name="t", text="bad t@b.c"),)),
        documents=(Document(id="d", text="bad d@b.c"),),
    )
    answered = await made.wrap(model).invoke(asked)

    sent = model.asked[0]
    assert sent.messages[0].text.split("\n")[0].startswith("[This document was removed")
    assert sent.messages[0].text.split("\n")[1:] == ["good", "question from q@b.c"]
    assert "t@b.c" not in str(msgspec.to_builtins(sent))
    assert sent.documents[0].text.startswith("[This document was removed")
    assert answered.reply is not None
    assert answered.reply.finish_reason is FinishReason.STOP
    assert answered.documents == asked.documents


def every_part() -> Interaction:
    return chat(
        system("s@b.c"),
        Message(
            role=Role.USER,
            name="n@b.c",
            parts=(
                Text(text="u@b.c", origin=Origin.USER),
                Text(text="d@b.c", origin=Origin.RETRIEVED),
                Text(text="m@b.c", origin=Origin.MEMORY),
                Text(text="x@b.c", origin=Origin.UNKNOWN),
            ),
        ),
        Message(
            role=Role.ASSISTANT,
            parts=(
                Reasoning(text="r@b.c"),
                Refusal(text="f@b.c"),
                ToolCall(id="1", name="t", arguments={"a": {"b": ["c@b.c", 7]}, "o b": "e@b.c"}),
                ToolCall(id="2", name="t", arguments=None, raw_arguments="{w@b.c"),
            ),
        ),
        Message(role=Role.TOOL, parts=(ToolResult(call_id="1", name="t", text="t@b.c"),)),
        documents=(Document(id="1", text="o@b.c"),),
        tools=(
            ToolDefinition(
                name="t",
                description="y@b.c",
                parameters={"properties": {"a": {"description": "z@b.c"}}},
                extra=Opaque(kind="vendor", payload={"hint": "v@b.c"}),
            ),
        ),
    )


def test_no_text_of_any_part_reaches_the_model_unscanned() -> None:
    words = Words()
    asked = every_part()
    made = guard(policy(rule("redact")), words)
    stopped = made.prepare(asked)  # the vendor's tool field cannot be rewritten, so it stops the exchange
    assert stopped.blocked is not None

    bare = msgspec.structs.replace(asked.tools[0], extra=None)
    prepared = made.prepare(msgspec.structs.replace(asked, tools=(bare,)))
    assert prepared.blocked is None
    sent = msgspec.json.encode(prepared.interaction).decode()
    assert "@b.c" not in sent
    assert sent.count("[EMAIL]") == 15
    seen = {given_.text for given_ in words.seen}
    assert {f"{letter}@b.c" for letter in "snudmxrfcetoyzv"} <= seen


def test_a_key_that_must_go_stops_the_exchange_because_it_cannot_be_rewritten() -> None:
    call = ToolCall(id="1", name="t", arguments={"a@b.c": 1})
    prepared = guard(policy(rule("redact"))).prepare(chat(assistant("", call)))

    assert prepared.blocked is not None
    assert "cannot be rewritten" in prepared.decisions[0].reason


def test_what_should_be_taken_out_and_cannot_be_rewritten_stops_the_exchange() -> None:
    made = guard(policy(rule("replace", surfaces=(Surface.TOOL_DEFINITION,))))
    extra = Opaque(kind="vendor", payload={"hint": "v@b.c"})

    assert made.prepare(chat(tools=(ToolDefinition(name="t", description="d@b.c"),))).blocked is None
    for tool in (ToolDefinition(name="t", extra=extra), ToolDefinition(name="n@b.c")):
        prepared = made.prepare(chat(tools=(tool,)))
        assert prepared.blocked is not None
        assert prepared.decisions[0].effect is Effect.BLOCK
        assert "cannot be rewritten" in prepared.decisions[0].reason


def test_signed_reasoning_cannot_be_rewritten_in_a_request_and_loses_its_signature_in_a_reply() -> None:
    part = Reasoning(text="a@b.c", signature="sig")
    made = guard(policy(rule("redact")))
    turn = Message(role=Role.ASSISTANT, parts=(part,))

    assert made.prepare(chat(turn)).blocked is not None
    finished = made.finish(made.prepare(chat(user("hi"))), Reply(message=turn))
    assert finished.reply is not None
    assert finished.reply.message.parts == (Reasoning(text="[EMAIL]"),)


def test_a_finding_without_extent_cannot_be_redacted_so_it_blocks() -> None:
    from guard_fakes import Misbehaving

    made = guard(policy(rule("redact")), Misbehaving(lambda _: [finding(0, 0)]))

    assert not made.check("hello").allowed


@pytest.mark.parametrize(
    ("part", "setting"),
    [
        (Media(media_type="image/png", origin=Origin.USER, digest="d"), "media"),
        (Opaque(kind="video", payload={"a": 1}), "opaque"),
        (Reasoning(text="", signature="c2VhbGVk" * 20, redacted=True), "redacted_reasoning"),
    ],
)
@pytest.mark.parametrize("handling", list(Handling))
@pytest.mark.parametrize("is_reply", [False, True])
def test_parts_that_no_check_can_read_follow_their_explicit_rule(
    part: Part, setting: str, handling: Handling, is_reply: bool
) -> None:
    made = guard(policy(rule("redact"), **{setting: MEDIA[handling] if setting == "media" else handling}))
    turn = Message(role=Role.ASSISTANT if is_reply else Role.USER, parts=(part,))
    if is_reply:
        finished = made.finish(made.prepare(chat(user("hi"))), Reply(message=turn))
        assert finished.reply is not None
        decision = finished.reply.decisions[-1]
        passed = finished.reply.message == turn
    else:
        prepared = made.prepare(chat(turn))
        decision = prepared.decisions[0]
        passed = prepared.blocked is None

    assert passed is (handling is Handling.ALLOW)
    assert decision.rule_ids == (setting,)
    assert [f.category for f in decision.findings] == ["input.media"]
    assert decision.checks[0].status is CheckStatus.SKIPPED


@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        (Limits(text_characters=10), chat(user("x" * 11))),
        (Limits(total_characters=20), chat(*(user("x" * 9) for _ in range(3)))),
        (Limits(parts=2), chat(*(user("x") for _ in range(3)))),
        (
            Limits(argument_depth=2),
            chat(assistant("", ToolCall(id="1", name="t", arguments={"a": [[[1]]]}))),
        ),
    ],
)
def test_beyond_a_limit_nothing_is_checked_and_nothing_passes(limits: Limits, asked: Interaction) -> None:
    words = Words()
    prepared = guard(policy(rule("redact"), limits=limits), words).prepare(asked)

    assert prepared.blocked is not None
    assert prepared.decisions[0].effect is Effect.BLOCK
    assert {f.category for f in prepared.decisions[0].findings} == {"input.limit"}
    assert all(len(given_.text) <= 10 for given_ in words.seen)


def test_an_answer_beyond_its_limit_is_stopped() -> None:
    made = guard(policy(rule("redact"), limits=Limits(output_characters=10)))
    finished = made.finish(made.prepare(chat(user("hi"))), Reply(message=assistant("x" * 11)))

    assert finished.reply is not None
    assert finished.reply.decisions[-1].rule_ids == ("limits.output_characters",)
    assert "xxx" not in finished.reply.message.text


def test_context_for_leakage_detectors_comes_by_itself() -> None:
    words = Words()
    made = guard(policy(rule("redact")), words)
    asked = chat(
        system("the prompt"),
        user("first"),
        Message(role=Role.USER, parts=(Text(text="found", origin=Origin.RETRIEVED),)),
        user("last"),
        documents=(Document(id="d", text="doc"),),
        reply=Reply(message=assistant("answer")),
        session_id="s",
    )
    made.check_interaction(asked, context={"canaries": ("c-1",)})
    given_ = next(one for one in words.seen if one.text == "answer")

    assert given_.context == {
        "system_prompt": ("the prompt",),
        "documents": ("doc", "found"),
        "document_ids": ("d",),
        "question": ("last",),
        "canaries": ("c-1",),
    }
    assert given_.session_id == "s"
    assert given_.origin is Origin.MODEL


def test_documents_that_the_inner_target_found_are_context_and_stay_in_the_answer() -> None:
    words = Words()

    class Feature(Model):
        async def invoke(self, interaction: Interaction) -> Interaction:
            found = msgspec.structs.replace(interaction, documents=(Document(id="d", text="found"),))
            return await super().invoke(found)

    import asyncio

    answered = asyncio.run(guard(policy(rule("redact")), words).wrap(Feature()).invoke(chat(user("hi"))))
    assert answered.documents[0].text == "found"
    assert next(one for one in words.seen if one.text == "fine").context["documents"] == ("found",)


def test_every_decision_carries_what_explains_it() -> None:
    made = guard(policy(rule("redact", id="no-mail")))
    decision = made.check("line one\nmail a@b.c").decision

    assert decision.rule_ids == ("no-mail",)
    assert decision.policy_digest == (made.policy.digest if made.policy else "")
    assert decision.reference == "dec_1"
    assert decision.is_protected
    (found,) = decision.findings
    assert (found.location.start, found.location.line, found.location.column) == (14, 2, 6)
    assert found.location.field == "text"
    (record,) = decision.checks
    assert (record.detector, record.status, record.findings) == ("pii", CheckStatus.RAN, 1)
    assert "a@b.c" not in repr(decision)
    assert "a@b.c" not in repr(made.check("a@b.c"))


def test_shadow_mode_changes_nothing_and_records_everything() -> None:
    made = guard(
        policy(rule("block"), mode=Mode.SHADOW, marking=MarkingStyle.DELIMIT, media=MEDIA[Handling.BLOCK])
    )
    asked = chat(
        user("a@b.c"),
        Message(
            role=Role.USER,
            parts=(
                Media(media_type="image/png", origin=Origin.USER, digest="d"),
                Text(text="found", origin=Origin.RETRIEVED),
            ),
        ),
    )
    prepared = made.prepare(asked)

    assert made.state is GuardState.OBSERVING
    assert prepared.is_unchanged
    assert prepared.decisions[0].effect is Effect.BLOCK
    assert prepared.decisions[0].mode is Mode.SHADOW


async def test_a_target_without_an_answer_is_an_error() -> None:
    class Silent(Model):
        async def invoke(self, interaction: Interaction) -> Interaction:
            return interaction

    with pytest.raises(UnavailableError, match="gave no reply"):
        await guard(policy(rule("redact"))).wrap(Silent()).invoke(chat(user("hi")))


async def test_the_vault_makes_tokens_only_of_what_the_user_brought() -> None:
    made = guard(policy(rule("redact", operator=Operator.VAULT)))
    asked = chat(
        system("boss o@b.c"),
        user("I am a@b.c"),
        documents=(Document(id="d", text="x@y.z"),),
        session_id="s",
    )
    model = Model(lambda seen: " ".join([*(m.text for m in seen.messages), seen.documents[0].text]))

    answered = await made.wrap(model).invoke(asked)

    assert answered.reply is not None
    assert answered.reply.message.text == "boss [EMAIL] I am a@b.c [EMAIL]"
