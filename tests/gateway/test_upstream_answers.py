"""What bytes of a provider are taken for: the same in every cut, and nothing where there are two readings."""

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from raw_provider import BODY, MOST, REQUEST, chunked, pool_to, raw_provider, told, whole

from stanchion.gateway.upstream_connection import FRAMING_BYTES, MAX_HEADERS, Connection
from stanchion.gateway.upstream_faults import LinkBroken, LinkFault, MalformedAnswer, TooLongAnswer

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKS = OK + b"transfer-encoding: chunked\r\n\r\n"
SOUND = {
    "length": (whole(b"hello"), 200, b"hello"),
    "length, nothing": (whole(b""), 200, b""),
    "blanks around a value": (OK + b"content-length:\t 5 \t\r\n\r\nhello", 200, b"hello"),
    "chunks": (chunked(b"he", b"l", b"lo"), 200, b"hello"),
    "chunks, none": (chunked(), 200, b""),
    "chunks in capitals": (OK + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, b"hello"),
    "chunk with extension": (chunked(b"hello", extension=b";a=b"), 200, b"hello"),
    "trailers": (chunked(b"hello", trailers=b"x-sum: 1\r\n"), 200, b"hello"),
    "until the end": (OK + b"\r\nhello", 200, b"hello"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
    "HTTP/1.0 until the end": (b"HTTP/1.0 200 OK\r\n\r\nhello", 200, b"hello"),
    "close": (whole(b"hello", b"connection: close"), 200, b"hello"),
    "100 first": (b"HTTP/1.1 100 Continue\r\n\r\n" + whole(), 200, b"hello"),
    "103 first": (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + chunked(b"hello"), 200, b"hello"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "500": (whole(b"no", status=b"500 No"), 500, b"no"),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello", 200, b"hello"),
    "latin-1": (whole(b"hello", b"x-name: caf\xe9"), 200, b"hello"),
    "a body like a head": (
        whole(b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        200,
        b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ),
}
MALFORMED = {
    "both lengths": OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "both lengths turned": OK
    + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "two lengths": OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "the same length twice": OK + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "a list of lengths": OK + b"content-length: 5, 5\r\n\r\nhello",
    "a length with a sign": OK + b"content-length: +5\r\n\r\nhello",
    "a negative length": OK + b"content-length: -5\r\n\r\nhello",
    "a length in hex": OK + b"content-length: 0x5\r\n\r\nhello",
    "a length of blanks": OK + b"content-length: \r\n\r\nhello",
    "a length of two words": OK + b"content-length: 5 5\r\n\r\nhello",
    "a length beyond numbers": OK + b"content-length: 99999999999999999999999\r\n\r\nhello",
    "another coding": OK + b"transfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked, and then more": OK + b"transfer-encoding: chunked, identity\r\n\r\nhello",
    "identity": OK + b"transfer-encoding: identity\r\n\r\nhello",
    "a coding like chunked": OK + b"transfer-encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "a folded header": OK + b"x-a: b\r\n c\r\ncontent-length: 5\r\n\r\nhello",
    "a fold at the top": OK + b" x-a: b\r\ncontent-length: 5\r\n\r\nhello",
    "LF behind the status": b"HTTP/1.1 200 OK\ncontent-length: 5\r\n\r\nhello",
    "LF behind a header": OK + b"content-length: 5\n\r\nhello",
    "LF for the empty line": OK + b"content-length: 5\r\n\nhello",
    "CR in a value": OK + b"x-a: b\rc\r\ncontent-length: 5\r\n\r\nhello",
    "NUL in a value": OK + b"x-a: b\0c\r\ncontent-length: 5\r\n\r\nhello",
    "NUL in a name": OK + b"x\0a: b\r\ncontent-length: 5\r\n\r\nhello",
    "NUL in the status line": b"HTTP/1.1 200 O\0K\r\ncontent-length: 5\r\n\r\nhello",
    "a control character": OK + b"x-a: \x01\r\ncontent-length: 5\r\n\r\nhello",
    "a blank before the colon": OK + b"content-length : 5\r\n\r\nhello",
    "no name": OK + b": 5\r\n\r\nhello",
    "no colon": OK + b"content-length 5\r\n\r\nhello",
    "two content types": OK + b"content-type: a/b\r\ncontent-type: c/d\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/0.9": b"<html>hello</html>",
    "another protocol": b"SSH-2.0-OpenSSH\r\n",
    "another kind of HTTP": b"ICE/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "a request": b"GET / HTTP/1.1\r\nhost: here\r\n\r\n",
    "a line break first": b"\r\n" + whole(),
    "status 99": b"HTTP/1.1 099 OK\r\ncontent-length: 5\r\n\r\nhello",
    "status 600": b"HTTP/1.1 600 OK\r\ncontent-length: 5\r\n\r\nhello",
    "status of four": b"HTTP/1.1 2000 OK\r\ncontent-length: 5\r\n\r\nhello",
    "status of two": b"HTTP/1.1 20 OK\r\ncontent-length: 5\r\n\r\nhello",
    "switches protocols": b"HTTP/1.1 101 Go\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "interim without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    "chunk: LF": CHUNKS + b"5\nhello\r\n0\r\n\r\n",
    "chunk: LF behind the data": CHUNKS + b"5\r\nhello\n0\r\n\r\n",
    "chunk: a blank": CHUNKS + b"5 \r\nhello\r\n0\r\n\r\n",
    "chunk: 0x": CHUNKS + b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk: a sign": CHUNKS + b"-5\r\nhello\r\n0\r\n\r\n",
    "chunk: no size": CHUNKS + b"\r\nhello\r\n0\r\n\r\n",
    "chunk: longer than it says": CHUNKS + b"5\r\nhello!\r\n0\r\n\r\n",
    "chunk: beyond numbers": CHUNKS + b"f" * 40 + b"\r\nhello\r\n0\r\n\r\n",
    "chunk: LF in an extension": CHUNKS + b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "chunk: extensions without end": CHUNKS + (b"1;" + b"a" * 2000 + b"\r\nx\r\n") * 60,
    "chunk: one extension without end": CHUNKS + b"1;" + b"a" * 2 * FRAMING_BYTES,
    "chunk: trailers without end": CHUNKS + b"5\r\nhello\r\n0\r\n" + b"x-a: b\r\n" * 20_000,
    "chunk: a long trailer": CHUNKS + b"5\r\nhello\r\n0\r\nx-a: " + b"b" * 2 * FRAMING_BYTES,
    "a long header": OK + b"x-a: " + b"b" * 2 * FRAMING_BYTES + b"\r\ncontent-length: 5\r\n\r\nhello",
    "a long name": OK + b"x" * 2 * FRAMING_BYTES + b": b\r\ncontent-length: 5\r\n\r\nhello",
    "a long status": b"HTTP/1.1 200 " + b"O" * 2 * FRAMING_BYTES + b"\r\ncontent-length: 5\r\n\r\nhello",
    "many headers": OK
    + b"".join(b"x-%d: 1\r\n" % n for n in range(MAX_HEADERS + 1))
    + b"content-length: 5\r\n\r\nhello",
}
BROKEN = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-le",
    "a head": OK + b"content-length: 5\r\n\r\n",
    "half a body": whole()[:-2],
    "a chunk without its end": CHUNKS + b"5\r\nhello",
    "chunks without their end": CHUNKS + b"5\r\nhello\r\n",
    "half of the end": CHUNKS + b"5\r\nhello\r\n0\r\n",
    "an interim answer only": b"HTTP/1.1 100 Continue\r\n\r\n",
}


class Wire:
    """A transport in memory: what a connection writes, and whether it was closed."""

    def __init__(self) -> None:
        self.written = b""
        self.is_over = self.is_paused = False
        self.protocol: Connection | None = None

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_over

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def abort(self) -> None:
        if not self.is_over:
            self.is_over = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


async def taken(pieces, *, collect: int) -> tuple[object, ...]:
    """What one answer in these packets is taken for, its end included, and whether its connection stays."""
    idle: list[Connection] = []
    connection = Connection(on_idle=idle.append, on_closed=lambda _: None, idle_s=5, keep_s=5)
    wire = Wire()
    wire.protocol = connection
    connection.connection_made(wire)
    asking = asyncio.ensure_future(told(_One(connection), collect=collect))
    await asyncio.sleep(0)
    for piece in pieces:
        if not wire.is_over:
            connection.data_received(piece)
            if len(piece) % 3 == 0:
                await asyncio.sleep(0)  # sometimes whoever asks has taken it, sometimes more comes first
    for _ in range(4):
        await asyncio.sleep(0)
    if not asking.done() and not wire.is_over:
        wire.is_over = True
        connection.connection_lost(None)
    try:
        found = await asking
    except LinkFault as fault:
        found = (type(fault), None)
    stays = bool(idle) and not wire.is_over
    connection.abort()
    await asyncio.sleep(0)
    return (*found, stays)


class _One:
    """Just enough of a pool."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ask(self, request: bytes, body: bytes, *, collect: int):
        return await self._connection.ask(request, body, collect=collect)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, again and again."""
    pieces, at = [], 0
    for size in itertools.cycle(sizes):
        if at >= len(data):
            return pieces
        pieces.append(data[at : at + size])
        at += size


async def every_way(data: bytes, sizes: list[int]) -> set[tuple[object, ...]]:
    ways = (cut(data, sizes), cut(data, [1]), [data] if data else [])
    return {await taken(way, collect=collect) for way in ways for collect in (0, MOST)}


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=8)
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", SOUND)
@FEW
@given(sizes=SIZES)
def test_a_sound_answer_is_the_same_in_every_cut(name, sizes):
    data, status, body = SOUND[name]
    [(said, answer, stays)] = asyncio.run(every_way(data, sizes))
    assert (said, answer) == (status, body)
    assert stays == (name not in ("until the end", "HTTP/1.0", "HTTP/1.0 until the end", "close"))


@pytest.mark.parametrize("name", [n for n in MALFORMED if len(MALFORMED[n]) < 1000])
@FEW
@given(sizes=SIZES)
def test_what_has_two_readings_is_refused_in_every_cut(name, sizes):
    [(said, answer, stays)] = asyncio.run(every_way(MALFORMED[name], sizes))
    assert (said, answer, stays) == (MalformedAnswer, None, False)


@pytest.mark.parametrize("name", [n for n in MALFORMED if len(MALFORMED[n]) >= 1000])
def test_what_has_no_end_is_refused_in_every_cut(name):
    for size in (7, 1000, 1 << 18):
        for collect in (0, MOST):
            found = asyncio.run(taken(cut(MALFORMED[name], [size]), collect=collect))
            assert found == (MalformedAnswer, None, False)


@pytest.mark.parametrize("name", BROKEN)
@FEW
@given(sizes=SIZES)
def test_an_answer_that_breaks_off_is_none_in_every_cut(name, sizes):
    assert asyncio.run(every_way(BROKEN[name], sizes)) == {(LinkBroken, None, False)}


@pytest.mark.parametrize("extra", [b"x", b"\r\n", b"\r\n\r\n", b"\0", whole(b"evil"), b"HTTP/1.1 200 OK\r\n"])
@pytest.mark.parametrize(
    "name", ["length", "length, nothing", "chunks", "chunks, none", "trailers", "204", "500"]
)
@FEW
@given(sizes=SIZES)
def test_a_connection_with_bytes_behind_its_answer_is_not_used_again(name, extra, sizes):
    data, status, body = SOUND[name]
    for way in (cut(data + extra, sizes), cut(data + extra, [1]), [data + extra], [data, extra]):
        for collect in (0, MOST):
            assert asyncio.run(taken(way, collect=collect)) == (status, body, False)


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=300), max_size=12),
    is_chunked=st.booleans(),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=8),
)
@example(pieces=[b"\r\n\r\n"], is_chunked=False, sizes=[1])
@example(pieces=[b"0\r\n\r\n"], is_chunked=True, sizes=[2])
def test_any_body_comes_through_any_cut(pieces, is_chunked, sizes):
    body = b"".join(pieces)
    data = chunked(*pieces) if is_chunked else whole(body)
    assert asyncio.run(every_way(data, sizes)) == {(200, body, True)}


@settings(max_examples=300, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.tuples(
            st.sampled_from([value[0] for value in SOUND.values()]), st.integers(0, 90), st.binary(max_size=3)
        ).map(lambda each: each[0][: each[1]] + each[2] + each[0][each[1] :]),
    ),
    sizes=SIZES,
)
def test_whatever_comes_is_the_same_in_every_cut(data, sizes):
    found = asyncio.run(every_way(data, sizes))
    assert len(found) == 1, found


async def test_the_size_of_an_answer_is_bounded_before_it_is_here():
    async with raw_provider() as provider, pool_to(provider) as pool:
        for said in (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n",
            chunked(*[b"x" * 300] * 5)[:-5],
            OK + b"\r\n" + b"x" * 1500,
        ):

            async def speak(talk, said=said):
                await talk.say(said)
                await talk.reader.read()

            provider.speak = speak
            with pytest.raises(TooLongAnswer):
                await told(pool, collect=1000)


async def test_one_byte_at_a_time_on_a_socket():
    for data, status, body in (SOUND["chunks"], SOUND["103 first"], SOUND["length"]):

        async def speak(talk, data=data):
            await talk.say(*cut(data, [1]), pause_s=0)

        async with raw_provider(speak) as provider, pool_to(provider) as pool:
            for _ in range(2):
                assert await told(pool) == (status, body)
                assert await told(pool, collect=0) == (status, body)
            assert provider.connections == 1


async def test_what_was_sent_is_one_request_with_its_body():
    async with raw_provider() as provider, pool_to(provider) as pool:
        await told(pool)
        large = b"y" * (3 << 20)
        await told(pool, body=large)
    assert provider.requests[0] == REQUEST + BODY
    assert provider.requests[1].endswith(b"\r\n\r\n" + large)
