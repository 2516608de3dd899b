"""Faults of the guard, of observers and parts, and of the store."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import time
from contextlib import contextmanager

import msgspec
import pytest
import requests_raw
from chaos_fixtures import CHAT, body, in_front, tried, until
from gateway_faults import CARD, DEADLINE_S, delta, slow, whole

from stanchion.core.clock import SortableIds, SystemClock
from stanchion.core.decision import Effect, OnFailure, Surface
from stanchion.core.finding import Cost, Reach, ReachKind
from stanchion.gateway.gateway_file import FeatureModel
from stanchion.gateway.live import Parts
from stanchion.gateway.ports import Assignment
from stanchion.gateway.record import Recorder, StoreSink
from stanchion.guard.pipeline import Guard
from stanchion.guard.policy import Policy
from stanchion.guard.policy_model import DetectorSettings
from stanchion.guard.rules import Rule, Selector
from stanchion.store.database import open_database
from stanchion.store.exchanges import ExchangeStore
from stanchion.store.interactions import InteractionStore

# --- the guard ----------------------------------------------------------------------------------------------


class Broken:
    """A guard that fails, or hangs, at one of its two doors; everything else is the real one's."""

    def __init__(self, guard: Guard, *, at: str, hangs: bool) -> None:
        self._guard, self._at, self._hangs = guard, at, hangs

    def __getattr__(self, name):
        return getattr(self._guard, name)

    async def _fail(self):
        if self._hangs:
            await asyncio.sleep(60)
        raise RuntimeError(f"what the guard saw: {CARD}")

    async def aprepare(self, interaction, **more):
        if self._at == "input":
            await self._fail()
        return await self._guard.aprepare(interaction, **more)

    async def afinish(self, prepared, reply, **more):
        await self._fail()

    def stream(self, prepared, **more):
        return BrokenStream(self._guard.stream(prepared, **more), self._fail)


class BrokenStream:
    def __init__(self, stream, fail) -> None:
        self._stream, self._fail, self._count = stream, fail, 0

    def __getattr__(self, name):
        return getattr(self._stream, name)

    async def feed(self, event, *, is_last=False):
        self._count += 1
        if self._count >= 3:
            await self._fail()
        return await self._stream.feed(event, is_last=is_last)

    async def feed_all(self, events):
        for event in events:
            await self.feed(event)
        return ()

    feed_many = feed_batch = feed_all


@pytest.mark.parametrize(
    "id", ["guard-raises-input", "guard-raises-output", "guard-hangs-input", "guard-hangs-output"]
)
def test_a_guard_that_fails_lets_nothing_out(answering, guard, id, caplog):
    broken = Broken(guard, at=id.rpartition("-")[2], hangs="hangs" in id)
    answering.play = slow  # so that the events come one by one
    with in_front(answering, broken) as (served, records):
        tried(served, records, id)
    assert CARD not in caplog.text


class Own:
    """A detector that does what it is told."""

    id, version, categories = "own", "1", ("pii.card",)
    reach, cost = Reach(ReachKind.MESSAGE), Cost.MICROSECONDS

    def __init__(self, behave) -> None:
        self._behave = behave

    def detect(self, detector_input):
        self._behave()
        return []


def _raise():
    raise ValueError(f"what the detector saw: {CARD}")


@pytest.mark.parametrize(
    ("id", "behave"),
    [
        ("detector-raises", _raise),
        ("detector-hangs", lambda: time.sleep(1.0)),
        ("detector-slow", lambda: time.sleep(0.05)),
    ],
)
def test_a_detector_that_fails_stops_what_it_could_not_check(faulty, id, behave):
    async def answer(line):
        words = "You can return anything."
        if line.streams:
            await line.answer(delta(words) + delta(finish="stop") + b"data: [DONE]\n\n")
        else:
            await line.answer(whole(words))

    faulty.play = answer
    rule = Rule(
        id="cards",
        when=Selector(categories=("pii.*",), surfaces=(Surface.OUTPUT,)),
        effect=Effect.BLOCK,
    )
    settings = DetectorSettings(threshold=0.5, deadline_ms=300, fail=OnFailure.CLOSED)
    policy = Policy(name="own", detectors={"own": settings}, rules=(rule,))
    guard = Guard(policy, {"own": Own(behave)}, clock=SystemClock(), ids=SortableIds(SystemClock()))
    with in_front(faulty, guard) as (served, records):
        tried(served, records, id)
        states = {check.status.value for one in records.all[0].decisions for check in one.checks}
    assert states == {"detector-raises": {"errored"}, "detector-hangs": {"timed_out"}}.get(id, {"ran"})


# --- observers and parts ------------------------------------------------------------------------------------


class Raising:
    """An observer, a rollout and limits that fail whenever they are told of something."""

    def __init__(self) -> None:
        self.told = 0

    def _fail(self, *_, **__):
        self.told += 1
        raise RuntimeError(f"what it was told: {CARD}")

    started = finished = _fail

    def choose(self, facts):
        return Assignment()

    observe = _fail


class Reserving:
    def __init__(self, told: Raising) -> None:
        self._told = told

    async def reserve(self, facts, **amounts):
        return self

    async def settle(self, usage):
        self._told._fail()

    release = observe = settle


def test_an_observer_that_fails_harms_no_request(answering, guard):
    one = Raising()
    with in_front(answering, guard, observers=(one,)) as (served, records):
        tried(served, records, "observer-raises")
        assert one.told == 4
        assert served.gateway.swallowed_errors == 4


def test_a_part_that_cannot_take_the_result_harms_no_request(answering, guard, caplog):
    for id, make in (
        ("rollout-raises", lambda one: {"rollout": one}),
        ("limits-raise", lambda one: {"limits": Reserving(one)}),
    ):
        one = Raising()
        with in_front(answering, guard, parts=Parts(**make(one))) as (served, records):
            tried(served, records, id)
            assert one.told >= 2
            assert served.gateway.swallowed_errors >= 2
    assert CARD not in caplog.text


def test_a_provider_that_is_down(faulty, guard):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with in_front(faulty, guard, port=taken.getsockname()[1]) as (served, records):
            tried(served, records, "provider-down")


# --- the store ----------------------------------------------------------------------------------------------


@contextmanager
def recording(tmp_path, **options):
    with open_database(tmp_path / "records.db", lock_wait_s=0.1) as database:
        recorder = Recorder(
            StoreSink(InteractionStore(database), ExchangeStore(database)),
            clock=SystemClock(),
            every_s=0.05,
            spill=tmp_path / "spill.jsonl",
            **options,
        )
        recorder.start()
        try:
            yield recorder, database
        finally:
            recorder.close()


def rows(tmp_path):
    with sqlite3.connect(tmp_path / "records.db") as connection:
        found = connection.execute("select outcome from exchanges").fetchall()
    connection.close()
    return [row[0] for row in found]


@contextmanager
def locked(tmp_path):
    holder = sqlite3.connect(tmp_path / "records.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


def test_a_locked_store_costs_no_record(answering, guard, tmp_path):
    with (
        recording(tmp_path) as (recorder, _),
        in_front(answering, guard, recorder=recorder) as (served, records),
    ):
        with locked(tmp_path):
            tried(served, records, "store-locked")
            until(lambda: recorder.health().spilled == 2)
            health = recorder.health()
            assert (health.is_writing, health.lost) == (False, 0)
            assert CARD not in (tmp_path / "spill.jsonl").read_text()
        until(lambda: recorder.health().is_writing)
        until(lambda: len(rows(tmp_path)) == 2)
    assert rows(tmp_path) == ["redacted"] * 2


def test_a_full_store_costs_no_record(answering, guard, tmp_path):
    import sqlalchemy

    with recording(tmp_path) as (recorder, database):
        engine = database._engine
        pages = [1]

        @sqlalchemy.event.listens_for(engine, "checkout")
        def limit(connection, *_):
            connection.execute(f"PRAGMA max_page_count = {pages[0]}")

        with in_front(answering, guard, recorder=recorder) as (served, records):
            for _ in range(40):  # what room its pages have left
                recorder.put(_padded(records, served))
            tried(served, records, "store-full")
            until(lambda: not recorder.health().is_writing)
            assert "no space is left" in recorder.health().trouble
            pages[0] = 1_000_000
            until(lambda: recorder.health().is_writing)
            until(lambda: rows(tmp_path).count("redacted") >= 2)
        assert recorder.health().lost == 0
    assert len(rows(tmp_path)) == 43


def _padded(records, served):
    if not records.all:
        requests_raw.post(served.url, CHAT, body(stream=False))
    one = records.only()
    _padded.count = getattr(_padded, "count", 0) + 1
    facts = msgspec.structs.replace(one.facts, id=f"req_padded{_padded.count}")
    return msgspec.structs.replace(one, facts=facts, error="x" * 4000)


def test_where_the_record_comes_first_a_locked_store_means_no_answer(answering, guard, tmp_path):
    feature = FeatureModel(deadline_s=DEADLINE_S, records="first")
    with (
        recording(tmp_path) as (recorder, _),
        in_front(answering, guard, recorder=recorder, feature=feature) as (served, records),
    ):
        with locked(tmp_path):
            tried(served, records, "store-locked-first")
        until(lambda: len(rows(tmp_path)) == 2)
    assert rows(tmp_path) == ["internal_error"] * 2
