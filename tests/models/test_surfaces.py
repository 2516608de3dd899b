"""Every surface: what it writes is what its API says, by our own decoders, whatever the events are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_strategies import replies

from stanchion.core.interaction import (
    ArgumentDelta,
    End,
    FinishReason,
    Message,
    Opaque,
    Reply,
    Role,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    UnknownEvent,
    assistant,
)
from stanchion.core.origin import Origin
from stanchion.models import anthropic_answers, openai_answers
from stanchion.models.events import Assembler, events_of
from stanchion.models.foreign import lost_in
from stanchion.models.sse import ServerSentEvent, SseParser
from stanchion.models.surface import SurfaceCodec
from stanchion.models.surfaces import SURFACES
from stanchion.models.wire import Request

CHAT = SURFACES["openai.chat"]
MESSAGES = SURFACES["anthropic.messages"]
ASKED: dict[str, dict[str, Any]] = {
    "openai.chat": {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream_options": {"include_usage": True},
    },
    "anthropic.messages": {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hi"}],
    },
}
BLOCKED = Reply(message=assistant("I cannot help with that."), finish_reason=FinishReason.CONTENT_FILTER)


def asked(codec: SurfaceCodec) -> Request:
    return codec.decode_request(ASKED[codec.name])


def written(codec: SurfaceCodec, events: list[StreamEvent]) -> list[ServerSentEvent]:
    encoder = codec.stream_encoder(asked=asked(codec), response_id="r1", created=7)
    frames = [frame for event in events for frame in encoder.feed(event)] + encoder.finish()
    assert all(frame.endswith(b"\n\n") for frame in frames)
    return SseParser().feed(b"".join(frames))


def read(codec: SurfaceCodec, said: list[ServerSentEvent]) -> Reply:
    assembler = Assembler()
    decoder = openai_answers.ChunkDecoder() if codec is CHAT else anthropic_answers.EventDecoder()
    for one in said:
        events = decoder.finish() if one.data == "[DONE]" else decoder.feed(json.loads(one.data))
        for event in events:
            assembler.feed(event)
    return assembler.reply()


@given(replies(openai=True), st.integers(1, 4))
@settings(deadline=None)
def test_a_chat_stream_says_what_the_reply_says(reply: Reply, chunk_chars: int) -> None:
    events = list(events_of(reply, chunk_chars=chunk_chars))
    plain = openai_answers.ChunkEncoder(response_id="r1", created=7, model="m", include_usage=True)
    expected = [chunk for event in events for chunk in plain.feed(event)]
    said = written(CHAT, events)
    assert [json.loads(one.data) for one in said[:-1]] == expected
    assert said[-1].data == "[DONE]"


@given(replies(openai=False), st.integers(1, 4))
@settings(deadline=None)
def test_a_message_stream_says_what_the_reply_says(reply: Reply, chunk_chars: int) -> None:
    events = list(events_of(reply, chunk_chars=chunk_chars))
    plain = anthropic_answers.EventEncoder(response_id="r1", model="m")
    expected = [pair for event in events for pair in plain.feed(event)]
    assert [(one.event, json.loads(one.data)) for one in written(MESSAGES, events)] == expected


def test_a_blocked_answer_keeps_the_shape_of_each_api() -> None:
    whole = CHAT.encode_reply(BLOCKED, asked=asked(CHAT), response_id="r1", created=7)
    assert whole["choices"][0]["finish_reason"] == "content_filter"
    assert whole["choices"][0]["message"]["content"] == "I cannot help with that."
    assert whole["model"] == "m"
    message = MESSAGES.encode_reply(BLOCKED, asked=asked(MESSAGES), response_id="r1", created=7)
    assert message["stop_reason"] == "refusal"
    assert message["content"] == [{"type": "text", "text": "I cannot help with that."}]
    for codec in (CHAT, MESSAGES):
        answer = read(codec, written(codec, list(events_of(BLOCKED))))
        assert answer.finish_reason is FinishReason.CONTENT_FILTER
        assert answer.message.text == "I cannot help with that."


@pytest.mark.parametrize("codec", [CHAT, MESSAGES], ids=lambda c: c.name)
def test_a_torn_stream_never_looks_whole(codec: SurfaceCodec) -> None:
    said = written(codec, [TextDelta(text="Hel"), TextDelta(text="lo")])
    assert all(one.data != "[DONE]" and one.event != "message_stop" for one in said)
    with pytest.raises(Exception, match="broke off"):
        read(codec, said)


@pytest.mark.parametrize("codec", [CHAT, MESSAGES], ids=lambda c: c.name)
def test_what_another_vendor_said_is_left_out_and_counted(codec: SurfaceCodec) -> None:
    events: list[StreamEvent] = [
        TextDelta(text="a"),
        UnknownEvent(kind="elsewhere:thing", payload={"type": "thing"}),
        TextDelta(text="b"),
        End(finish_reason=FinishReason.STOP),
    ]
    encoder = codec.stream_encoder(asked=asked(codec), response_id="r1", created=7)
    frames = b"".join(frame for event in events for frame in encoder.feed(event))
    assert encoder.lost == {"elsewhere:thing": 1}
    assert b"thing" not in frames
    foreign = Opaque(kind="elsewhere:thing", payload={"type": "thing"})
    parts = (Text(text="a", origin=Origin.MODEL), foreign)
    reply = Reply(message=Message(role=Role.ASSISTANT, parts=parts))
    body = codec.encode_reply(reply, asked=asked(codec), response_id="r1", created=7)
    assert "thing" not in json.dumps(body)
    assert lost_in(reply, "openai") == {"elsewhere:thing": 1}


def test_a_block_that_came_whole_is_streamed_as_a_block() -> None:
    block = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    part = Opaque(kind="anthropic:server_tool_use", payload=block)
    words = Text(text="Found.", origin=Origin.MODEL)
    reply = Reply(message=Message(role=Role.ASSISTANT, parts=(part, words)))
    said = written(MESSAGES, list(events_of(reply)))
    assert [one.event for one in said] == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert json.loads(said[1].data) == {"type": "content_block_start", "index": 0, "content_block": block}


def test_arguments_that_are_no_object_reach_a_messages_client_marked() -> None:
    call = ToolCall(id="c", name="f", arguments=None, raw_arguments="{oops")
    reply = Reply(message=Message(role=Role.ASSISTANT, parts=(call,)))
    body = MESSAGES.encode_reply(reply, asked=asked(MESSAGES), response_id="r1", created=7)
    assert body["content"][0]["input"] == {"INVALID_JSON": "{oops"}


def test_words_after_a_tool_call_open_a_block_of_their_own() -> None:
    events: list[StreamEvent] = [
        TextDelta(text="a", index=0),
        TextDelta(text="b", index=0),
        ArgumentDelta(index=1, call_id="c", name="f", json="{}"),
        TextDelta(text="c", index=2),
        End(finish_reason=FinishReason.TOOL_CALLS),
    ]
    reply = read(MESSAGES, written(MESSAGES, events))
    assert [type(part).__name__ for part in reply.message.parts] == ["Text", "ToolCall", "Text"]


def test_calls_whose_pieces_come_in_turn_are_said_one_after_another() -> None:
    events: list[StreamEvent] = [
        ArgumentDelta(index=0, call_id="a", name="f", json='{"x":'),
        ArgumentDelta(index=1, call_id="b", name="g", json='{"y":'),
        ArgumentDelta(index=0, json="1}"),
        ArgumentDelta(index=1, json="2}"),
        End(finish_reason=FinishReason.TOOL_CALLS),
    ]
    for codec in (CHAT, MESSAGES):
        calls = read(codec, written(codec, events)).message.tool_calls
        assert [(call.id, call.arguments) for call in calls] == [("a", {"x": 1}), ("b", {"y": 2})]


@pytest.mark.parametrize(
    ("status", "openai_type", "anthropic_type"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (401, "authentication_error", "authentication_error"),
        (403, "permission_error", "permission_error"),
        (404, "not_found_error", "not_found_error"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_error"),
        (500, "server_error", "api_error"),
        (503, "server_error", "api_error"),
        (529, "server_error", "overloaded_error"),
    ],
)
def test_errors_have_each_apis_shape(status: int, openai_type: str, anthropic_type: str) -> None:
    error = CHAT.encode_error(status=status, code="limited", message="Too much.", retry_after_s=2.0)
    assert error == {
        "error": {
            "message": "Too much. Try again in 2 s.",
            "type": openai_type,
            "param": None,
            "code": "limited",
        }
    }
    error = MESSAGES.encode_error(status=status, code="limited", message="Too much.")
    assert error == {"type": "error", "error": {"type": anthropic_type, "message": "Too much."}}
