"""Connections of our server: what is written together leaves together, and a client that goes is told of."""

import asyncio
import socket
import time

import pytest
from gateway_server import serve

from stanchion.gateway.http_connection import WHEN_GONE, JoinedWrites
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
