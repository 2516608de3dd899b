"""Hostile HTTP on raw sockets, against both parsers: smuggling, injection, sizes, slowness, odd methods."""

from __future__ import annotations

import json
import re
import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from gateway_server import Records, gateway, live, scripted_models, serve

from stanchion.gateway.gateway_file import FeatureModel
from stanchion.gateway.http_protocol import bounded_protocol

CHAT = "/v1/chat/completions"
HEAD_S = 0.6
BODY_S = 0.6
LIMIT = 64 * 1024
BODY = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": "Hello."}]}).encode()
INNER = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
SCRIPT = {"default": {"text": "You can return anything."}}


@pytest.fixture(scope="module", params=["httptools", "h11"])
def hard(request, guard):
    """A server with short limits, on either parser."""
    from stanchion.gateway.pages import make_pages

    records = Records()
    feature = FeatureModel(max_body_bytes=LIMIT)
    configuration = live(
        scripted_models(SCRIPT), {"default": guard}, records, feature_model=feature, body_timeout_s=BODY_S
    )
    app = gateway(configuration)
    app.pages.update(make_pages(app))
    protocol = bounded_protocol(timeout_s=HEAD_S, implementation=request.param)
    with serve(app, http=protocol, ws="none", timeout_keep_alive=1) as served:
        yield served, records


@pytest.fixture
def served(hard):
    hard[1].clear()
    return hard[0]


@pytest.fixture
def records(hard, served):
    return hard[1]


def connect(served) -> socket.socket:
    parts = urlsplit(served.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=5)


def said(client: socket.socket, *, seconds: float = 3.0) -> bytes:
    """Everything until the other side ends, or is silent for a while."""
    found = b""
    client.settimeout(seconds)
    try:
        while piece := client.recv(65536):
            found += piece
    except (TimeoutError, ConnectionResetError):
        pass
    return found


def send(served, data: bytes, *, seconds: float = 3.0) -> bytes:
    with connect(served) as client:
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(data)
        return said(client, seconds=seconds)


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3})", answer)]


def post(*headers: bytes, body: bytes = b"", path: str = CHAT, eol: bytes = b"\r\n") -> bytes:
    lines = [
        f"POST {path} HTTP/1.1".encode(),
        b"host: localhost",
        b"content-type: application/json",
        b"connection: close",
        *headers,
    ]
    return eol.join(lines) + eol + eol + body


def length(body: bytes) -> bytes:
    return b"content-length: %d" % len(body)


def chunked(body: bytes, *, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body) + end


# --- smuggling ----------------------------------------------------------------------------------------------

TE = b"transfer-encoding: chunked"
AMBIGUOUS = {
    "length and coding": post(length(chunked(b"") + INNER), TE, body=chunked(b"") + INNER),
    "coding and length": post(TE, b"content-length: 4", body=chunked(BODY) + INNER),
    "no such coding": post(b"transfer-encoding: xchunked", length(BODY + INNER), body=BODY + INNER),
    "coding not at the end": post(b"transfer-encoding: chunked, identity", body=chunked(BODY) + INNER),
    "coding twice": post(TE, b"transfer-encoding: identity", body=chunked(BODY) + INNER),
    "coding after a tab": post(b"transfer-encoding:\x0bchunked", length(BODY), body=BODY + INNER),
    "coding before a space": post(b"transfer-encoding : chunked", length(BODY), body=BODY + INNER),
    "coding in a fold": post(b"x-a: b\r\n transfer-encoding: chunked", length(BODY), body=BODY + INNER),
    "coding with a nul": post(b"transfer-encoding: chunked\x00", length(BODY), body=BODY + INNER),
    "two lengths": post(length(BODY), length(BODY + INNER), body=BODY + INNER),
    "a list of lengths": post(b"content-length: %d, 5" % len(BODY), body=BODY + INNER),
    "a signed length": post(b"content-length: +%d" % len(BODY), body=BODY + INNER),
    "a negative length": post(b"content-length: -1", body=BODY + INNER),
    "a length in hex": post(b"content-length: 0x10", body=BODY + INNER),
    "two words of length": post(b"content-length: 5 5", body=BODY + INNER),
    "an endless length": post(b"content-length: " + b"9" * 40, body=BODY + INNER),
    "a size with a sign": post(TE, body=b"+5\r\nhello\r\n0\r\n\r\n" + INNER),
    "a size in 0x": post(TE, body=b"0x5\r\nhello\r\n0\r\n\r\n" + INNER),
    "an endless size": post(TE, body=b"f" * 20 + b"\r\nhello\r\n0\r\n\r\n" + INNER),
    "a piece too long": post(TE, body=b"5\r\nhello" + INNER + b"\r\n0\r\n\r\n"),
    "a name with a space": post(b"content length: 5", body=INNER),
    "a carriage return alone": post(b"x-a: b\rcontent-length: 5", body=INNER),
    "no host": b"POST "
    + CHAT.encode()
    + b" HTTP/1.1\r\n"
    + length(BODY + INNER)
    + b"\r\n\r\n"
    + BODY
    + INNER,
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_request_that_could_be_read_in_two_ways_gives_one_answer_at_most(served, records, name):
    answer = send(served, AMBIGUOUS[name], seconds=1.5)
    assert b'"alive"' not in answer, "the request inside was served"
    assert len(statuses(answer)) <= 1, answer
    if name == "coding in a fold" and statuses(answer) == [200]:
        return  # h11 reads the fold as what it is, a part of the value before (RFC 9112, 5.2)
    assert all(400 <= status < 500 for status in statuses(answer)), answer
    assert all(one.outcome.value in ("invalid", "deadline", "client_gone") for one in records.all)


def test_bare_newlines_make_no_second_request(served, records):
    whole = post(length(BODY), body=BODY, eol=b"\n")
    answer = send(served, whole + INNER.replace(b"\r\n", b"\n"), seconds=1.5)
    assert b'"alive"' not in answer
    assert len(statuses(answer)) <= 1
    folded = post(b"x-a: b\n\ncontent-length: 5", length(BODY), body=BODY)
    assert len(statuses(send(served, folded, seconds=1.5))) <= 1


def test_two_plain_requests_behind_each_other_are_two(served, records):
    first = post(length(BODY), body=BODY).replace(b"connection: close\r\n", b"")
    answer = send(served, first + INNER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    assert statuses(answer) == [200, 200]
    assert b'"alive"' in answer


# --- injection ----------------------------------------------------------------------------------------------

INJECTED = "a\r\nx-injected: 1\r\n\r\n<b>"


@pytest.mark.parametrize(
    "name",
    ["x-stanchion-approval", "x-stanchion-feature", "x-stanchion-session", "traceparent", "tracestate"],
)
@pytest.mark.parametrize(
    "value", [b"a\x0bx-injected: 1", b"\xff\xfe\x85x-injected: 1", b"%0d%0ax-injected: 1"]
)
def test_no_header_of_ours_is_made_by_a_client(served, name, value):
    answer = send(served, post(name.encode() + b": " + value, length(BODY), body=BODY), seconds=1.5)
    head, _, _ = answer.partition(b"\r\n\r\n")
    assert len(statuses(answer)) == 1
    assert not [line for line in head.split(b"\r\n") if line.lower().startswith(b"x-injected")]
    assert head.isascii()


@pytest.mark.parametrize("field", ["model", "user", "tool"])
def test_what_a_body_says_makes_no_header(served, records, field):
    value = json.loads(BODY)
    if field == "tool":
        value["tools"] = [{"type": "function", "function": {"name": INJECTED, "parameters": {}}}]
    else:
        value[field] = INJECTED
    data = json.dumps(value).encode()
    answer = send(served, post(length(data), b"x-stanchion-explain: 1", body=data))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert len(statuses(answer)) == 1
    assert b"x-injected" not in head
    assert b"x-injected" not in body or statuses(answer) == [200]


PATHS = [
    "/features/%0d%0ax-injected:%201/v1/chat/completions",
    "/features/../v1/chat/completions",
    "/features/..%2f..%2fetc%2fpasswd/v1/chat/completions",
    "/features/default%2f..%2fother/v1/chat/completions",
    "/features/default%00/v1/chat/completions",
    "/features/%c0%ae%c0%ae/v1/chat/completions",
    "/v1/../v1/chat/completions",
    "//v1/chat/completions",
    "/v1/chat/completions/",
    "/v1/chat/completions%00",
    "/V1/CHAT/COMPLETIONS",
    "/admin/v1/switches",
    "/v1/chat/completions;a=b",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_taken_as_it_is(served, records, path):
    answer = send(served, post(length(BODY), body=BODY, path=path), seconds=1.5)
    assert statuses(answer)[0] in (400, 404), answer
    assert b"x-injected" not in answer.partition(b"\r\n\r\n")[0].lower()
    assert all(one.outcome.value == "invalid" for one in records.all)


# --- sizes --------------------------------------------------------------------------------------------------


def with_extra(text: str) -> bytes:
    return BODY[:-1] + b', "extra": ' + text.encode("utf-8", "surrogatepass") + b"}"


BODIES = {
    "deep": ("nested_too_deep", with_extra("[" * 500 + "]" * 500)),
    "deep objects": ("nested_too_deep", with_extra('{"a":' * 500 + "1" + "}" * 500)),
    "deep and open": ("nested_too_deep", with_extra("[" * 30_000)),
    "a key twice": ("duplicate_key", BODY[:-1] + b', "model": "other"}'),
    "a key twice, escaped": ("duplicate_key", BODY[:-1] + b', "mod\\u0065l": "other"}'),
    "not a number": ("not_json", with_extra("NaN")),
    "infinity": ("not_json", with_extra("-Infinity")),
    "too large a number": ("not_json", with_extra("1e999")),
    "too many digits": ("not_json", with_extra("9" * 5000)),
    "half a pair": ("lone_surrogate", with_extra('"\\ud800"')),
    "half a pair as a key": ("lone_surrogate", with_extra('{"\\udfff": 1}')),
    "half a pair in bytes": ("not_utf8", with_extra('"\ud800"')),
    "overlong utf-8": ("not_utf8", BODY.replace(b"Hello", b"\xc0\xafello")),
    "utf-16": ("not_utf8", BODY.decode().encode("utf-16")),
    "two values": ("not_json", BODY + BODY),
    "a comment": ("not_json", BODY[:-1] + b", /* */}"),
    "nothing": ("not_json", b""),
    "a list": ("invalid_request", b"[]"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_two_readers_could_read_differently_is_refused(served, records, name):
    code, body = BODIES[name]
    began = time.process_time()
    answer = send(served, post(length(body), body=body))
    assert time.process_time() - began < 1.0
    assert statuses(answer) == [400]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == code
    assert records.only().outcome.value == "invalid"


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(served, records):
    answer = send(served, post(b"content-length: %d" % (LIMIT + 1)))
    assert statuses(answer) == [413]
    answer = send(served, post(TE, body=chunked(b" " * LIMIT, end=b"") + chunked(b" " * 100)))
    assert statuses(answer) in ([413], [])  # what comes behind the refusal may cut it off
    assert all(one.status == 413 for one in records.all)


def test_headers_without_end_are_refused(served):
    for headers in ([b"x-%d: %s" % (n, b"a" * 100) for n in range(2000)], [b"x-a: " + b"a" * 200_000]):
        answer = send(served, post(*headers, length(BODY), body=BODY))
        assert statuses(answer) in ([431], [400], []), answer[:200]
    assert statuses(send(served, post(length(BODY), body=BODY))) == [200]


# --- slowness -----------------------------------------------------------------------------------------------


def test_a_head_that_trickles_in_is_cut_off(served):
    with connect(served) as client:
        began = time.monotonic()
        try:
            for byte in post(length(BODY)):
                client.sendall(bytes([byte]))
                time.sleep(0.02)
                if time.monotonic() - began > 5:
                    break
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - began < HEAD_S + 2
        assert statuses(said(client)) in ([408], [])


def test_a_body_that_trickles_in_is_cut_off(served, records):
    with connect(served) as client:
        client.sendall(post(length(BODY)))
        began = time.monotonic()
        try:
            while time.monotonic() - began < 5 and not records.all:
                client.sendall(b" ")
                time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - began < BODY_S + 2
        assert statuses(said(client)) in ([408], [])
    assert records.only().error == "slow_body"


def test_a_hundred_slow_clients_keep_nobody_out(served):
    slow = [connect(served) for _ in range(100)]
    try:
        for client in slow:
            client.sendall(b"POST / HTTP/1.1\r\nx-a: ")
        began = time.monotonic()
        assert statuses(send(served, post(length(BODY), body=BODY))) == [200]
        assert time.monotonic() - began < 2
        for client in slow:
            assert said(client, seconds=HEAD_S + 5) is not None
    finally:
        for client in slow:
            client.close()


# --- methods and versions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PATCH"])
def test_other_methods_reach_no_model(served, records, method):
    answer = send(served, post(length(BODY), body=BODY).replace(b"POST", method.encode(), 1))
    assert statuses(answer) == [405]
    assert b"Hello" not in answer, "TRACE gives nothing back"
    assert b"access-control" not in answer.lower()
    assert records.all == []


def test_no_tunnel_and_no_upgrade(served, records):
    answer = send(served, b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: a\r\n\r\n", seconds=1.5)
    assert statuses(answer) in ([400], [404], [405], [])
    upgrade = (
        b"upgrade: websocket",
        b"connection: upgrade",
        b"sec-websocket-version: 13",
        b"sec-websocket-key: " + b"a" * 22 + b"==",
    )
    for headers in (
        upgrade,
        (b"upgrade: h2c", b"connection: upgrade, http2-settings", b"http2-settings: AAMAAABk"),
    ):
        answer = send(
            served,
            post(*headers, length(BODY), body=BODY).replace(b"connection: close\r\n", b""),
            seconds=1.5,
        )
        assert 101 not in statuses(answer)
        assert statuses(answer)[0] in (200, 400)
    answer = send(served, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", seconds=1.5)
    assert statuses(answer) in ([400], [505], [])


def test_the_old_version_is_served_once(served, records):
    old = (
        post(length(BODY), body=BODY).replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"connection: close\r\n", b"")
    )
    answer = send(served, old + INNER)
    assert statuses(answer)[0] == 200
    assert b'"alive"' not in answer
    assert statuses(send(served, old.replace(b"HTTP/1.0", b"HTTP/0.9"), seconds=1.5)) in ([400], [505])


@pytest.mark.parametrize("target", ["http://169.254.169.254/v1/models", "http://evil.example/healthz", "*"])
def test_a_target_elsewhere_is_asked_nowhere(served, target):
    answer = send(served, f"GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    assert statuses(answer)[0] in (200, 400, 404)
