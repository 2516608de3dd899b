"""Our server, byte by byte: requests are read alike in every cut, and what is not sound goes no further."""

from __future__ import annotations

import asyncio
import gc
import json

import pytest
from http_bytes import Talk, answers, read_all, reply
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.gateway.http_request import BODY, WHEN_GONE, WHOLE, HttpRequest

GET = b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n"
TE = b"transfer-encoding: chunked\r\n"


def post(path: bytes, body: bytes, extra: bytes = b"") -> bytes:
    head = b"POST /%b HTTP/1.1\r\nhost: h\r\n%bcontent-length: %d\r\n\r\n" % (path, extra, len(body))
    return head + body


def chunked(path: bytes, *pieces: bytes, trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"POST /%b HTTP/1.1\r\nhost: h\r\n%b\r\n%b0\r\n%b\r\n" % (path, TE, body, trailer)


async def echo(scope, receive, send):
    """Says back what it was asked, by the way that the path names."""
    way = scope["path"]
    body = scope[BODY]() if way == "/here" else None
    if body is None:
        body = await read_all(receive)
    told = json.dumps(
        [
            scope["method"],
            way,
            [[a.decode(), b.decode()] for a, b in scope["headers"]],
            body.decode("latin-1"),
        ]
    ).encode()
    if way in ("/here", "/whole") and scope[WHOLE](200, [(b"x-way", b"whole")], told):
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for at in range(0, len(told), 50):
        await send({"type": "http.response.body", "body": told[at : at + 50], "more_body": True})
    await send({"type": "http.response.body"})


_bodies = st.binary(max_size=40)
_paths = st.sampled_from([b"here", b"whole", b"pieces"])
_requests = st.one_of(
    st.builds(lambda path, body: ("POST", path, body, post(path, body)), _paths, _bodies),
    st.builds(
        lambda path, pieces: ("POST", path, b"".join(pieces), chunked(path, *pieces, trailer=b"x-t: 1\r\n")),
        _paths,
        st.lists(st.binary(min_size=1, max_size=20), max_size=4),
    ),
    st.builds(lambda path: ("GET", path, b"", b"\r\nGET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % path), _paths),
)


@settings(deadline=None)
@given(st.lists(_requests, min_size=1, max_size=4), st.data())
def test_requests_are_read_alike_in_every_cut_and_answered_in_their_order(requests, data):
    wire = b"".join(request[3] for request in requests)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=12)))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]

    async def run():
        talk = Talk(echo)
        said = await talk.say(*pieces)
        assert not talk.transport.is_closed
        assert not talk.transport.is_paused
        assert talk.state.tasks == set()
        assert talk.state.total_requests == len(requests)
        return said

    found = answers(asyncio.run(run()))
    assert [(m, p, b) for m, p, _, b in found] == [
        (method, "/" + path.decode(), body.decode("latin-1")) for method, path, body, _ in requests
    ]
    assert all("x-t" not in dict(headers) for _, _, headers, _ in found), "a trailer is no header"


def test_every_byte_by_itself_is_the_same_request():
    async def run(*pieces):
        return await Talk(echo).say(*pieces)

    for wire in (post(b"here", b"body"), chunked(b"pieces", b"bo", b"dy", trailer=b"x-t: 1\r\n")):
        whole = asyncio.run(run(wire))
        assert asyncio.run(run(*[bytes([byte]) for byte in wire])) == whole
        assert answers(whole)[0][3] == "body"


# --- what is not sound --------------------------------------------------------------------------------------

UNSOUND = {
    "no http": b"\x16\x03\x01\x02\x00\x01\x00",
    "a length twice": b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "length and coding": b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n" + TE + b"\r\n0\r\n\r\n",
    "a coding that is none": b"POST /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked, gzip\r\n\r\n",
    "a space before the colon": b"POST /a HTTP/1.1\r\nhost : h\r\n\r\n",
    "a signed size": b"POST /a HTTP/1.1\r\nhost: h\r\n" + TE + b"\r\n+1\r\na\r\n0\r\n\r\n",
    "a piece too long": b"POST /a HTTP/1.1\r\nhost: h\r\n" + TE + b"\r\n1\r\nab\r\n0\r\n\r\n",
    "no path": b"GET http://h HTTP/1.1\r\nhost: h\r\n\r\n",
    "a tunnel": b"CONNECT h:22 HTTP/1.1\r\nhost: h\r\n\r\n",
    "a path beyond ascii": b"GET /\xff HTTP/1.1\r\nhost: h\r\n\r\n",
    "an upgrade with a body": post(b"a", GET, b"connection: upgrade\r\nupgrade: h2c\r\n"),
}


@pytest.mark.parametrize("name", UNSOUND)
@pytest.mark.parametrize("is_cut", [False, True])
def test_what_is_not_sound_is_refused_once_and_nothing_behind_it_is_read(name, is_cut):
    async def run():
        asked = []

        async def app(scope, receive, send):
            asked.append(scope["path"])
            await read_all(receive)
            asked.append("whole")

        talk = Talk(app)
        wire = UNSOUND[name]
        await talk.say(*([bytes([byte]) for byte in wire] if is_cut else [wire]), GET)
        return talk, asked

    talk, asked = asyncio.run(run())
    assert asked in ([], ["/a"]), "the body of what was begun is not whole"
    assert talk.said.count(b"HTTP/1.1 ") == 1
    assert talk.said.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nconnection: close\r\n" in talk.said
    assert talk.transport.is_closed
    assert talk.state.connections == set() == talk.state.tasks


@pytest.mark.parametrize("behind", [b"\x16\x03\x01", UNSOUND["length and coding"], UNSOUND["a signed size"]])
@pytest.mark.parametrize("in_one", [False, True])
def test_what_came_before_is_answered_before_the_refusal(behind, in_one):
    async def run():
        gate = asyncio.Event()

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await gate.wait()
            await send({"type": "http.response.body", "body": b"two"})

        talk = Talk(app)
        said = await talk.say(*([GET + behind] if in_one else [GET, behind]))
        assert said.endswith(b"\r\n3\r\none\r\n"), "nothing comes between the pieces of an answer"
        gate.set()
        await talk.settle()
        return talk

    talk = asyncio.run(run())
    first, _, refused = talk.said.partition(b"3\r\ntwo\r\n0\r\n\r\n")
    assert first.count(b"HTTP/1.1 ") == 1
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert talk.transport.is_closed


def test_a_body_that_breaks_ends_its_request_as_one_whose_client_went():
    async def run():
        told = []

        async def app(scope, receive, send):
            told.append((await receive())["type"])
            scope[WHEN_GONE](lambda: told.append("gone"))
            told.append((await receive())["type"])

        talk = Talk(app)
        begun = b"POST /a HTTP/1.1\r\nhost: h\r\n" + TE + b"\r\n1\r\na\r\n"
        await talk.say(begun, b"zz\r\n")
        return told, talk

    told, talk = asyncio.run(run())
    assert told == ["http.request", "gone", "http.disconnect"]
    assert talk.said.startswith(b"HTTP/1.1 400 ")
    assert talk.state.tasks == set()


# --- the last request of a connection -----------------------------------------------------------------------

LAST = {
    "close": b"GET /here HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
    "the old version": b"GET /here HTTP/1.0\r\n\r\n",
    "the old version, kept": b"GET /here HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    "an upgrade": b"GET /here HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
}


@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("behind", [GET, b"\x16\x03\x01", b"\r\n\r\n"])
@pytest.mark.parametrize("in_one", [False, True])
def test_behind_the_last_request_nothing_is_read(name, behind, in_one):
    async def run():
        talk = Talk(echo)
        wire = LAST[name]
        if in_one:
            await talk.say(wire + behind)
        else:
            talk.connection.data_received(wire)
            await talk.say(behind)
        return talk

    talk = asyncio.run(run())
    head, _, _ = talk.said.partition(b"\r\n\r\n")
    assert talk.said.count(b"HTTP/1.1 ") == 1
    assert head.startswith(b"HTTP/1.1 200 ")
    assert head.count(b"connection: close") == 1
    assert talk.transport.is_closed
    assert talk.state.total_requests == 1


def test_a_whole_answer_to_head_has_no_body():
    async def run():
        return await Talk(echo).say(b"HEAD /here HTTP/1.1\r\nhost: h\r\n\r\n", post(b"here", b"x"))

    first, _, second = asyncio.run(run()).partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert answers(second)[0][0] == "POST"


def test_a_whole_answer_to_who_still_waits_to_send_is_the_last():
    async def app(scope, receive, send):
        if not scope[WHOLE](413, [], b"no"):
            await reply(send, b"no", status=413, headers=[(b"content-length", b"2")])

    async def run():
        talk = Talk(app)
        return await talk.say(post(b"a", b"", b"expect: 100-continue\r\n").replace(b": 0", b": 5"), GET), talk

    said, talk = asyncio.run(run())
    assert (
        said == b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"
    )
    assert talk.transport.is_closed


def test_an_answer_that_closes_is_the_last():
    async def app(scope, receive, send):
        await reply(send, b"a", headers=[(b"connection", b"close"), (b"content-length", b"1")])

    async def run():
        talk = Talk(app)
        await talk.say(GET * 3)
        return talk

    talk = asyncio.run(run())
    assert talk.said.count(b"HTTP/1.1 ") == 1
    assert talk.transport.is_closed
    assert talk.state.tasks == set()


# --- limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_head_without_end_is_cut_off_whatever_is_answered_meanwhile(is_busy):
    async def run():
        gate = asyncio.Event()

        async def app(scope, receive, send):
            await gate.wait()
            await reply(send, b"", status=204)

        talk = Talk(app, max_bytes=4096)
        if is_busy:
            await talk.say(GET)
        await talk.say(b"GET /b HTTP/1.1\r\nx: ")
        for _ in range(6):
            await talk.say(b"a" * 1000)
        await talk.say(b"\r\n\r\n" + GET)
        gate.set()
        await talk.settle()
        return talk

    talk = asyncio.run(run())
    first, _, refused = talk.said.rpartition(b"HTTP/1.1 ")
    assert refused.startswith(b"431 ")
    assert first.count(b"HTTP/1.1 204 ") == is_busy
    assert talk.transport.is_closed


@pytest.mark.parametrize(
    "more",
    [b"1;" + b"a" * 900 + b"\r\na\r\n", b"0\r\n" + b"x: " + b"a" * 900],
    ids=["extensions", "a trailer"],
)
def test_framing_without_end_is_cut_off(more):
    async def run():
        async def app(scope, receive, send):
            await read_all(receive)

        talk = Talk(app, max_bytes=4096)
        await talk.say(b"POST /a HTTP/1.1\r\nhost: h\r\n" + TE + b"\r\n")
        await talk.say(more)
        fed = 0
        more_of_it = more if more.startswith(b"1") else b"a" * 900
        while not talk.transport.is_closed:
            fed += 900
            assert fed < 20_000
            await talk.say(more_of_it)
        return talk

    assert asyncio.run(run()).said.startswith(b"HTTP/1.1 431 ")


def test_small_pieces_are_no_framing_without_end():
    async def run():
        talk = Talk(echo, max_bytes=4096)
        await talk.say(b"POST /here HTTP/1.1\r\nhost: h\r\n" + TE + b"\r\n")
        for _ in range(50):
            await talk.say(b"1\r\na\r\n" * 500)
        return await talk.say(b"0\r\n\r\n")

    assert answers(asyncio.run(run()))[0][3] == "a" * 25_000


def test_what_is_left_of_a_body_behind_its_answer_is_dropped_up_to_a_limit():
    async def app(scope, receive, send):
        await reply(send, b"", status=204)

    async def run(size):
        talk = Talk(app, max_bytes=4096, timeout_s=0.05)
        await talk.say(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 100):
            await talk.say(b"a" * 100)
        await talk.say(GET)
        return talk

    talk = asyncio.run(run(3000))
    assert talk.said.count(b"HTTP/1.1 204 ") == 2
    talk = asyncio.run(run(30_000))
    assert talk.said.count(b"HTTP/1.1 ") == 1, "there is no second answer to one request"
    assert talk.transport.is_closed


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET /a HTT"],
        [GET + b"GET"],
        [GET, b"GET"],
        [b"\r\n"],
        [GET, b"\r\n"],
        [b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nabc"],
    ],
    ids=["a head", "a head behind", "a head later", "a line", "a line later", "the rest of a body"],
)
def test_who_does_not_end_what_it_began_is_let_go(pieces):
    async def app(scope, receive, send):
        await reply(send, b"", status=204)

    async def run():
        talk = Talk(app, timeout_s=0.05)
        await talk.say(*pieces)
        assert not talk.transport.is_closed
        await asyncio.sleep(0.1)
        return talk

    talk = asyncio.run(run())
    assert talk.transport.is_closed
    assert talk.said.count(b"HTTP/1.1 408 ") == pieces[-1].endswith((b"HTT", b"GET"))


def test_who_sends_all_of_it_is_waited_for():
    async def app(scope, receive, send):
        await reply(send, b"", status=204)

    async def run(*pieces):
        talk = Talk(app, timeout_s=0.05)
        await talk.say(*pieces)
        await asyncio.sleep(0.1)
        assert not talk.transport.is_closed
        await talk.say(GET)
        return talk.said.count(b"HTTP/1.1 204 ")

    assert asyncio.run(run(GET)) == 2
    late = b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nabc"
    assert asyncio.run(run(late, b"def", b"ghi")) == 2


@pytest.mark.parametrize(
    "pieces",
    [[GET], [b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc", b"def"]],
    ids=["at once", "the body behind the answer"],
)
def test_who_asks_no_more_is_let_go_without_a_word(pieces):
    async def app(scope, receive, send):
        await reply(send, b"", status=204)

    async def run():
        talk = Talk(app, settings={"timeout_keep_alive": 0.05})
        await talk.say(*pieces)
        assert not talk.transport.is_closed
        await asyncio.sleep(0.1)
        return talk

    talk = asyncio.run(run())
    assert talk.transport.is_closed
    assert talk.said.count(b"HTTP/1.1 ") == 1


def test_a_large_body_waits_until_it_is_wanted():
    async def run():
        gate = asyncio.Event()
        sizes = []

        async def app(scope, receive, send):
            await gate.wait()
            while (message := await receive())["more_body"]:
                sizes.append(len(message["body"]))
            sizes.append(len(message["body"]))
            await reply(send, b"", status=204)

        talk = Talk(app)
        piece = b"a" * 30_000
        await talk.say(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 90000\r\n\r\n", piece, piece)
        assert not talk.transport.is_paused
        await talk.say(piece[:-1])
        assert talk.transport.is_paused
        gate.set()
        await talk.settle()
        assert not talk.transport.is_paused
        await talk.say(b"a")
        return talk, sizes

    talk, sizes = asyncio.run(run())
    assert sizes == [89_999, 1]
    assert talk.said.startswith(b"HTTP/1.1 204 ")


def test_a_client_that_goes_is_heard_of_behind_a_large_body_too():
    async def run():
        gone = []

        async def app(scope, receive, send):
            assert len(scope[BODY]()) == 100_000
            ended = asyncio.Event()
            scope[WHEN_GONE](ended.set)
            await ended.wait()
            gone.append(True)

        talk = Talk(app)
        talk.connection.data_received(post(b"a", b"x" * 100_000))
        assert talk.transport.is_paused
        await talk.settle()
        assert not talk.transport.is_paused, "else nothing tells of the end"
        await talk.leave()
        return gone

    assert asyncio.run(run()) == [True]


# --- what is left -------------------------------------------------------------------------------------------


def test_requests_leave_nothing_for_the_collector():
    async def run():
        talk = Talk(echo)
        await talk.say(post(b"here", b"x"), chunked(b"pieces", b"x"))
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await talk.say(post(b"here", b"x"), chunked(b"pieces", b"x"))
            return sum(isinstance(one, HttpRequest) for one in gc.get_objects())
        finally:
            gc.enable()

    assert asyncio.run(run()) <= 1
