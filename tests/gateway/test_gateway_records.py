"""Records: written behind in batches, never lost in silence, whatever the store does."""

import asyncio
import time
from datetime import datetime

import msgspec
import pytest

from stanchion.core.clock import SystemClock
from stanchion.core.components import ComponentSet
from stanchion.core.decision import Decision, Effect, Surface
from stanchion.core.errors import IntegrityError, UnavailableError, UsageError
from stanchion.core.interaction import FinishReason, Usage
from stanchion.gateway.ports import ApiSurface, ExchangeRecord, Outcome, RequestFacts, Stage, UpstreamTry
from stanchion.gateway.record import Recorder, StoreSink
from stanchion.store.database import open_database
from stanchion.store.exchanges import ExchangeRow, ExchangeStore
from stanchion.store.interactions import InteractionStore
from stanchion.store.records import InteractionRecord

CLOCK = SystemClock()


def record(number, **more):
    return ExchangeRecord(
        facts=RequestFacts(id=f"req_{number}", surface=ApiSurface.OPENAI_CHAT, model="m"),
        at=CLOCK.now().isoformat(),
        outcome=Outcome.ALLOWED,
        stage=Stage.DONE,
        status=200,
        **more,
    )


class Sink:
    """Keeps what it is given, unless it is told to fail."""

    def __init__(self):
        self.error = None
        self.batches = []

    @property
    def ids(self):
        return [one.facts.id for batch in self.batches for one in batch]

    def write(self, records):
        if self.error is not None:
            raise self.error
        self.batches.append(list(records))


def until(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def make(tmp_path):
    made = []

    def one(sink, **options):
        recorder = Recorder(
            sink, clock=CLOCK, **{"every_s": 0.02, "spill": tmp_path / "spill.jsonl", **options}
        )
        made.append(recorder)
        recorder.start()
        return recorder

    yield one
    for recorder in made:
        recorder.close()


def test_records_are_written_in_order_and_in_batches(make):
    sink = Sink()
    recorder = make(sink, batch=10)
    for number in range(95):
        recorder.put(record(number))
    until(lambda: len(sink.ids) == 95)
    assert sink.ids == [f"req_{n}" for n in range(95)]
    assert max(map(len, sink.batches)) <= 10
    health = recorder.health()
    assert (health.is_writing, health.waiting, health.written, health.lost) == (True, 0, 95, 0)


def test_batches_are_of_one_size_and_what_comes_meanwhile_waits_for_its_turn(make):
    class Busy(Sink):
        def write(self, records):
            super().write(records)
            if len(self.batches) == 1:
                recorder.put(record(12))  # one more while the first are being written

    sink = Busy()
    recorder = Recorder(sink, clock=CLOCK, every_s=60, batch=10)
    for number in range(12):
        recorder.put(record(number))
    recorder.start()
    until(lambda: recorder.health().written == 12)
    assert (list(map(len, sink.batches)), recorder.health().waiting) == ([6, 6], 1)
    recorder.close()
    assert sink.ids == [f"req_{n}" for n in range(13)]
    assert recorder.health().waiting == 0


def test_a_store_that_is_away_loses_nothing_that_fits(make):
    sink = Sink()
    sink.error = UnavailableError("locked.")
    recorder = make(sink, most_waiting=100)
    for number in range(250):
        recorder.put(record(number))
    until(lambda: recorder.health().spilled)
    assert recorder.health().trouble == "locked."
    assert recorder.health().lost == 0
    sink.error = None
    until(lambda: len(set(sink.ids)) == 250)
    until(lambda: recorder.health().is_writing)


def test_what_fits_nowhere_is_counted(make):
    sink = Sink()
    sink.error = UnavailableError("full.")
    recorder = make(sink, most_waiting=100, spill_bytes=2000)
    for number in range(300):
        recorder.put(record(number))
    until(lambda: recorder.health().lost)
    health = recorder.health()
    assert health.waiting + health.spilled + health.lost == 300


def test_what_waits_at_the_end_is_spilled_and_written_by_the_next(make, tmp_path):
    sink = Sink()
    sink.error = UnavailableError("away.")
    recorder = make(sink)
    for number in range(20):
        recorder.put(record(number))
    recorder.close()
    assert recorder.health().spilled == 20
    spill = tmp_path / "spill.jsonl"
    spill.write_bytes(spill.read_bytes() + b'{"cut off')
    after = Sink()
    again = make(after)
    until(lambda: len(after.ids) == 20)
    until(lambda: not (tmp_path / "spill.jsonl").exists())
    assert again.health().lost == 1


def test_one_record_that_cannot_be_said_keeps_no_other_out(make):
    class Picky(Sink):
        def write(self, records):
            if any(one.facts.id == "req_3" for one in records):
                raise ValueError("no")
            super().write(records)

    sink = Picky()
    recorder = make(sink)
    for number in range(6):
        recorder.put(record(number))
    until(lambda: len(sink.ids) == 5)
    until(lambda: recorder.health().lost == 1)


async def test_a_record_that_comes_first_is_there_when_it_returns(make):
    sink = Sink()
    recorder = make(sink, every_s=30)
    await recorder.write_first(record(1))
    assert sink.ids == ["req_1"]
    sink.error = UnavailableError("away.")
    with pytest.raises(UnavailableError):
        await recorder.write_first(record(2))


async def test_the_event_loop_never_waits_for_the_store(make):
    class Slow(Sink):
        def write(self, records):
            time.sleep(0.3)
            super().write(records)

    recorder = make(Slow())
    longest = 0.0
    for number in range(50):
        began = time.monotonic()
        recorder.put(record(number))
        await asyncio.sleep(0.002)
        longest = max(longest, time.monotonic() - began)
    assert longest < 0.25


def test_a_record_is_a_row_of_both_tables(tmp_path):
    with open_database(tmp_path / "records.db") as database:
        interactions, exchanges = InteractionStore(database), ExchangeStore(database)
        sink = StoreSink(interactions, exchanges)
        tried = record(1, tries=(), error="x", unknown_events={"a": 2}, manifest={"did_not_run": 1})
        sink.write([tried])
        sink.write([tried])
        row = exchanges.get("req_1")
        assert row is not None
        assert (row.outcome, row.error, row.did_not_run) == ("allowed", "x", 1)
        assert msgspec.json.decode(row.detail)["unknown_events"] == {"a": 2}
        assert exchanges.counts() == {"allowed": 1}
        assert [one.id for one in exchanges.latest()] == ["req_1"]
        assert interactions.get("req_1") is None, "nothing was decided and nobody was asked"


def whole_record():
    """A record with a value in every field that a row keeps."""
    facts = RequestFacts(
        id="req_1",
        surface=ApiSurface.ANTHROPIC_MESSAGES,
        is_stream=True,
        feature="support",
        environment="prod",
        key_id="key_1",
        model="m",
        provider="p",
        prompt="voice@v3",
        guard_version="sha256:aa",
        trace_id="ab" * 16,
    )
    return ExchangeRecord(
        facts=facts,
        at="2026-03-01T10:00:00.000007+00:00",
        outcome=Outcome.REDACTED,
        stage=Stage.OUTPUT,
        status=201,
        reference="req_1.2",
        is_gated=True,
        ungated="warn",
        flags="flags_3",
        manifest={"expected": 4, "did_not_run": 3},
        guarantee="no-leak",
        guard_state="protecting",
        total_ms=5.5,
        guard_ms=1.23456,
        upstream_ms=2.5,
        first_byte_ms=1.5,
        tries=(UpstreamTry(provider="p", model="m", status="ok", latency_ms=2.0),),
        variants={"e": "v"},
        switch_version=9,
        switch_id="s",
        unknown_events={"k": 2},
        error="e",
    )


def test_every_column_of_a_row_holds_what_the_record_says(tmp_path):
    with open_database(tmp_path / "records.db") as database:
        exchanges = ExchangeStore(database)
        StoreSink(InteractionStore(database), exchanges).write([whole_record()])
        row = exchanges.get("req_1")
        seen = InteractionStore(database).get("req_1")
    assert row is not None
    assert msgspec.structs.replace(row, detail="") == ExchangeRow(
        id="req_1",
        at_us=1_772_359_200_000_007,
        surface="anthropic.messages",
        outcome="redacted",
        stage="output",
        feature="support",
        environment="prod",
        key_id="key_1",
        model="m",
        provider="p",
        status=201,
        is_stream=True,
        did_not_run=3,
        total_ms=5.5,
        upstream_ms=2.5,
        first_byte_ms=1.5,
        guard_state="protecting",
        guarantee="no-leak",
        switch_id="s",
        error="e",
        detail="",
    )
    assert row.is_stream is True
    detail = msgspec.json.decode(row.detail)
    assert list(detail) == sorted(detail)
    assert detail == {
        "flags": "flags_3",
        "guard_ms": 1.235,
        "guard_version": "sha256:aa",
        "is_gated": True,
        "manifest": {"expected": 4, "did_not_run": 3},
        "prompt": "voice@v3",
        "reference": "req_1.2",
        "switch_version": 9,
        "trace_id": "ab" * 16,
        "tries": [{"provider": "p", "model": "m", "status": "ok", "latency_ms": 2.0}],
        "unknown_events": {"k": 2},
        "ungated": "warn",
        "variants": {"e": "v"},
    }
    assert seen is not None
    assert seen.labels == {"surface": "anthropic.messages", "outcome": "redacted"}


def test_the_interaction_of_a_request_is_what_a_store_of_interactions_keeps(tmp_path):
    """The short way of the gateway and the one of `InteractionStore.insert` end in the same row."""
    decision = Decision(effect=Effect.ALLOW, surface=Surface.INPUT, elapsed_ms=0.5, policy_digest="sha256:aa")
    told = msgspec.structs.replace(
        whole_record(),
        decisions=(decision, msgspec.structs.replace(decision, effect=Effect.REDACT, is_protected=False)),
        components=ComponentSet(model="sha256:mm", policy="sha256:aa"),
        finish_reason=FinishReason.STOP,
        usage=Usage(input_tokens=3, output_tokens=4, cached_input_tokens=1, cost_usd=0.5),
    )
    facts = told.facts
    same = InteractionRecord(
        id="req_2",
        at=datetime.fromisoformat(told.at),
        environment=facts.environment,
        feature=facts.feature,
        model=facts.model,
        components=told.components,
        decisions=told.decisions,
        finish_reason=told.finish_reason,
        usage=told.usage,
        latency_ms=told.total_ms,
        labels={"surface": str(facts.surface), "outcome": str(told.outcome)},
    )
    with open_database(tmp_path / "records.db") as database:
        interactions = InteractionStore(database)
        StoreSink(interactions, ExchangeStore(database)).write([told])
        interactions.insert([same])
        with database.read() as connection:
            first, second = connection.exec_driver_sql("SELECT * FROM interactions ORDER BY id").all()
        assert first[1:] == second[1:]
        assert interactions.get("req_1") == msgspec.structs.replace(same, id="req_1")


@pytest.mark.parametrize(
    "fields",
    [{"session_id": "two words"}, {"tenant": "acme"}, {"id": "jane@example.com"}, {"feature": "a b"}],
)
def test_what_is_no_id_is_refused(tmp_path, fields):
    odd = msgspec.structs.replace(
        whole_record(), facts=msgspec.structs.replace(whole_record().facts, **fields)
    )
    with open_database(tmp_path / "records.db") as database:
        exchanges = ExchangeStore(database)
        with pytest.raises(UsageError):
            StoreSink(InteractionStore(database), exchanges).write([odd])
        assert exchanges.latest() == []


class Refusing(Sink):
    """A store whose rules some records break; a `damaged` one takes nothing."""

    def __init__(self, *refused, is_damaged=False):
        super().__init__()
        self.refused = set(refused)
        self.is_damaged = is_damaged

    def write(self, records):
        if self.is_damaged or any(one.facts.id in self.refused for one in records):
            raise IntegrityError("a rule was broken.")
        super().write(records)


class Odd(Sink):
    """A store that one record breaks in a way that nobody foresaw."""

    def write(self, records):
        if any(one.facts.id == "req_3" for one in records):
            raise OverflowError("Python int too large")
        super().write(records)


def test_a_record_that_breaks_the_store_is_put_aside_too(make, tmp_path):
    sink = Odd()
    recorder = make(sink)
    for number in range(6):
        recorder.put(record(number))
    until(lambda: len(sink.ids) == 5)
    until(lambda: recorder.health().lost == 1)
    assert b"req_3" in (tmp_path / "refused.spill.jsonl").read_bytes()


def test_a_record_that_the_store_refuses_is_put_aside(make, tmp_path):
    sink = Refusing("req_3")
    recorder = make(sink)
    for number in range(6):
        recorder.put(record(number))
    until(lambda: len(sink.ids) == 5)
    until(lambda: recorder.health().lost == 1)
    assert b"req_3" in (tmp_path / "refused.spill.jsonl").read_bytes()
    recorder.put(record(7))
    until(lambda: "req_7" in sink.ids)


def test_a_damaged_store_keeps_records_waiting(make):
    sink = Refusing(is_damaged=True)
    recorder = make(sink)
    for number in range(6):
        recorder.put(record(number))
    until(lambda: recorder.health().spilled == 6)
    assert recorder.health().lost == 0
    sink.is_damaged = False
    until(lambda: len(set(sink.ids)) == 6)


def test_while_the_store_is_away_records_are_on_disk_within_the_bound(make, tmp_path):
    sink = Sink()
    sink.error = UnavailableError("away.")
    recorder = make(sink, every_s=0.05)
    end = time.monotonic() + 1.5  # by then the pause between tries has grown far beyond the bound
    number, longest = 0, 0.0
    while time.monotonic() < end:
        recorder.put(record(number))
        number += 1
        time.sleep(0.01)
        longest = max(longest, recorder.health().oldest_s)
    assert longest < 0.5
    until(lambda: recorder.health().spilled == number)
    assert (tmp_path / "spill.jsonl").read_bytes().count(b"\n") == number


def test_half_a_line_spoils_no_other(make, tmp_path):
    spill = tmp_path / "spill.jsonl"
    spill.write_bytes(b'{"cut off')
    sink = Sink()
    sink.error = UnavailableError("away.")
    recorder = make(sink)
    recorder.put(record(1))
    until(lambda: recorder.health().spilled == 1)
    sink.error = None
    until(lambda: sink.ids == ["req_1"])
    until(lambda: recorder.health().lost == 1)


def test_a_disk_that_cannot_be_written_loses_nothing_that_fits_in_memory(make, tmp_path):
    sink = Sink()
    sink.error = UnavailableError("full.")
    recorder = make(sink, spill=tmp_path / "no-folder" / "spill.jsonl", most_waiting=100)
    (tmp_path / "no-folder").write_bytes(b"a file where a folder should be")
    for number in range(20):
        recorder.put(record(number))
    until(lambda: recorder.health().failures > 1)
    health = recorder.health()
    assert (health.waiting, health.spilled, health.lost) == (20, 0, 0)
    sink.error = None
    until(lambda: len(sink.ids) == 20)


def test_a_batch_that_does_not_fit_leaves_no_file_behind(make, tmp_path):
    sink = Sink()
    sink.error = UnavailableError("full.")
    recorder = make(sink, spill_bytes=10)
    recorder.put(record(1))
    until(lambda: recorder.health().failures > 1)
    assert (recorder.health().waiting, recorder.health().spilled) == (1, 0)
    assert not (tmp_path / "spill.jsonl").exists()
