"""A SQLite database that another process keeps locked: the bound on what a kill can cost holds."""

import asyncio
import json
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests_raw
from running_gateway import Running, running, until

from stanchion.bootstrap_records import SPILL_FILE
from stanchion.core.clock import SystemClock
from stanchion.core.errors import UnavailableError
from stanchion.gateway.ports import ApiSurface, ExchangeRecord, Outcome, RequestFacts, Stage
from stanchion.gateway.record import Recorder, StoreSink, lock_wait_s
from stanchion.store.database import open_database
from stanchion.store.exchanges import ExchangeStore
from stanchion.store.interactions import InteractionStore

CLOCK = SystemClock()
CHAT = "/v1/chat/completions"
EVERY_S = 0.5
GATEWAY = f"""
listen: 127.0.0.1:0
admin_listen: ""
records: {{every_s: {EVERY_S}}}
providers:
  script: {{api: scripted, script: script.yaml}}
models:
  m: {{provider: script}}
"""
FILES = {"gateway.yaml": GATEWAY, "script.yaml": "name: s\ndefault: {text: Good day.}\n"}
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()


class Locked:
    """Holds the database as another process would, until it is let go."""

    def __init__(self, path):
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def __enter__(self):
        self._connection.execute("BEGIN EXCLUSIVE")
        return self

    def __exit__(self, *_):
        self._connection.execute("ROLLBACK")
        self._connection.close()


def record(number):
    return ExchangeRecord(
        facts=RequestFacts(id=f"req_{number}", surface=ApiSurface.OPENAI_CHAT, model="m"),
        at=CLOCK.now().isoformat(),
        outcome=Outcome.ALLOWED,
        stage=Stage.DONE,
        status=200,
    )


@pytest.fixture
def stores(tmp_path):
    """The sink of a recorder, and the one that may wait longer for a lock."""
    opened = [open_database(tmp_path / "records.db", lock_wait_s=wait) for wait in (lock_wait_s(0.1), 2.0)]
    yield [StoreSink(InteractionStore(one), ExchangeStore(one)) for one in opened]
    for one in opened:
        one.close()


@pytest.fixture
def recorder(stores, tmp_path):
    made = Recorder(stores[0], first=stores[1], clock=CLOCK, every_s=0.1, spill=tmp_path / "spill.jsonl")
    made.start()
    yield made
    made.close()


def oldest_over(recorder, seconds):
    """The longest that a record waited in memory while one came every 10 ms; and how many came."""
    end, number, longest = time.monotonic() + seconds, 0, 0.0
    while time.monotonic() < end:
        recorder.put(record(number))
        number += 1
        time.sleep(0.01)
        longest = max(longest, recorder.health().oldest_s)
    return longest, number


def test_while_the_database_is_locked_no_record_waits_in_memory_beyond_the_bound(recorder, tmp_path):
    with Locked(tmp_path / "records.db"):
        longest, number = oldest_over(recorder, 3.0)
        until(lambda: recorder.health().spilled == number)
        assert (tmp_path / "spill.jsonl").read_bytes().count(b"\n") == number
        assert not recorder.health().is_writing
    assert longest < 0.1 + 0.1 + 0.4  # its turn, the wait for the lock, and a busy machine
    until(lambda: recorder.health().written == number, seconds=15)
    assert (recorder.health().lost, (tmp_path / "spill.jsonl").exists()) == (0, False)


def test_a_record_that_an_answer_waits_for_waits_longer_and_holds_up_no_spill(recorder, tmp_path):
    with ThreadPoolExecutor() as pool:
        with Locked(tmp_path / "records.db"):
            first = pool.submit(asyncio.run, recorder.write_first(record("first")))
            longest, _ = oldest_over(recorder, 1.0)
            assert not first.done()
        first.result(timeout=5)
        assert longest < 0.6
        with Locked(tmp_path / "records.db"), pytest.raises(UnavailableError):
            asyncio.run(recorder.write_first(record("second")))


def test_what_comes_while_spilled_records_are_written_does_not_wait_for_all_of_them(tmp_path):
    class Slow:
        is_away = True

        def write(self, records):
            if self.is_away:
                raise UnavailableError("away.")
            time.sleep(0.05)

    sink = Slow()
    recorder = Recorder(sink, clock=CLOCK, every_s=0.1, batch=10, spill=tmp_path / "spill.jsonl")
    recorder.start()
    for number in range(300):
        recorder.put(record(number))
    until(lambda: recorder.health().spilled == 300)
    sink.is_away = False
    until(lambda: recorder.health().is_writing)
    longest, _ = oldest_over(recorder, 1.5)
    recorder.close()
    assert longest < 0.6


@pytest.mark.slow
def test_killed_while_the_database_is_locked_it_loses_no_more_than_the_bound(tmp_path):
    with running(Running(tmp_path, files=FILES)) as process:
        answered: dict[str, float] = {}

        def ask():
            status, headers, _ = requests_raw.post(process.url, CHAT, BODY)
            assert status == 200
            answered[headers["x-stanchion-reference"].partition(".")[0]] = time.monotonic()

        ask()
        until(lambda: process.rows())
        spilled = lambda: list((tmp_path / "state").rglob(SPILL_FILE))  # noqa: E731
        with Locked(tmp_path / "state" / "stanchion" / "stanchion.db"):
            for _ in range(30):
                ask()
                threading.Event().wait(0.25)
            assert spilled()
            killed_at = time.monotonic()
            process.process.kill()
            process.process.wait(10)
        process.start()
        until(lambda: not spilled(), seconds=30)
        kept = {row["id"] for row in process.rows()}
    lost = [killed_at - at for name, at in answered.items() if name not in kept]
    assert all(ago < EVERY_S + EVERY_S + 0.5 for ago in lost), lost  # a turn, the wait for the lock, a margin
