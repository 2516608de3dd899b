"""Server-sent events: the standard's examples, every chunking, limits."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import UnavailableError
from stanchion.models.sse import ServerSentEvent, SseLimits, SseParser, encode_sse


def parsed(data: bytes, *cuts: int) -> list[ServerSentEvent]:
    parser = SseParser()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [event for a, b in pairwise(edges) for event in parser.feed(data[a:b])]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        # HTML Living Standard, 9.2.6: the examples of the section
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [ServerSentEvent(data="YHOO\n+2\n10")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [
                ServerSentEvent(data="first event", id="1"),
                ServerSentEvent(data="second event"),
                ServerSentEvent(data=" third event"),
            ],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [ServerSentEvent(data=""), ServerSentEvent(data="\n")]),
        (b"data:test\n\ndata: test\n\n", [ServerSentEvent(data="test"), ServerSentEvent(data="test")]),
        (
            b"event: add\ndata: 1\n\nevent: remove\ndata: 2\n\n",
            [ServerSentEvent(data="1", event="add"), ServerSentEvent(data="2", event="remove")],
        ),
        (b"event: lost\n\ndata: 1\n\n", [ServerSentEvent(data="1")]),
        (b"\xef\xbb\xbfdata: 1\r\n\r\nretry: 12\rdata: 2\r\r", [
            ServerSentEvent(data="1"), ServerSentEvent(data="2", retry_ms=12)]),
        (b"data: a\ndata: never ended", []),
        (b"retry: soon\nid: a\0b\nother: x\ndata: 1\n\n", [ServerSentEvent(data="1")]),
    ],
)  # fmt: skip
def test_examples_of_the_standard(stream: bytes, expected: list[ServerSentEvent]) -> None:
    assert parsed(stream) == expected
    assert parsed(stream, *range(len(stream))) == expected


LINES = st.sampled_from(["data: ", "data:", "event: ", "id: ", ": ", "retry: ", ""])
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=6)
STREAMS = st.lists(
    st.tuples(LINES, WORDS, st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\r\n\r\n", "\r\r"])), max_size=12
).map(lambda lines: "".join(a + b + c for a, b, c in lines).encode())


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=20))
@settings(deadline=None, max_examples=300)
def test_every_chunking_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    whole = parsed(stream)
    assert parsed(stream, *cuts) == whole
    assert parsed(stream, *range(len(stream))) == whole


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.sampled_from(["", "ping"]))
@settings(deadline=None, max_examples=150)
def test_what_is_encoded_is_parsed_again(data: str, name: str) -> None:
    [event] = parsed(encode_sse(data, event=name))
    assert event.event == name
    assert event.data == data.replace("\r\n", "\n").replace("\r", "\n")


def test_a_character_cut_in_its_bytes_comes_whole() -> None:
    stream = "data: caf\u00e9 \U0001f600 \u4f60\u597d\n\n".encode()
    for place in range(len(stream)):
        parser = SseParser()
        events = [*parser.feed(stream[:place]), *parser.feed(stream[place:])]
        assert [event.data for event in events] == ["caf\u00e9 \U0001f600 \u4f60\u597d"]


def test_limits_hold_for_lines_and_events() -> None:
    limits = SseLimits(max_line_bytes=100, max_event_bytes=150)
    with pytest.raises(UnavailableError, match="line longer than 100 bytes"):
        SseParser(limits).feed(b"data: " + b"x" * 100)
    parser = SseParser(limits)
    parser.feed(b"data: " + b"x" * 80 + b"\n")
    with pytest.raises(UnavailableError, match="event longer than 150 bytes"):
        parser.feed(b"data: " + b"x" * 80 + b"\n")


def test_bytes_that_are_not_utf8_are_an_error() -> None:
    with pytest.raises(UnavailableError, match="not UTF-8"):
        SseParser().feed(b"data: \xff\n")


def test_clean_says_whether_the_stream_could_end_here() -> None:
    parser = SseParser()
    assert parser.is_clean
    parser.feed(b"data: 1\n")
    assert not parser.is_clean
    parser.feed(b"\n")
    assert parser.is_clean
    parser.feed(b"da")
    assert not parser.is_clean
