"""Our server behind sockets, on both event loops: ends, order, time, and what ASGI promises."""

import asyncio
import json
import re
import socket
import threading
import time

import pytest
from gateway_server import serve
from http_bytes import read_all, reply

from stanchion.gateway.http_io import Answer
from stanchion.gateway.http_protocol import bounded_protocol
from stanchion.gateway.http_request import WHEN_GONE, WHOLE

try:
    from uvloop import new_event_loop as uv_loop
except ImportError:
    LOOPS = [asyncio.new_event_loop]
else:
    LOOPS = [asyncio.new_event_loop, uv_loop]
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


@pytest.fixture(scope="module", params=LOOPS, ids=lambda loop: loop.__module__.partition(".")[0])
def loop_factory(request):
    return request.param


@pytest.fixture
def told(loop_factory):
    app = Told()
    with serve(app, http=bounded_protocol(), loop_factory=loop_factory) as served:
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
def whole(loop_factory):
    options = {"timeout_keep_alive": 1, "loop_factory": loop_factory}
    with serve(Whole(), http=bounded_protocol(), **options) as served:
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
def test_an_answer_at_once_is_the_one_that_asgi_would_send(whole, status):
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


# --- what ASGI and HTTP promise -----------------------------------------------------------------------------


class Ways:
    """An application with one way of answering for each path."""

    def __init__(self):
        self.ends = []
        self.bodies = []
        self.go_on = threading.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            scope["state"]["started"] = "yes"
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        way = scope["path"].rpartition("/")[2]
        await getattr(self, f"_{way}")(scope, receive, send)

    async def _facts(self, scope, receive, send):
        told = {
            key: scope[key].decode() if isinstance(scope[key], bytes) else scope[key]
            for key in ("http_version", "method", "scheme", "root_path", "path", "raw_path", "query_string")
        }
        told |= {"client": scope["client"], "server": scope["server"], "state": scope.get("state")}
        told |= {"headers": [(a.decode(), b.decode()) for a, b in scope["headers"]], "asgi": scope["asgi"]}
        await reply(send, json.dumps(told).encode())

    async def _body(self, scope, receive, send):
        self.bodies.append(await read_all(receive))
        await reply(send, b"%d" % len(self.bodies[-1]))

    async def _refused(self, scope, receive, send):
        await reply(send, b"no", status=413, headers=[(b"content-length", b"2")])

    async def _empty(self, scope, receive, send):
        await reply(send, b"", status=204)

    async def _many(self, scope, receive, send):
        scope[WHEN_GONE](lambda: self.ends.append("gone"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not self.ends:
            await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
            self.bodies.append(50_000)
            await asyncio.sleep(0)

    async def _slow(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await asyncio.to_thread(self.go_on.wait, 10)
        await send({"type": "http.response.body", "body": b"two"})

    async def _raises(self, scope, receive, send):
        raise ValueError("a word of the text")

    async def _nothing(self, scope, receive, send):
        return

    async def _half(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async def _short(self, scope, receive, send):
        await reply(send, b"half", headers=[(b"content-length", b"9")])

    async def _long(self, scope, receive, send):
        await reply(send, b"whole", headers=[(b"content-length", b"2")])

    async def _twice(self, scope, receive, send):
        await reply(send, b"a")
        with pytest.raises(RuntimeError):
            await send({"type": "http.response.start", "status": 200, "headers": []})
        self.ends.append((await receive())["type"])

    async def _waits(self, scope, receive, send):
        await read_all(receive)
        waits = [asyncio.create_task(receive()) for _ in range(2)]
        await asyncio.sleep(0)
        waits[0].cancel()
        self.ends.append((await waits[1])["type"])


@pytest.fixture
def ways(loop_factory):
    app = Ways()
    protocol = bounded_protocol(unread_timeout_s=0.5)
    options = {"root_path": "/below", "loop_factory": loop_factory, "send_buffer": 16_384}
    with serve(app, http=protocol, **options) as served:
        app.port = int(served.url.rpartition(":")[2])
        app.served = served
        yield app


def connect(app):
    client = socket.create_connection(("127.0.0.1", app.port), timeout=5)
    return client


def heard(client, *, until=None):
    """What comes until the other side closes, or until these bytes."""
    got = b""
    while (until is None or not got.endswith(until)) and (piece := client.recv(65536)):
        got += piece
    return got


def ask(way, *headers, method="GET", version="1.1", body=b""):
    lines = [f"{method} /{way} HTTP/{version}", "host: here", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


CLOSE = "connection: close"


def test_the_scope_says_who_asks_and_for_what(ways):
    with connect(ways) as client:
        mine = list(client.getsockname())
        client.sendall(ask("a%20b/facts?c=%20d", "X-Thing: One", "x-thing: two", CLOSE))
        head, _, body = heard(client).partition(b"\r\n\r\n")
    found = json.loads(body.split(b"\r\n")[1])
    assert found["headers"] == [
        ["host", "here"], ["x-thing", "One"], ["x-thing", "two"], ["connection", "close"]
    ]  # fmt: skip
    assert (found["path"], found["raw_path"], found["query_string"]) == (
        "/below/a b/facts", "/below/a%20b/facts", "c=%20d"
    )  # fmt: skip
    assert (found["method"], found["http_version"], found["scheme"]) == ("GET", "1.1", "http")
    assert (found["client"], found["server"]) == (mine, ["127.0.0.1", ways.port])
    assert found["root_path"] == "/below"
    assert found["state"] == {"started": "yes"}
    assert found["asgi"]["version"] == "3.0"
    assert re.search(rb"\r\ndate: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\r\n", head)
    assert b"\r\nserver: uvicorn\r\n" in head


@pytest.mark.parametrize("coding", ["content-length: 6", "transfer-encoding: chunked"])
def test_a_client_that_asks_first_is_told_to_go_on_once_its_body_is_wanted(ways, coding):
    with connect(ways) as client:
        client.sendall(ask("body", "expect: 100-Continue", coding, CLOSE, method="POST"))
        assert heard(client, until=b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abcdef" if "6" in coding else b"6\r\nabcdef\r\n0\r\n\r\n")
        assert heard(client).startswith(b"HTTP/1.1 200 OK\r\n")
    assert ways.bodies == [b"abcdef"]


def test_a_client_that_asks_first_and_is_refused_is_not_waited_for(ways):
    with connect(ways) as client:
        client.sendall(ask("refused", "expect: 100-continue", "content-length: 6", method="POST"))
        got = heard(client)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in got, "what it sends next may be the body, or not"


def test_a_client_that_sends_its_body_at_once_is_not_told_to(ways):
    with connect(ways) as client:
        client.sendall(
            ask("body", "expect: 100-continue", "content-length: 2", CLOSE, method="POST", body=b"ab")
        )
        assert heard(client).startswith(b"HTTP/1.1 200 ")


def test_no_body_where_there_is_none(ways):
    with connect(ways) as client:
        client.sendall(
            ask("refused", method="HEAD") + ask("empty") + ask("refused", method="HEAD", version="1.0")
        )
        got = heard(client)
    first, second, third = got.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"413 ")
    assert first.endswith(b"\r\ncontent-length: 2\r\n\r\n")
    assert second.startswith(b"204 ")
    assert b"length" not in second
    assert b"encoding" not in second
    assert third.endswith(b"\r\n\r\n")
    assert b"\r\nconnection: close\r\n" in third


@pytest.mark.parametrize("way", ["raises", "nothing"])
def test_an_application_without_an_answer_gives_an_error(ways, way):
    with connect(ways) as client:
        client.sendall(ask(way))
        got = heard(client)
    assert got.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"\r\nconnection: close\r\n" in got
    assert got.endswith(b"\r\n\r\nInternal Server Error")


@pytest.mark.parametrize(("way", "body"), [("half", b"half"), ("short", b"half"), ("long", b"")])
def test_an_answer_that_is_not_what_it_said_is_broken_off(ways, way, body):
    with connect(ways) as client:
        client.sendall(ask(way) + ask("empty"))
        got = heard(client)
    assert got.count(b"HTTP/1.1 ") == 1
    assert got.partition(b"\r\n\r\n")[2] == body


def test_behind_an_answer_there_is_none_and_no_body(ways):
    with connect(ways) as client:
        client.sendall(ask("twice", CLOSE))
        heard(client)
    until_true(lambda: ways.ends)
    assert ways.ends == ["http.disconnect"]


def test_who_waits_for_a_message_hears_of_the_end_even_beside_one_who_gave_up(ways):
    with connect(ways) as client:
        client.sendall(ask("waits"))
        time.sleep(0.1)
        assert ways.ends == []
    until_true(lambda: ways.ends)
    assert ways.ends == ["http.disconnect"]


def until_true(found):
    end = time.monotonic() + 5
    while not found() and time.monotonic() < end:
        time.sleep(0.005)
    assert found()


def test_who_does_not_read_is_not_written_to_and_let_go_after_a_while(ways):
    with connect(ways) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262_144)  # else the kernel makes it larger
        client.sendall(ask("many"))
        time.sleep(0.3)
        assert sum(ways.bodies) < 10_000_000, "the application waits, and does not fill the memory"
        began = time.monotonic()
        while time.monotonic() < began + 1:
            assert client.recv(65536)
        assert not ways.ends, "it reads"
        until_true(lambda: ways.ends)


def test_a_server_that_stops_lets_answers_end_and_closes_what_is_idle(ways):
    with connect(ways) as busy, connect(ways) as idle, connect(ways) as half:
        idle.sendall(ask("empty"))
        heard(idle, until=b"\r\n\r\n")
        half.sendall(b"GET / HT")
        busy.sendall(ask("slow"))
        heard(busy, until=b"3\r\none\r\n")
        ways.served.stop()
        assert heard(idle) == b""
        assert heard(half) == b""
        busy.sendall(ask("empty"))
        time.sleep(0.2)
        ways.go_on.set()
        assert heard(busy) == b"3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize(("limit", "status"), [(1, b"503"), (2, b"204")])
def test_no_more_than_so_many_at_once(loop_factory, limit, status):
    app = Ways()
    options = {"limit_concurrency": limit, "loop_factory": loop_factory}
    with serve(app, http=bounded_protocol(), **options) as served:
        app.port = int(served.url.rpartition(":")[2])
        with connect(app) as client:
            client.sendall(ask("empty", CLOSE))
            assert heard(client).startswith(b"HTTP/1.1 %b " % status)
