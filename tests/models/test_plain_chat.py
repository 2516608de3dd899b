"""What the short way reads is what the long way reads; what it is not sure of, it leaves to the long way."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.core.errors import UnavailableError
from stanchion.core.interaction import (
    Interaction,
    Message,
    Reasoning,
    Reply,
    Role,
    Sampling,
    Text,
    ToolCall,
    ToolDefinition,
    Usage,
    assistant,
    system,
    user,
)
from stanchion.core.origin import Origin
from stanchion.gateway.json_body import decode_body
from stanchion.gateway.ports import Refused
from stanchion.models.http_client import json_body
from stanchion.models.openai_answers import decode_response
from stanchion.models.openai_chat_surface import ChatSurface
from stanchion.models.plain import plain_question
from stanchion.models.plain_chat import read_answer, read_chat, write_answer, write_chat
from stanchion.models.strict_json import decode_strict
from stanchion.models.surface import encode_json
from stanchion.models.upstreams import UPSTREAMS
from stanchion.models.wire import WireError

SURFACE = ChatSurface()
WORDS = st.text(alphabet=st.sampled_from('ab :"\\{}[],é\u2028😀\n'), max_size=12)
HUGE = st.integers(12, 500).flatmap(lambda digits: st.sampled_from([10**digits, -(10**digits)]))
NUMBERS = st.one_of(st.integers(), HUGE, st.floats(allow_nan=False, allow_infinity=False), st.booleans())
ANYTHING = st.one_of(st.none(), NUMBERS, WORDS, st.lists(WORDS, max_size=2), st.dictionaries(WORDS, WORDS))
TURN = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": WORDS}
    ),
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "nobody"]), "content": ANYTHING},
        optional={"name": WORDS, "tool_calls": ANYTHING, "refusal": ANYTHING, "reasoning": ANYTHING},
    ),
)
BODY = st.fixed_dictionaries(
    {"model": WORDS, "messages": st.lists(TURN, max_size=4)},
    optional={
        "stream": st.one_of(st.booleans(), ANYTHING),
        "stream_options": st.one_of(st.just({"include_usage": True}), ANYTHING),
        "max_tokens": NUMBERS,
        "max_completion_tokens": NUMBERS,
        "temperature": NUMBERS,
        "top_p": NUMBERS,
        "seed": NUMBERS,
        "user": st.one_of(WORDS, ANYTHING),
        "logprobs": ANYTHING,
        "n": ANYTHING,
    },
)
USAGE = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": NUMBERS,
        "completion_tokens": NUMBERS,
        "total_tokens": NUMBERS,
        "prompt_tokens_details": st.one_of(st.just({"cached_tokens": 3}), ANYTHING),
    },
)
ANSWER = st.fixed_dictionaries(
    {
        "model": WORDS,
        "choices": st.lists(
            st.fixed_dictionaries(
                {
                    "message": st.fixed_dictionaries(
                        {"content": st.one_of(WORDS, ANYTHING)},
                        optional={
                            "role": WORDS,
                            "refusal": ANYTHING,
                            "tool_calls": ANYTHING,
                            "annotations": ANYTHING,
                            "reasoning_content": ANYTHING,
                        },
                    )
                },
                optional={
                    "finish_reason": st.sampled_from(["stop", "length", None, "x"]),
                    "index": NUMBERS,
                    "logprobs": ANYTHING,
                },
            ),
            min_size=1,
            max_size=2,
        ),
    },
    optional={"usage": st.one_of(USAGE, ANYTHING), "id": WORDS, "created": NUMBERS, "error": ANYTHING},
)


def written(value, *, is_ascii, spaces, repeated):
    """The value as JSON text, in one of the ways that people write it; `repeated` says some keys twice."""

    class Twice(dict):
        def items(self):
            said = list(super().items())
            return said + said[:repeated]

    def twice(one):
        if isinstance(one, dict):
            return Twice({key: twice(inner) for key, inner in one.items()})
        return [twice(inner) for inner in one] if isinstance(one, list) else one

    text = json.dumps(
        twice(value) if repeated else value,
        ensure_ascii=is_ascii,
        separators=(", ", " : ") if spaces else (",", ":"),
    )
    return text.encode()


WAYS = st.fixed_dictionaries(
    {"is_ascii": st.booleans(), "spaces": st.booleans(), "repeated": st.sampled_from([0, 0, 0, 1, 9])}
)


def long_way(raw):
    """What the long way reads; None where it refuses."""
    try:
        return SURFACE.decode_request(decode_body(raw))
    except (WireError, Refused):
        return None


def told(reply):
    """Numbers with their types: 1, 1.0 and true are equal, and not the same."""
    return repr(reply)


@given(BODY, WAYS, st.booleans())
def test_a_request_is_read_as_the_long_way_reads_it_or_left_to_it(value, ways, is_cut) -> None:
    raw = written(value, **ways)
    raw = raw.replace(b":", b"\\u003a", 1) if is_cut else raw
    read = read_chat(raw)
    if read is not None:
        assert told(read) == told(long_way(raw))


@given(ANSWER, WAYS)
def test_an_answer_is_read_as_the_long_way_reads_it_or_left_to_it(value, ways) -> None:
    raw = written(value, **ways)
    read = read_answer(raw)
    if read is not None:
        assert told(read) == told(decode_response(decode_strict(raw, what="it")))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}',
        b'{"model": "m", "messages": [{"role": "user", "content": "Listen: a, b"}], "max_tokens": 9}',
        b'{"model":"m","messages":[{"role":"system","content":"\\u00e9"},{"role":"assistant","content":""}],'
        b'"stream":true,"stream_options":{"include_usage":true},"temperature":0.5,"user":"u:1","seed":3}',
    ],
)
def test_plain_requests_take_the_short_way(raw) -> None:
    assert read_chat(raw) is not None
    assert read_chat(raw) == long_way(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"m","model":"n","messages":[]}',
        b'{"model":"m","model":"n\\u003a","messages":[]}',
        b'{"model":"m","messages":[{"role":"user","content":"\\u003a","content":"x"}]}',
        b'{"model":"m","messages":[{"role":"user","role":"system","content":"\\u003A x"}]}',
        b'{"model":"m","mod\\u0065l":"n","messages":[]}',
        b'{"model":"m","messages":[{"role":"tool","content":"x"}]}',
        b'{"model":"m","messages":[],"max_tokens":1.0}',
        b'{"model":"m","messages":[],"stream":null}',
        b'{"model":"m","messages":[],"logprobs":true}',
        b'{"model":"\\ud800","messages":[]}',
        b'{"model":"\xff","messages":[]}',
        b'{"model":"m","messages":[],"temperature":1e999}',
        b"[]",
        b"",
    ],
)
def test_everything_else_takes_the_long_way(raw) -> None:
    assert read_chat(raw) is None


def test_a_plain_answer_takes_the_short_way_and_one_with_more_to_it_does_not() -> None:
    message = {"role": "assistant", "content": "Yes: it is.", "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}}
    value = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    raw = encode_json({**value, "usage": usage, "system_fingerprint": None})
    read = read_answer(raw)
    assert read is not None
    assert read == decode_response(json.loads(raw))
    assert read_answer(encode_json({**value, "choices": [choice, choice]})) is None
    assert read_answer(encode_json({**value, "error": {"code": "x"}})) is None
    message["reasoning_content"] = "Hm."
    assert read_answer(encode_json(value)) is None
    with pytest.raises(UnavailableError):
        decode_strict(raw[:-1] + b',"model":"n"}', what="it")
    assert read_answer(raw[:-1] + b',"model":"n"}') is None


@given(
    WORDS,
    WORDS,
    st.sampled_from(["stop", "length", "content_filter", "unknown"]),
    st.one_of(st.none(), st.integers(0, 99)),
    st.one_of(st.none(), st.integers(0, 99)),
)
def test_an_answer_is_written_byte_for_byte_as_the_long_way_writes_it(text, model, reason, read, cached):
    asked = read_chat(b'{"model":"m","messages":[]}')
    assert asked is not None
    reply = decode_response(
        {"model": model, "choices": [{"message": {"content": text or "x"}, "finish_reason": reason}]}
    )
    usage = Usage(input_tokens=read, cached_input_tokens=cached)
    reply = Reply(message=reply.message, model=model, finish_reason=reply.finish_reason, usage=usage)
    long = encode_json(SURFACE.encode_reply(reply, asked=asked, response_id="req_1", created=7))
    assert write_answer(reply, asked=asked, response_id="req_1", created=7) == long


@pytest.mark.parametrize(
    "message",
    [
        assistant("Look.", ToolCall(id="a", name="b", arguments={})),
        Message(role=Role.ASSISTANT, parts=(Reasoning(text="Hm."),)),
        Message(role=Role.ASSISTANT, parts=(Text(text="a", origin=Origin.MODEL),) * 2),
        assistant(""),
    ],
)
def test_answers_with_more_than_words_are_written_the_long_way(message) -> None:
    asked = read_chat(b'{"model":"m","messages":[]}')
    assert asked is not None
    assert write_answer(Reply(message=message), asked=asked, response_id="r", created=1) is None


SAMPLING = st.builds(
    Sampling,
    temperature=st.one_of(st.none(), st.floats(0, 2), st.integers(0, 2)),
    top_p=st.one_of(st.none(), st.floats(0, 1)),
    max_output_tokens=st.one_of(st.none(), st.integers(-3, 10**20)),
    seed=st.one_of(st.none(), st.integers()),
)


@given(
    st.lists(st.builds(lambda say, words: say(words), st.sampled_from([system, user]), WORDS), max_size=4),
    WORDS,
    WORDS,
    SAMPLING,
    st.booleans(),
)
def test_a_question_is_written_byte_for_byte_as_the_long_way_writes_it(turns, said, model, sampling, stream):
    asked = Interaction(messages=(*turns, assistant(said or "x")), model=model or "m", sampling=sampling)
    long = json_body(UPSTREAMS["openai.chat"].encode_request(asked, stream=stream, extras={}))
    assert write_chat(asked, model=asked.model, stream=stream) == long
    assert plain_question("openai.chat", asked, model=asked.model, stream=stream, extras={}) == long
    other = write_chat(asked, model="other", stream=stream)
    assert other is not None
    assert json.loads(other) == {**json.loads(long), "model": "other"}


TOLD = user("Hi.")


@pytest.mark.parametrize(
    "asked",
    [
        Interaction(messages=(assistant(""),)),
        Interaction(messages=(assistant("Look.", ToolCall(id="a", name="b", arguments={})),)),
        Interaction(messages=(Message(role=Role.USER, parts=TOLD.parts * 2),)),
        Interaction(messages=(Message(role=Role.USER, parts=TOLD.parts, name="me"),)),
        Interaction(messages=(Message(role=Role.TOOL, parts=TOLD.parts),)),
        Interaction(messages=(Message(role=Role.SYSTEM, parts=TOLD.parts, said_as="developer"),)),
        Interaction(messages=(user("\ud800"),)),
        Interaction(messages=(TOLD,), tools=(ToolDefinition(name="t"),)),
        Interaction(messages=(TOLD,), sampling=Sampling(stop=("x",))),
        Interaction(messages=(TOLD,), sampling=Sampling(tool_choice="auto")),
        Interaction(messages=(TOLD,), sampling=Sampling(response_schema={})),
    ],
)
def test_questions_with_more_than_words_are_written_the_long_way(asked: Interaction) -> None:
    assert write_chat(asked, model="m", stream=False) is None


def test_what_has_no_short_way_is_written_the_long_way() -> None:
    asked = Interaction(messages=(TOLD,))
    assert write_chat(asked, model="", stream=False) is None
    assert plain_question("openai.chat", asked, model="m", stream=False, extras={"user": "u"}) is None
    assert plain_question("openai.responses", asked, model="m", stream=False, extras={}) is None


@pytest.mark.parametrize("name", ["stream", "max_tokens", "temperature", "seed", "stream_options", "user"])
def test_a_null_is_left_to_the_long_way_even_beside_words_with_a_colon(name: str) -> None:
    body = {"model": "m:", "messages": [{"role": "user", "content": "a: b"}]}
    assert read_chat(encode_json(body)) is not None
    assert read_chat(encode_json({**body, name: None})) is None
    answer = {"model": "m", "choices": [{"message": {"content": "a: b"}}], "usage": {"prompt_tokens": 3}}
    assert read_answer(encode_json(answer)) is not None
    assert read_answer(encode_json({**answer, "usage": {"prompt_tokens": None}})) is None
