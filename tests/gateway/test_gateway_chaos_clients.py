"""Faults of clients and of the clock; and the table of all faults as a page."""

from __future__ import annotations

import asyncio
import socket
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from chaos_fixtures import CHAT, body, in_front, tried, until
from gateway_fault_table import OWN, OWN_FAULTS, page
from gateway_faults import delta, one_byte, stalls_at_once

from stanchion.core.clock import SortableIds, SystemClock
from stanchion.gateway.gateway_file import FeatureModel
from stanchion.gateway.http_protocol import bounded_protocol

HERE = Path(__file__).parent
FAULTS_PAGE = HERE.parents[1] / "docs" / "explanation" / "gateway-faults.md"
BODY_S = 0.4


def connect(served, *, receive_buffer: int = 0):
    parts = urlsplit(served.url)
    client = socket.socket()
    client.settimeout(10)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect((parts.hostname, parts.port))
    return client


def head(size: int) -> bytes:
    return (
        f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {size}\r\n\r\n"
    ).encode()


def the_record(records, id, *, stream=False):
    record = records.only()
    expected = OWN[id].streamed if stream else OWN[id].whole
    assert (record.outcome.value, record.error) == (expected.outcome, expected.error)
    return record


def test_a_client_that_goes_away_in_its_body_is_recorded(answering, guard):
    with in_front(answering, guard, body_timeout_s=BODY_S) as (served, records):
        client = connect(served)
        client.sendall(head(500) + b'{"model"')
        time.sleep(0.05)
        client.close()
        the_record(records, "gone-in-body")
        records.clear()
        with connect(served) as client:
            client.sendall(head(500) + b'{"model"')
            answer = b""
            while b"body_too_slow" not in answer and (piece := client.recv(4096)):
                answer += piece
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert b"body_too_slow" in answer
        the_record(records, "body-stalls")
        assert not answering.asked or b"model" in answering.asked[0][1]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_the_question_to_the_provider(faulty, guard, stream):
    faulty.play = stalls_at_once
    with in_front(faulty, guard, feature=FeatureModel(deadline_s=60), idle_s=30) as (served, records):
        client = connect(served)
        data = body(stream=stream)
        client.sendall(head(len(data)) + data)
        until(lambda: faulty.open == 1)
        client.close()
        record = the_record(records, "gone-waiting", stream=stream)
        assert [one.status for one in record.tries] == ["cut"]
        until(lambda: faulty.open == 0)
        assert record.total_ms < 15_000, "the provider's patience is longer than that"


def test_a_client_that_goes_away_in_a_stream_ends_it_at_the_provider(faulty, guard):
    async def words_for_ever(line):
        await line.head()
        while True:
            await line.chunk(delta("You can return anything within thirty days of buying it. "))
            await asyncio.sleep(0.005)

    faulty.play = words_for_ever
    with in_front(faulty, guard, feature=FeatureModel(deadline_s=30)) as (served, records):
        client = connect(served)
        data = body(stream=True)
        client.sendall(head(len(data)) + data)
        assert client.recv(4096)
        client.close()
        record = the_record(records, "gone-midway", stream=True)
        assert [one.status for one in record.tries] == ["cut"]
        until(lambda: faulty.open == 0)


def test_a_client_that_never_reads_is_let_go(faulty, guard):
    async def many_words(line):
        await line.head()
        while True:
            await line.chunk(*[delta("You can return anything within thirty days of buying it. ")] * 20)
            await asyncio.sleep(0)

    faulty.play = many_words
    server = {"http": bounded_protocol(unread_timeout_s=0.5), "send_buffer": 16_384}
    with (
        in_front(faulty, guard, feature=FeatureModel(deadline_s=60), server=server) as (served, records),
        connect(served, receive_buffer=4096) as client,
    ):
        data = body(stream=True)
        client.sendall(head(len(data)) + data)
        end = time.monotonic() + 20
        while not records.all and time.monotonic() < end:
            time.sleep(0.05)
        the_record(records, "reads-nothing", stream=True)
        until(lambda: faulty.open == 0)


# --- the clock ----------------------------------------------------------------------------------------------


class JumpingClock(SystemClock):
    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self):
        return super().now() + self.ahead


@pytest.mark.parametrize(("id", "days"), [("clock-back", -1), ("clock-forward", 1)])
def test_a_clock_that_jumps_changes_no_duration_and_no_outcome(faulty, guard, id, days):
    clock = JumpingClock()

    async def jump(line):
        clock.ahead += timedelta(days=days)
        await one_byte(line)

    faulty.play = jump
    with in_front(faulty, guard) as (served, records):
        configuration = served.gateway.live
        object.__setattr__(configuration, "clock", clock)
        object.__setattr__(configuration, "ids", SortableIds(clock))
        seen = set()
        for _ in range(2):
            tried(served, records, id)
            record = records.all[0]
            seen.add(record.facts.id)
            assert 0 <= record.guard_ms <= record.total_ms < 60_000
            assert 0 <= record.upstream_ms <= record.total_ms
        assert len(seen) == 2


def test_every_fault_of_the_table_is_tried():
    said = "".join(path.read_text("utf-8") for path in HERE.glob("test_gateway_chaos*.py"))
    assert [fault.id for fault in OWN_FAULTS if f'"{fault.id}"' not in said] == []


def test_the_page_shows_the_table():
    assert FAULTS_PAGE.read_text("utf-8") == page(), (
        "write it anew: python tests/gateway/gateway_fault_table.py"
    )
