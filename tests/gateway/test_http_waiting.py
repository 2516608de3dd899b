"""Clients that send more at once than is answered, that go meanwhile, or that never read what was said."""

import asyncio
import socket
from types import SimpleNamespace

import pytest
from http_bytes import Talk, read_all, reply

from stanchion.gateway.http_connection import IGNORED_BYTES, MOST_WAITING
from stanchion.gateway.http_protocol import bounded_protocol
from stanchion.gateway.http_request import WHEN_GONE

GET = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"


class Gated:
    """An application that answers when it may."""

    def __init__(self):
        self.gate, self.left = asyncio.Event(), asyncio.Event()
        self.asked = self.gone = 0

    async def __call__(self, scope, receive, send):
        self.asked += 1
        scope[WHEN_GONE](self._left)
        await read_all(receive)
        await self.gate.wait()
        await reply(send, b"", status=204)

    def _left(self):
        self.gone += 1
        self.left.set()


def test_requests_that_come_together_are_answered_in_turn_and_reading_goes_on():
    async def run():
        app = Gated()
        talk = Talk(app)
        await talk.say(GET, GET * 3)
        assert app.asked == len(talk.state.tasks) == 1
        assert not talk.transport.is_paused
        app.gate.set()
        await talk.settle()
        assert app.asked == 4
        assert not talk.transport.is_closed
        return talk.said

    assert asyncio.run(run()).count(b"HTTP/1.1 204 ") == 4


@pytest.mark.parametrize("pieces", [1, 7, 2000])
def test_more_than_are_kept_are_not_read_and_those_before_are_answered(pieces):
    async def run():
        app = Gated()
        talk = Talk(app)
        flood = GET * 2000
        size = len(flood) // pieces
        await talk.say(*(flood[at : at + size] for at in range(0, len(flood), size)))
        assert len(talk.connection._waiting) == MOST_WAITING
        app.gate.set()
        for _ in range(MOST_WAITING):
            await talk.settle()
        assert app.asked == MOST_WAITING + 1
        assert talk.transport.is_closed
        return talk.said

    said = asyncio.run(run())
    assert said.count(b"HTTP/1.1 204 ") == MOST_WAITING + 1
    assert said.count(b"connection: close") == 1
    assert b"connection: close" in said[said.rindex(b"HTTP/1.1 204 ") :]


def test_a_flood_stops_being_read_at_all():
    async def run():
        app = Gated()
        talk = Talk(app)
        await talk.say(GET * 100)
        for _ in range(IGNORED_BYTES // 65536 + 1):
            talk.connection.data_received(b"x" * 65536)
        assert talk.transport.is_paused
        app.gate.set()
        for _ in range(MOST_WAITING):
            await talk.settle()
        return talk

    talk = asyncio.run(run())
    assert talk.said.count(b"HTTP/1.1 204 ") == MOST_WAITING + 1
    assert talk.transport.is_closed


@pytest.mark.parametrize("together", [True, False])
def test_a_request_behind_another_does_not_hide_that_the_client_went(together):
    async def run():
        app = Gated()
        server = await asyncio.get_running_loop().create_server(
            lambda: _made(app), "127.0.0.1", 0, start_serving=True
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for part in [GET + GET] if together else [GET, GET]:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.close()
        await asyncio.wait_for(app.left.wait(), 5)
        server.close()
        app.gate.set()
        await asyncio.sleep(0.05)
        return app, reader

    app, _ = asyncio.run(run())
    assert (app.asked, app.gone) == (1, 1)


def _made(app, **limits):
    state = SimpleNamespace(connections=set(), tasks=set(), default_headers=[], total_requests=0)
    config = SimpleNamespace(
        loaded_app=app, root_path="", asgi_version="3.0", limit_concurrency=None, timeout_keep_alive=5
    )
    return bounded_protocol(**limits)(config, state, {}, asyncio.get_running_loop())


def test_an_answer_that_nobody_reads_does_not_hold_a_connection_that_closes():
    words = b"w" * 4_000_000

    async def app(scope, receive, send):
        headers = [(b"connection", b"close"), (b"content-length", b"%d" % len(words))]
        await reply(send, words, headers=headers)

    async def run():
        made = []
        server = await asyncio.get_running_loop().create_server(
            lambda: made.append(_made(app, unread_timeout_s=0.3)) or made[-1], "127.0.0.1", 0
        )
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, server.sockets[0].getsockname())
        client.send(GET)
        seen = []
        for _ in range(30):
            await asyncio.sleep(0.1)
            seen.append(bool(made and made[0]._state.connections))
        client.close()
        server.close()
        return seen

    seen = asyncio.run(run())
    assert seen[0]
    assert not seen[-1]


def test_a_little_that_nobody_reads_is_given_up_too():
    async def run():
        talk = Talk(Gated(), unread_timeout_s=0.05)
        talk.transport.close = lambda: None  # as a transport that waits for the client
        talk.transport.get_write_buffer_size = lambda: 11
        talk.connection.close()
        talk.transport.is_closing = lambda: True
        talk.connection.resume_writing()
        await asyncio.sleep(0.2)
        return talk.transport.is_aborted

    assert asyncio.run(run())


def test_a_head_that_comes_in_one_piece_has_the_same_limit():
    async def run(size):
        talk = Talk(Gated(), max_bytes=2000)
        await talk.say(b"GET / HTTP/1.1\r\nhost: here\r\nx-large: " + b"x" * size + b"\r\n\r\n")
        return talk.said

    assert asyncio.run(run(1900)) == b""  # it is asked, and waits
    assert asyncio.run(run(2000)).startswith(b"HTTP/1.1 431 ")


def test_a_body_behind_an_upgrade_is_told_why_it_is_refused():
    async def run():
        talk = Talk(Gated())
        upgrade = b"connection: upgrade\r\nupgrade: h2c\r\n"
        return await talk.say(b"POST / HTTP/1.1\r\nhost: here\r\n" + upgrade + b"content-length: 2\r\n\r\n{}")

    said = asyncio.run(run())
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"without Upgrade" in said


def test_http_1_0_gets_neither_chunks_nor_a_word_before_its_body():
    async def app(scope, receive, send):
        await read_all(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for word in (b"one ", b"two"):
            await send({"type": "http.response.body", "body": word, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def run():
        talk = Talk(app)
        head = b"POST / HTTP/1.0\r\nhost: here\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n"
        assert await talk.say(head) == b""
        await talk.say(b"x")
        assert talk.transport.is_closed
        return talk.said

    head, _, body = asyncio.run(run()).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b"connection: close" in head
    assert body == b"one two"
