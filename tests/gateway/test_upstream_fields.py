"""What a provider says beside its words has a plain form, or is not passed on."""

from __future__ import annotations

import pytest

from stanchion.core.interaction import (
    ArgumentDelta,
    End,
    FinishReason,
    Message,
    Reasoning,
    ReasoningDelta,
    Reply,
    Role,
    ToolCall,
)
from stanchion.gateway import upstream_fields
from stanchion.gateway.upstream_fields import plain_events, plain_id, plain_model, plain_reply
from stanchion.models.wire import error_label

WORDS = "call me at 4111 1111 1111 1111"


def test_fields_of_a_whole_answer_are_plain() -> None:
    parts = (
        ToolCall(id=WORDS, name="t", arguments={}),
        ToolCall(id="call_1", name="t", arguments={}),
        Reasoning(text="r", signature=WORDS),
        Reasoning(text="r", signature="c2ln+/=="),
    )
    said = plain_reply(Reply(message=Message(role=Role.ASSISTANT, parts=parts), model=WORDS), "gpt")

    first, second, third, fourth = said.message.parts
    assert isinstance(first, ToolCall)
    assert first.id == plain_id(WORDS)
    assert first.id.startswith("call_")
    assert "4111" not in str(said)
    assert (second, fourth) == (parts[1], parts[3])
    assert third == Reasoning(text="r", signature=None)
    assert said.model == "gpt"


def test_an_answer_whose_fields_are_plain_is_left_alone() -> None:
    reply = Reply(
        message=Message(role=Role.ASSISTANT, parts=(ToolCall(id="toolu_01:a.b-c", name="t", arguments={}),)),
        model="gpt-4o-2024-08-06",
    )
    assert plain_reply(reply, "gpt") is reply


def test_fields_of_a_stream_are_the_same_as_those_of_a_whole_answer() -> None:
    call, thought, end = plain_events(
        [
            ArgumentDelta(index=0, call_id=WORDS, name="t"),
            ReasoningDelta(text="", index=1, signature=WORDS),
            End(finish_reason=FinishReason.STOP, model="4111111111111111"),
        ],
        "gpt",
    )
    assert call == ArgumentDelta(index=0, call_id=plain_id(WORDS), name="t")
    assert thought == ReasoningDelta(text="", index=1)
    assert end == End(finish_reason=FinishReason.STOP, model="gpt")


@pytest.mark.parametrize(
    "code", ["AKIAQYLPMN5HHHFPZAM2", "4111111111111111", "4111-1111-1111-1111", 4111111111]
)
def test_an_error_code_carries_no_key_and_no_number(code: object) -> None:
    assert error_label({"error": {"code": code, "type": "invalid_request_error"}}) == "invalid_request_error"


def test_what_is_remembered_of_names_is_bounded_in_number_and_length() -> None:
    for number in range(600):
        assert plain_model(f"model-{number}", "route") == f"model-{number}"
    kept = upstream_fields._is_model.cache_info()
    assert kept.currsize <= 256
    assert plain_model("a" * 129, "route") == "route"
    assert upstream_fields._is_model.cache_info().misses == kept.misses
