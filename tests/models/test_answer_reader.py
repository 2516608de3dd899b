"""Bytes of streamed answers: the quick way says what the long way says; what is wrong is a clear error."""

from __future__ import annotations

import json
from collections import deque
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_strategies import replies

from stanchion.core.errors import UnavailableError
from stanchion.core.interaction import End, Interaction, Reply, StreamEvent, TextDelta, assistant, user
from stanchion.models.answer_reader import SseReader
from stanchion.models.events import Assembler, events_of
from stanchion.models.openai_answers import ChunkDecoder
from stanchion.models.sse import SseLimits, SseParser
from stanchion.models.strict_json import decode_strict
from stanchion.models.surfaces import SURFACES
from stanchion.models.upstreams import UPSTREAMS
from stanchion.models.wire import Request

APIS = ["openai.chat", "openai.responses", "anthropic.messages"]
ASKED = Request(interaction=Interaction(messages=(user("Hi"),), model="m"), include_usage=True)


def written(api: str, reply: Reply, chunk_chars: int) -> bytes:
    encoder = SURFACES[api].stream_encoder(asked=ASKED, response_id="r1", created=7)
    frames = [f for event in events_of(reply, chunk_chars=chunk_chars) for f in encoder.feed(event)]
    return b"".join([*frames, *encoder.finish()])


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def read(api: str, pieces: list[bytes]) -> list[StreamEvent]:
    reader = UPSTREAMS[api].reader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events + reader.end()


def read_slowly(api: str, data: bytes) -> list[StreamEvent]:
    """The same without a memory: every event is parsed."""
    decoder = UPSTREAMS[api].reader()._decoder  # type: ignore[attr-defined]
    events: list[StreamEvent] = []
    for one in SseParser().feed(data):
        events += decoder.finish() if one.data == "[DONE]" else decoder.feed(json.loads(one.data))
    return events


SENDABLE = replies(openai=True).filter(lambda r: r.finish_reason.value not in ("error", "unknown", "paused"))


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@given(reply=SENDABLE, size=st.integers(1, 4), cuts=st.lists(st.integers(0, 9999), max_size=12))
@settings(deadline=None, max_examples=40)
def test_any_chunking_says_what_the_long_way_says(
    api: str, newline: bytes, reply: Reply, size: int, cuts: list[int]
) -> None:
    if api == "anthropic.messages" and any(call.arguments is None for call in reply.message.tool_calls):
        return
    data = written(api, reply, size)
    expected = read_slowly(api, data)
    assert isinstance(expected[-1], End)
    assert read(api, cut(data.replace(b"\n", newline), cuts)) == expected


@pytest.mark.parametrize("api", APIS)
def test_one_byte_at_a_time_behind_a_byte_order_mark(api: str) -> None:
    reply = Reply(message=assistant('Grüße 👋 "quoted" \\ and\nlines'), model="m")
    data = written(api, reply, 2)
    pieces = [bytes([byte]) for byte in b"\xef\xbb\xbf" + data]
    assert read(api, pieces) == read_slowly(api, data)


def chunk(**choice: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "finish_reason": None, **choice}]}


def sse(*values: Any) -> bytes:
    return b"".join(
        b"data: " + (v if isinstance(v, bytes) else json.dumps(v).encode()) + b"\n\n" for v in values
    )


def test_texts_with_quotes_escapes_and_colons_are_read_as_they_are() -> None:
    words = ["a", 'say "b"', "c\\", '","x":"', "é\n👋", "d: e", '"content":"x', "\\u0041"]
    data = sse(*(chunk(delta={"content": word}) for word in words), chunk(delta={}, finish_reason="stop"))
    events = read("openai.chat", [data, sse(b"[DONE]")])
    assert [event.text for event in events if isinstance(event, TextDelta)] == words


def test_a_frame_that_only_looks_like_the_one_before_is_read_whole() -> None:
    usual = b'{"model":"m","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}'
    trick = usual % b'a"},"finish_reason":"stop"},{"index":0,"delta":{"content":"b'
    events = read("openai.chat", [sse(usual % b"x", trick, b"[DONE]")])
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["x", "a", "b"]
    with pytest.raises(UnavailableError, match="says a key twice"):
        read("openai.chat", [sse(usual % b"x", usual % b'a","content":"b')])


DECODABLE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@given(DECODABLE, st.sampled_from([None, 2]), st.sampled_from([(",", ":"), (" , ", " : ")]))
@settings(deadline=None)
def test_strict_json_reads_what_json_reads(value: Any, indent: int | None, marks: tuple[str, str]) -> None:
    text = json.dumps(value, indent=indent, separators=marks, ensure_ascii=False)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return
    assert decode_strict(data, what="x") == value


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), DECODABLE, min_size=1, max_size=4))
@settings(deadline=None)
def test_a_key_said_twice_is_an_error_wherever_it_stands(value: dict[str, Any]) -> None:
    key = json.dumps(next(iter(value)))
    try:
        inner = json.dumps(value, ensure_ascii=False)[:-1].encode()
        twice = b'[{"a": [' + inner + f" , {key} : 1".encode() + b"}]}]"
    except UnicodeEncodeError:
        return
    with pytest.raises(UnavailableError, match="says a key twice"):
        decode_strict(twice, what="x")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"data: {\n\n", "not JSON"),
        (b"data: \xff\xfe\n\n", "not JSON"),
        ('data: {"a": "\u00e9"}\n\n'.encode("latin-1"), "not JSON"),
        ('data: {"choices": []}\n\n'.encode("utf-16"), "no event stream"),
        (b"data: " + b"[" * 5000 + b"\n\n", "not JSON"),
        (b'data: {"choices": [], "choices": []}\n\n', "says a key twice"),
        (b'data: {"choices": [{"delta": {"content": 3}}]}\n\n', "shape"),
        (b'data: {"choices": {"0": 1}}\n\n', "shape"),
        (b'data: {"error": {"message": "secret", "code": "overloaded"}}\n\n', "overloaded"),
        (b'event: error\ndata: {"object": "x", "code": "bad_thing"}\n\n', "bad_thing"),
        (b"<html>login</html>", "no event stream"),
        (b"", "broke off"),
        (b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n', "broke off after 1"),
        (b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\ndata: {"choi', "broke off after 1"),
        (b"data: 3\n\n", "shape"),
    ],
)
def test_what_is_wrong_is_a_clear_error(data: bytes, why: str) -> None:
    for pieces in ([data], [bytes([byte]) for byte in data]):
        with pytest.raises(UnavailableError, match=why) as caught:
            read("openai.chat", pieces)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("tail", [b"", b"data: [DONE]", b"data: [DONE]\n"])
def test_a_missing_end_mark_is_forgiven_after_a_finish_reason(tail: bytes) -> None:
    data = sse(chunk(delta={"content": "Hi"}), chunk(delta={}, finish_reason="stop")) + tail
    assert isinstance(read("openai.chat", [data])[-1], End)


def test_nothing_after_the_end_is_read() -> None:
    data = sse(chunk(delta={"content": "a"}, finish_reason="stop"), b"[DONE]", chunk(delta={"content": "b"}))
    texts = [event.text for event in read("openai.chat", [data, data]) if isinstance(event, TextDelta)]
    assert texts == ["a"]


@pytest.mark.parametrize("piece", [b"x" * 64, b"data: x\n", b"data: x\r\n"])
def test_frames_without_an_end_are_cut_off(piece: bytes) -> None:
    reader = SseReader(ChunkDecoder(), limits=SseLimits(max_line_bytes=1000, max_event_bytes=4000))
    with pytest.raises(UnavailableError, match="longer than"):
        deque((reader.feed(piece) for _ in range(100_000)), maxlen=0)


def test_a_line_beyond_its_limit_is_refused() -> None:
    reader = SseReader(ChunkDecoder(), limits=SseLimits(max_line_bytes=100, max_event_bytes=4000))
    with pytest.raises(UnavailableError, match="line longer than 100"):
        reader.feed(sse(chunk(delta={"content": "x" * 200})))


def test_many_small_pieces_of_a_huge_frame_take_linear_time() -> None:
    import time

    def cost(size: int) -> float:
        reader = SseReader(ChunkDecoder())
        began = time.process_time()
        for _ in range(size):
            reader.feed(b"x" * 16)
        return time.process_time() - began

    small = min(cost(10_000) for _ in range(3))
    assert min(cost(80_000) for _ in range(2)) < 30 * small


FRAGMENTS = st.sampled_from([
    b"data: ", b"data:", b"event: error\n", b"\n", b"\n\n", b"\r\n", b"\r", b"[DONE]", b"{", b"}", b'"', b":",
    b'{"choices":[{"delta":{"content":"x"}}]}', b'{"type":"message_stop"}', b"\xff", b"null", b"3", b"\\",
    b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"', b'"}}', b": c\n",
])  # fmt: skip


@pytest.mark.parametrize("api", APIS)
@given(st.lists(FRAGMENTS | st.binary(max_size=4), max_size=25), st.lists(st.integers(0, 9999), max_size=6))
@settings(deadline=None, max_examples=150)
def test_no_bytes_crash_a_reader(api: str, parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    results = []
    for pieces in ([data], cut(data, cuts)):
        try:
            results.append(read(api, pieces))
        except UnavailableError:
            results.append([])
    assert results[0] == results[1]


@pytest.mark.parametrize("api", APIS)
def test_readers_give_replies(api: str) -> None:
    reply = Reply(message=user("x"), model="m")
    assembler = Assembler()
    for event in read(api, [written(api, reply, 1)]):
        assembler.feed(event)
    assert assembler.reply().message.text == "x"
