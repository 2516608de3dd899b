"""Heads of answers: what is sent, and what never is."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.gateway.http_head import Heads

DATE = (b"date", b"Mon, 23 Nov 2026 18:00:00 GMT")
BREAKING = [
    (b"", b"a"),
    (b"a b", b"c"),
    (b"a:", b"c"),
    (b"a\r\nb", b"c"),
    (b"a", b"b\0"),
    (b"a", b"b\n"),
    (b"a", b"b\r\nc: d"),
    (b"a", b"b\x7f"),
]


@pytest.fixture
def heads():
    return Heads(SimpleNamespace(default_headers=[]))


def test_a_whole_head_is_made_as_it_is_said(heads):
    made = heads.whole(200, [(b"x-a", b"b\tc"), (b"x_b", b"")], 4)
    assert made == b"HTTP/1.1 200 OK\r\nx-a: b\tc\r\nx_b: \r\ncontent-length: 4\r\n\r\n"
    assert heads.whole(599, [], 0) == b"HTTP/1.1 599 \r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "header",
    [
        *BREAKING,
        (b"content-length", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
        (b"Connection", b"close"),
    ],
)
def test_no_whole_head_is_made_of_what_changes_an_answer_or_breaks_a_line(heads, header):
    assert heads.whole(200, [(b"x-a", b"b"), header], 4) is None


@pytest.mark.parametrize("header", BREAKING)
def test_no_head_begins_with_what_breaks_a_line(heads, header):
    with pytest.raises(RuntimeError, match="Invalid HTTP header"):
        heads.begin(200, [(b"x-a", b"b"), header], keeps=True, has_body=True)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"4"), (b"content-length", b"4")],
        [(b"content-length", b"4"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"chunked"), (b"Content-Length", b"4")],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"content-length", b"-1")],
        [(b"content-length", b"4 ")],
        [(b"content-length", b"")],
    ],
)
def test_no_answer_says_its_length_in_two_ways_or_in_none(heads, headers):
    with pytest.raises(RuntimeError, match="the answer"):
        heads.begin(200, headers, keeps=True, has_body=True)


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, 1000])
def test_no_answer_has_a_status_that_ends_nothing(heads, status):
    with pytest.raises(RuntimeError, match="no status"):
        heads.begin(status, [], keeps=True, has_body=True)


@pytest.mark.parametrize(
    ("status", "headers", "keeps", "has_body", "said", "framing"),
    [
        (200, [], True, True, b"transfer-encoding: chunked\r\n", (True, None, False)),
        (200, [(b"Content-Length", b"7")], True, True, b"content-length: 7\r\n", (False, 7, False)),
        (200, [(b"Transfer-Encoding", b"Chunked")], True, True, b"transfer-encoding: Chunked\r\n",
         (True, None, False)),
        (200, [], True, False, b"", (False, None, False)),
        (204, [], True, True, b"", (False, None, False)),
        (304, [], True, True, b"", (False, None, False)),
        (204, [], False, True, b"connection: close\r\n", (False, None, True)),
        (204, [(b"connection", b"x, Close")], False, True, b"connection: x, Close\r\n", (False, None, True)),
        (204, [(b"connection", b"close")], True, True, b"connection: close\r\n", (False, None, True)),
    ],
)  # fmt: skip
def test_how_a_body_is_sent_follows_from_its_head(heads, status, headers, keeps, has_body, said, framing):
    head, made = heads.begin(status, headers, keeps=keeps, has_body=has_body)
    assert head.partition(b"\r\n")[2] == said + b"\r\n"
    assert (made.is_chunked, made.left, made.closes) == framing


def test_default_headers_are_those_of_the_second(heads):
    state = SimpleNamespace(default_headers=[DATE, (b"X-Ours", b"a")])
    dated = Heads(state)
    lines = b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 18:00:00 GMT\r\nx-ours: a\r\n"
    for _ in range(2):
        assert dated.whole(200, [], 1) == lines + b"content-length: 1\r\n\r\n"
        assert dated.begin(200, [], keeps=True, has_body=False)[0] == lines + b"\r\n"
    state.default_headers = [(b"date", b"later")]
    assert dated.whole(200, [], 1) == b"HTTP/1.1 200 OK\r\ndate: later\r\ncontent-length: 1\r\n\r\n"


_names = st.text("abz-_09", min_size=1, max_size=6) | st.text("aZ: \r\n\0", max_size=3)
_values = st.text("azAZ09 :;,\t\xff", max_size=12) | st.text("a\r\n\0\x7f", max_size=3)
_headers = st.tuples(_names.map(str.encode), _values.map(lambda text: text.encode("latin-1")))


@given(st.lists(_headers, max_size=4), st.sampled_from([200, 404, 503]))
def test_a_head_reads_as_its_headers_or_is_none(headers, status):
    heads = Heads(SimpleNamespace(default_headers=[DATE]))
    made = heads.whole(status, headers, 3)
    if made is None:
        return
    head, end, rest = made.partition(b"\r\n\r\n")
    first, date, *lines, length = head.split(b"\r\n")
    assert (end, rest, length) == (b"\r\n\r\n", b"", b"content-length: 3")
    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert date == b"date: " + DATE[1]
    assert [tuple(line.split(b": ", 1)) for line in lines] == headers
    begun, _ = heads.begin(status, headers, keeps=True, has_body=False)
    assert begun == made.replace(b"\r\ncontent-length: 3", b"")
