"""Connections to a provider: used again, bounded, closed, and never left behind."""

import asyncio
import contextlib
import gc
import os
import socket
import tracemalloc

import pytest
from raw_provider import (
    BODY,
    MOST,
    REQUEST,
    chunked,
    on_both_loops,
    pool_to,
    raw_provider,
    told,
    until,
    whole,
)

from stanchion.gateway.upstream_faults import LinkBroken, MalformedAnswer, UnknownHost, Unreachable
from stanchion.gateway.upstream_pool import STALE_S, Origin, _Names

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@on_both_loops
async def test_connections_are_used_again_and_closed_at_the_end():
    async with raw_provider() as provider, pool_to(provider) as pool:
        for _ in range(20):
            assert await told(pool) == (200, b"hello")
        assert (provider.connections, pool.open, pool.idle) == (1, 1, 1)
        await asyncio.gather(*(told(pool) for _ in range(10)))
        assert provider.connections == pool.open == pool.idle <= 11
        pool.close()
        await until(lambda: provider.open == 0)


@on_both_loops
async def test_no_more_connections_than_allowed_and_nobody_is_forgotten():
    most = 0

    async def slowly(talk):
        nonlocal most
        most = max(most, provider.open)
        await asyncio.sleep(0.01)
        await talk.answer(b"hello", *([b"connection: close"] if talk.requests % 3 == 0 else []))

    async with raw_provider(slowly) as provider, pool_to(provider, max_connections=4) as pool:
        asked = [asyncio.ensure_future(told(pool)) for _ in range(60)]
        await asyncio.sleep(0.02)
        for task in asked[5:40:3]:
            task.cancel()
        done = await asyncio.gather(*asked, return_exceptions=True)
        kept = [one for one in done if not isinstance(one, asyncio.CancelledError)]
        assert kept == [(200, b"hello")] * len(kept)
        assert len(kept) >= 48
        assert pool.open <= 4
        assert await asyncio.wait_for(told(pool), 2) == (200, b"hello")
    assert most <= 5  # one that just closed may still be seen by the other side


@on_both_loops
async def test_a_kept_connection_that_had_died_is_replaced_once():
    async def once(talk):
        if talk.requests == 1:
            await talk.answer()
        elif talk.number < 3:
            talk.reset()
        else:
            await talk.answer(b"again")

    async with raw_provider(once) as provider, pool_to(provider) as pool:
        assert await told(pool) == (200, b"hello")
        assert await told(pool) == (200, b"hello")  # the first died on its second request; a new one answers
        assert [r.count(b"POST") for r in provider.requests] == [1, 1, 1]

    async def never_again(talk):
        if talk.number == 1 and talk.requests == 1:
            await talk.answer()
        else:
            talk.reset()

    async with raw_provider(never_again) as provider, pool_to(provider) as pool:
        await told(pool)
        with pytest.raises(LinkBroken):
            await told(pool)
        assert len(provider.requests) == 3, "one retry, and no more"


@on_both_loops
async def test_a_provider_that_dies_over_a_request_is_not_asked_twice():
    async def at_work(talk):
        if talk.requests == 1:
            await talk.answer()
        else:
            await asyncio.sleep(STALE_S + 0.3)
            talk.reset()

    async with raw_provider(at_work) as provider, pool_to(provider) as pool:
        await told(pool)
        with pytest.raises(LinkBroken):
            await told(pool)
        assert len(provider.requests) == 2


@on_both_loops
async def test_whoever_comes_just_as_a_name_was_looked_up_gets_its_addresses():
    origin = Origin(scheme="http", host="127.0.0.1", port=80)
    for _ in range(20):
        names = _Names(origin)
        coming = []
        while not names._found:
            coming.append(asyncio.create_task(names.addresses()))
            await asyncio.sleep(0)
        coming.append(asyncio.create_task(names.addresses()))
        assert {one for found in await asyncio.gather(*coming) for one in found} == set(names._found)


@on_both_loops
async def test_a_request_is_not_repeated_once_a_byte_of_an_answer_came_or_on_a_new_connection():
    async def a_byte(talk):
        if talk.requests == 1:
            await talk.answer()
        else:
            await talk.say(b"H", pause_s=0.01)
            talk.close()

    async with raw_provider(a_byte) as provider, pool_to(provider) as pool:
        await told(pool)
        with pytest.raises(LinkBroken):
            await told(pool)
        assert len(provider.requests) == 2

    async def closes(talk):
        talk.close()

    async with raw_provider(closes) as provider, pool_to(provider) as pool:
        with pytest.raises(LinkBroken):
            await told(pool)
        assert len(provider.requests) == 1


@on_both_loops
async def test_silence_is_not_a_reason_to_repeat():
    async def silent(talk):
        if talk.requests == 1:
            await talk.answer()
        else:
            await talk.reader.read()

    async with raw_provider(silent) as provider, pool_to(provider, idle_s=0.2) as pool:
        await told(pool)
        with pytest.raises(LinkBroken, match=r"0\.2 s"):
            await told(pool)
        assert len(provider.requests) == 2


@on_both_loops
async def test_the_deadline_counts_from_the_last_byte():
    async def drips(talk):
        await talk.say(HEAD)
        for _ in range(6):
            await talk.say(b"1\r\nx\r\n", pause_s=0.1)
        await talk.say(b"0\r\n\r\n")

    async def stalls(talk):
        await talk.say(HEAD, b"1\r\nx\r\n")
        await talk.reader.read()

    async with raw_provider(drips) as provider, pool_to(provider, idle_s=0.3) as pool:
        assert await told(pool) == (200, b"xxxxxx")
        provider.speak = stalls
        for collect in (0, MOST):
            began = asyncio.get_running_loop().time()
            with pytest.raises(LinkBroken, match="nothing came"):
                await told(pool, collect=collect)
            assert 0.25 < asyncio.get_running_loop().time() - began < 1.5


@on_both_loops
async def test_a_long_request_on_a_slow_line_is_not_silence():
    size, read, done = 32 << 20, [], asyncio.Event()

    async def reads_slowly(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        while sum(read) < size:
            read.append(len(await reader.read(1 << 20)))
            await asyncio.sleep(0.01)
        writer.write(whole())
        await reader.read()
        writer.close()
        done.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        async with (
            await asyncio.start_server(reads_slowly, sock=listener, limit=1 << 16),
            pool_to(listener.getsockname()[1], idle_s=1.5) as pool,
        ):
            began = asyncio.get_running_loop().time()
            assert await told(pool, body=b"x" * size) == (200, b"hello")
            assert asyncio.get_running_loop().time() - began > 1.5, "longer than the silence that is allowed"
            pool.close()
            await done.wait()


@on_both_loops
async def test_an_idle_connection_is_closed_in_time_and_at_a_byte_nobody_asked_for():
    async with raw_provider() as provider, pool_to(provider, keep_s=0.2) as pool:
        await told(pool)
        await until(lambda: pool.open == 0 and provider.open == 0)

    async def says_more_later(talk):
        await talk.answer()
        await asyncio.sleep(0.05)
        await talk.say(whole(b"evil"))

    async with raw_provider(says_more_later) as provider, pool_to(provider) as pool:
        assert await told(pool) == (200, b"hello")
        assert pool.idle == 1
        await until(lambda: pool.open == 0)
        assert await told(pool) == (200, b"hello")


@on_both_loops
async def test_a_cancelled_request_closes_its_connection_and_frees_its_place():
    gone = asyncio.Event()

    async def hangs(talk):
        await talk.say(HEAD, b"1\r\nx\r\n")
        await talk.reader.read()
        gone.set()

    async with raw_provider(hangs) as provider, pool_to(provider, max_connections=1) as pool:
        for collect in (0, MOST):
            gone.clear()
            asking = asyncio.ensure_future(told(pool, collect=collect))
            await until(lambda: provider.open == 1)
            await asyncio.sleep(0.05)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.wait_for(gone.wait(), 2)
            await until(lambda: pool.open == 0)
        provider.speak = type(provider)().speak
        assert await told(pool) == (200, b"hello")


@on_both_loops
async def test_an_answer_that_is_left_early_lingers_for_its_end_and_no_longer():
    async def ends_late(talk):
        await talk.say(HEAD, b"4\r\ndone\r\n", pause_s=0.05)
        await talk.say(b"0\r\n\r\n")

    async def goes_on(talk):
        await talk.say(HEAD, b"4\r\ndone\r\n")
        while True:
            await talk.say(b"400\r\n" + b"x" * 1024 + b"\r\n", pause_s=0)

    async def hangs(talk):
        await talk.say(HEAD, b"4\r\ndone\r\n")
        await talk.reader.read()

    for speak, stays in ((ends_late, True), (goes_on, False), (hangs, False)):
        async with raw_provider(speak) as provider, pool_to(provider) as pool:
            incoming = await pool.ask(REQUEST, BODY)
            assert (await incoming.some()).startswith(b"done")
            began = asyncio.get_running_loop().time()
            incoming.close(may_linger=True)
            assert pool.open == 1, "nobody waits for that"
            await until(lambda stays=stays, pool=pool: pool.idle == 1 if stays else pool.open == 0)
            assert asyncio.get_running_loop().time() - began < 2


@on_both_loops
async def test_a_slow_reader_holds_the_provider_back_and_little_memory():
    sent = 0

    async def floods(talk):
        nonlocal sent
        await talk.say(HEAD)
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(1600):  # 100 MiB
            await talk.say(piece, pause_s=0)
            sent += 1
        await talk.say(b"0\r\n\r\n")

    async with raw_provider(floods) as provider, pool_to(provider) as pool:
        incoming = await pool.ask(REQUEST, BODY)
        await asyncio.sleep(0.3)
        held = sent
        await asyncio.sleep(0.3)
        assert sent == held < 400, "the provider waits"
        gc.collect()
        tracemalloc.start()
        total = 0
        while piece := await incoming.some():
            assert len(piece) < 1 << 20
            total += len(piece)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
        tracemalloc.stop()
        assert total == 1600 * 65536
        incoming.close()
        assert pool.idle == 1


@on_both_loops
async def test_a_provider_that_dies_in_the_middle_gives_what_came_and_then_the_fault():
    async def dies(talk):
        await talk.say(HEAD, b"5\r\nhello\r\n", pause_s=0.02)
        talk.reset()

    async with raw_provider(dies) as provider, pool_to(provider) as pool:
        incoming = await pool.ask(REQUEST, BODY)
        assert await incoming.some() == b"hello"
        with pytest.raises(LinkBroken):
            await incoming.some()
        incoming.close()
        with pytest.raises(LinkBroken):
            await told(pool)


@on_both_loops
async def test_an_answer_before_the_request_was_read_is_heard_and_its_connection_closed():
    done, heard = asyncio.Event(), asyncio.Event()

    async def refuses(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(whole(b"too long", status=b"413 No"))
        await heard.wait()
        writer.transport.abort()
        done.set()

    server = await asyncio.start_server(refuses, "127.0.0.1", 0, limit=1 << 16)
    async with server, pool_to(server.sockets[0].getsockname()[1]) as pool:
        assert await told(pool, body=b"x" * (32 << 20)) == (413, b"too long")
        assert pool.idle == 0
        heard.set()
        await done.wait()


@on_both_loops
async def test_two_thousand_streams_at_once():
    async def streams(talk):
        await talk.say(HEAD)
        for _ in range(4):
            await talk.say(b"5\r\nhello\r\n", pause_s=0.05)
        await talk.say(b"0\r\n\r\n")

    before = len(os.listdir("/proc/self/fd"))
    async with (
        raw_provider(streams) as provider,
        pool_to(provider, max_connections=2000, idle_s=60, connect_s=60) as pool,
    ):
        found = await asyncio.gather(*(told(pool, collect=0) for _ in range(2000)))
        assert found == [(200, b"hello" * 4)] * 2000
        assert pool.open == pool.idle <= 2000
    assert len(os.listdir("/proc/self/fd")) <= before + 5


@on_both_loops
async def test_nothing_stays_after_many_faults():
    async def varied(talk):
        kind = len(provider.requests) % 5
        if kind == 0:
            await talk.answer()
        elif kind == 1:
            talk.reset()
        elif kind == 2:
            await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n")
        elif kind == 3:
            await talk.say(chunked(b"hello")[:-3])
            talk.close()
        else:
            await talk.say(whole() + whole())

    async with raw_provider(varied) as provider, pool_to(provider, max_connections=3) as pool:
        for _ in range(100):
            with contextlib.suppress(LinkBroken, MalformedAnswer):
                assert await told(pool) == (200, b"hello")
        assert pool.open <= 3
        await until(lambda: provider.open <= pool.open)


@on_both_loops
async def test_where_nobody_listens_or_nobody_is():
    async with raw_provider() as provider:
        port = provider.port
    async with pool_to(port) as pool:
        with pytest.raises(Unreachable, match="ConnectionRefusedError"):
            await told(pool)
    async with pool_to(port, host="no-such-host.invalid") as pool:
        with pytest.raises(UnknownHost):
            await asyncio.gather(*(told(pool) for _ in range(3)))


@on_both_loops
async def test_a_name_with_several_addresses_falls_back_to_the_one_that_answers():
    async with raw_provider() as provider, pool_to(provider, host="localhost") as pool:
        assert [await told(pool) for _ in range(3)] == [(200, b"hello")] * 3
