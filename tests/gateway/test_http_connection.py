"""Connections of our server: what is written together leaves together, and a client that goes is told of."""

import asyncio
import socket
import time

import pytest
from gateway_server import serve

from stanchion.gateway.http_connection import WHEN_GONE, WHOLE, JoinedWrites, head_of
from stanchion.gateway.http_io import Answer
from stanchion.gateway.http_protocol import bounded_protocol

HEAD = b"POST /slow HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n"


class Told:
    """An application that waits until its client goes, or answers at once."""

    def __init__(self):
        self.gone = []
        self.asked = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        self.asked += 1
        while (await receive()).get("more_body"):
            pass
        if scope["path"] == "/slow":
            ended = asyncio.Event()

            def gone():
                self.gone.append(time.monotonic())
                ended.set()

            scope[WHEN_GONE](gone)
            await ended.wait()
            return
        scope[WHEN_GONE](lambda: self.gone.append("late"))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"do", "more_body": True})
        await send({"type": "http.response.body", "body": b"ne"})
        scope[WHEN_GONE](None)


@pytest.fixture
def told():
    app = Told()
    with serve(app, http=bounded_protocol()) as served:
        app.port = int(served.url.rpartition(":")[2])
        yield app


def await_gone(told):
    end = time.monotonic() + 5
    while not told.gone and time.monotonic() < end:
        time.sleep(0.005)
    return told.gone


@pytest.mark.parametrize("size", [2, 500_000])
@pytest.mark.parametrize("is_reset", [False, True])
def test_a_client_that_goes_is_told_of_whatever_the_size_of_its_body(told, size, is_reset):
    with socket.create_connection(("127.0.0.1", told.port)) as client:
        client.sendall(HEAD % size + b"x" * size)
        end = time.monotonic() + 5
        while not told.asked and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(0.05)
        assert not told.gone
        if is_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    assert len(await_gone(told)) == 1


def test_nobody_is_told_of_an_end_behind_the_answer(told):
    with socket.create_connection(("127.0.0.1", told.port)) as client:
        for _ in range(3):
            client.sendall((HEAD % 1).replace(b"/slow", b"/quick") + b"x")
            got = b""
            while not got.endswith(b"done"):
                got += client.recv(4096)
            assert got.startswith(b"HTTP/1.1 200")
    time.sleep(0.1)
    assert not told.gone


def test_requests_in_one_packet_are_answered_in_order(told):
    with socket.create_connection(("127.0.0.1", told.port)) as client:
        client.sendall(((HEAD % 1).replace(b"/slow", b"/quick") + b"x") * 5)
        client.settimeout(5)
        got = b""
        while got.count(b"done") < 5:
            got += client.recv(4096)
    assert got.count(b"HTTP/1.1 200") == 5


class Kept:
    """A transport that keeps what is written to it."""

    def __init__(self):
        self.written = []
        self.is_closed = False

    def write(self, data):
        self.written.append(data)

    def close(self):
        self.is_closed = True

    def is_closing(self):
        return self.is_closed

    def get_extra_info(self, name):
        return name


def test_what_is_written_in_one_turn_is_written_once_and_in_order():
    async def run():
        kept = Kept()
        joined = JoinedWrites(kept)
        for piece in (b"head", b" and ", b"body"):
            joined.write(piece)
        assert kept.written == []
        await asyncio.sleep(0)
        joined.write(b"more")
        joined.close()
        assert kept.is_closed
        assert joined.is_closing()
        assert joined.get_extra_info("peername") == "peername"
        await asyncio.sleep(0)
        return kept.written

    assert asyncio.run(run()) == [b"head and body", b"more"]


class Whole:
    """An application that answers as its path says: at once where the server can, or as ASGI says."""

    headers = ((b"content-type", b"text/plain"), (b"x-stanchion-reference", b"req_1\tx"))

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        way, _, status = scope["path"][1:].partition("/")
        headers = list(self.headers)
        if way == "odd":
            headers.append((b"connection", b"close"))
        elif way == "broken":
            headers.append((b"x-stanchion-ticket", b"1\r\nset-cookie: a=b"))
        at_once = None if way == "slow" else scope[WHOLE]
        await Answer(send, at_once=at_once).whole(int(status), headers, b"said")


@pytest.fixture(scope="module")
def whole():
    with serve(Whole(), http=bounded_protocol(), timeout_keep_alive=1) as served:
        yield int(served.url.rpartition(":")[2])


def asked(client, way, status=200):
    client.sendall(b"POST /%s/%d HTTP/1.1\r\nhost: here\r\ncontent-length: 0\r\n\r\n" % (way, status))
    client.settimeout(5)
    got = b""
    while not got.endswith((b"said", b"Error")) and (piece := client.recv(4096)):
        got += piece
    lines = got.split(b"\r\n")
    return [line for line in lines if not line.startswith(b"date:")]


@pytest.mark.parametrize("status", [200, 403, 503])
def test_an_answer_at_once_is_the_one_that_uvicorn_would_send(whole, status):
    with socket.create_connection(("127.0.0.1", whole)) as client:
        slow = asked(client, b"slow", status)
        assert slow[0].startswith(b"HTTP/1.1 %d " % status)
        assert [asked(client, b"quick", status) for _ in range(3)] == [slow] * 3


def test_an_answer_at_once_to_many_requests_in_one_packet_comes_in_order(whole):
    with socket.create_connection(("127.0.0.1", whole)) as client:
        client.settimeout(5)
        paths = (b"quick/200", b"slow/403", b"quick/503", b"quick/404")
        client.sendall(
            b"".join(b"POST /%s HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n" % p for p in paths)
        )
        got = b""
        while got.count(b"said") < 4:
            got += client.recv(4096)
    assert [part.split(b" ")[1] for part in got.split(b"said")[:4]] == [path[-3:] for path in paths]


def test_a_header_that_would_be_two_is_not_sent(whole):
    with socket.create_connection(("127.0.0.1", whole)) as client:
        got = asked(client, b"broken")
    assert got == [b""]  # nothing of it left


def test_an_answer_that_closes_its_connection_goes_the_long_way(whole):
    with socket.create_connection(("127.0.0.1", whole)) as client:
        assert b"connection: close" in asked(client, b"odd")
        assert client.recv(10) == b""


def test_an_idle_connection_is_closed_after_its_time_and_not_while_it_is_used(whole):
    with socket.create_connection(("127.0.0.1", whole)) as client:
        began = time.monotonic()
        while time.monotonic() < began + 1.6:
            assert asked(client, b"quick")[0].startswith(b"HTTP/1.1 200")
            time.sleep(0.2)
        last = time.monotonic()
        assert client.recv(10) == b""
        assert time.monotonic() - last > 0.5


@pytest.mark.parametrize(
    "header",
    [
        (b"content-length", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"Connection", b"close"),
        (b"", b"a"),
        (b"a b", b"c"),
        (b"a:", b"c"),
        (b"a", b"b\0"),
        (b"a", b"b\n"),
        (b"a", b"b\r\nc: d"),
    ],
)
def test_no_head_is_made_of_what_changes_an_answer_or_breaks_a_line(header):
    assert head_of(200, [(b"x-a", b"b"), header], 4) is None
    assert head_of(200, [(b"x-a", b"b")], 4) == b"HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 4\r\n\r\n"
