from datetime import timedelta

import pytest
import sqlalchemy as sa

from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.store.holds import HoldScope, LegalHolds
from stanchion.store.identity import IdKeys
from stanchion.store.interactions import (
    Capture,
    InteractionQuery,
    InteractionStore,
    RedactedText,
    Tombstone,
)
from stanchion.store.records import InteractionRecord
from stanchion.store.retention import Retention, RetentionPolicy, RetentionResult, RetentionRule

KEYS = IdKeys(b"a secret of sixteen bytes or more")
ANN, BOB = KEYS.key("subject", "ann"), KEYS.key("subject", "bob")
EVERYTHING = InteractionQuery()
MARKER = "words-that-must-go"


@pytest.fixture
def store(database):
    return InteractionStore(database, capture=Capture.REDACTED)


@pytest.fixture
def retention(database, clock):
    return Retention(database, clock=clock, batch_size=3)


@pytest.fixture
def holds(database, clock, ids):
    return LegalHolds(database, clock=clock, ids=ids)


def add(store, clock, names, *, age_days=0.0, **fields):
    at = clock.now() - timedelta(days=age_days)
    records = [InteractionRecord(id=name, at=at, **fields) for name in names]
    texts = {name: RedactedText(parts=(MARKER,), redacted_by="sha256:aa") for name in names}
    store.insert(records, texts=texts)


def left(store):
    return sorted(record.id for record in store.stream(EVERYTHING))


def rules(*given, **rest):
    return RetentionPolicy(rules=tuple(given), **rest)


DAYS_30 = RetentionRule(keep_records_days=30)


def test_records_go_when_their_time_is_over_and_leave_tombstones(store, retention, clock, log):
    add(store, clock, [f"old_{n}" for n in range(7)], age_days=31)
    add(store, clock, ["new"], age_days=29)
    result = retention.apply(rules(DAYS_30), actor="nightly")
    assert result == RetentionResult(records=7, texts=7)
    assert left(store) == ["new"]
    tombstone = store.get("old_3")
    entries = {entry.sequence: entry for entry in log.entries(kind="retention.records_deleted")}
    assert isinstance(tombstone, Tombstone)
    assert (tombstone.reason, tombstone.erased_at) == ("age", clock.now())
    assert entries[tombstone.erased_by].payload["reason"] == "age"
    assert sum(entry.payload["count"] for entry in entries.values()) == 7
    assert {entry.actor for entry in entries.values()} == {"nightly"}
    assert store.text("old_3") is None
    assert log.verify().is_intact


def test_a_dry_run_counts_and_changes_nothing(store, retention, clock, log):
    add(store, clock, ["old_1", "old_2"], age_days=31, subject_key=ANN)
    log.append("support.ticket", {"n": 1}, subject_key=ANN)
    before = log.head()
    aged = retention.apply(rules(DAYS_30, keep_audit_payload_days=0), actor="me", dry_run=True)
    assert aged == RetentionResult(records=2, texts=2, is_dry_run=True)
    erased = retention.erase_subject(ANN, actor="me", request="req-1", dry_run=True)
    assert erased == RetentionResult(records=2, texts=2, payloads=1, is_dry_run=True)
    assert left(store) == ["old_1", "old_2"]
    assert log.head() == before


def test_the_rule_of_a_feature_wins_over_the_rule_for_all(store, retention, clock):
    add(store, clock, ["chat"], age_days=10, feature="chat")
    add(store, clock, ["search"], age_days=10, feature="search")
    add(store, clock, ["audit"], age_days=1000, feature="audit")
    policy = rules(
        RetentionRule(keep_records_days=5),
        RetentionRule(feature="search", keep_records_days=20),
        RetentionRule(feature="audit"),
    )
    assert retention.apply(policy, actor="me").records == 1
    assert left(store) == ["audit", "search"]


def test_texts_may_go_before_their_records(store, retention, clock, log):
    add(store, clock, [f"t_{n}" for n in range(5)], age_days=2)
    add(store, clock, ["fresh"], age_days=0.5)
    result = retention.apply(rules(RetentionRule(keep_records_days=30, keep_text_hours=24)), actor="me")
    assert result == RetentionResult(texts=5)
    assert store.text("t_1") is None
    assert store.text("fresh") is not None
    record = store.get("t_1")
    assert (record.is_replayable, record.replay_note) == (False, "its text was deleted by retention")
    assert [entry.payload["count"] for entry in log.entries(kind="retention.texts_deleted")] == [3, 2]


def test_an_erasure_takes_everything_about_one_person_and_keeps_the_chain(
    store, retention, clock, log, database
):
    add(store, clock, [f"ann_{n}" for n in range(4)], subject_key=ANN)
    add(store, clock, ["bob"], subject_key=BOB)
    about_ann = [log.append("support.ticket", {"n": n}, subject_key=ANN) for n in range(4)]
    about_bob = log.append("support.ticket", {"n": 9}, subject_key=BOB)
    result = retention.erase_subject(ANN, actor="dpo", request="req-7")
    assert result == RetentionResult(records=4, texts=4, payloads=4)
    assert left(store) == ["bob"]
    assert store.get("ann_0").reason == "erasure"
    entries = {entry.sequence: entry for entry in log.stream()}
    assert [entries[entry.sequence].payload for entry in about_ann] == [None] * 4
    assert entries[about_bob.sequence].payload == {"n": 9}
    erasing = log.entries(kind="retention.payloads_erased")
    assert [entry.payload["sequences"] for entry in erasing] == [[1, 2, 3], [4]]
    assert {(e.payload["request"], e.payload["subject_key"], e.actor) for e in erasing} == {
        ("req-7", ANN, "dpo")
    }
    found = log.verify(expected_head=about_bob.head)
    assert (found.is_intact, found.erased) == (True, 4)
    again = retention.erase_subject(ANN, actor="dpo", request="req-8")
    assert again == RetentionResult()


def test_an_erased_payload_may_not_be_undone_or_forged_unseen(retention, clock, log, database):
    log.append("support.ticket", {"n": 1}, subject_key=ANN)
    log.append("support.ticket", {"n": 2}, subject_key=BOB)
    retention.erase_subject(ANN, actor="dpo", request="req-1")
    with database.write() as connection:
        connection.execute(sa.text("INSERT INTO audit_erasures (sequence, erased_by) VALUES (2, 3)"))
        connection.execute(sa.text("DELETE FROM audit_payloads WHERE sequence = 2"))
    found = log.verify()
    assert found.broken.sequence == 2
    assert "entry 3 does not say that it was erased" in found.broken.reason


@pytest.mark.parametrize("payload", [{"sequences": [2]}, {"sequences": "2"}, {}])
def test_an_erasure_cannot_be_said_before_there_is_anything_to_erase(log, database, payload):
    log.append("retention.payloads_erased", payload)
    log.append("support.ticket", {"n": 1})
    with database.write() as connection:
        connection.execute(sa.text("INSERT INTO audit_erasures (sequence, erased_by) VALUES (2, 1)"))
        connection.execute(sa.text("DELETE FROM audit_payloads WHERE sequence = 2"))
    assert log.verify().broken.sequence == 2


def test_the_record_of_erasures_is_never_erased(retention, clock, log):
    log.append("support.ticket", {"n": 1}, subject_key=ANN)
    retention.erase_subject(ANN, actor="dpo", request="req-1")
    clock.advance(3600)
    log.append("other.entry", {})
    clock.advance(86_401)
    result = retention.apply(rules(keep_audit_payload_days=1), actor="nightly")
    assert result.payloads == 1
    kinds = {entry.kind for entry in log.stream() if entry.payload is None}
    assert kinds == {"support.ticket", "other.entry"}
    assert log.verify().is_intact


@pytest.mark.parametrize(
    ("scope", "value"),
    [
        (HoldScope.EVERYTHING, ""),
        (HoldScope.FEATURE, "support"),
        (HoldScope.TENANT, KEYS.key("tenant", "acme")),
        (HoldScope.SUBJECT, ANN),
        (HoldScope.SESSION, "s-1"),
        (HoldScope.INTERACTION, "held"),
    ],
)
def test_a_legal_hold_stops_every_deletion_until_it_is_released(
    store, retention, holds, clock, log, scope, value
):
    fields = {"feature": "support", "tenant_key": KEYS.key("tenant", "acme"), "session_id": "s-1"}
    add(store, clock, ["held"], age_days=99, subject_key=ANN, **fields)
    log.append("support.ticket", {"n": 1}, subject_key=ANN)
    hold = holds.place(scope, value, actor="legal", matter="case-1")
    policy = rules(RetentionRule(keep_records_days=30, keep_text_hours=1))
    assert retention.apply(policy, actor="me") == RetentionResult(held_records=1)
    erased = retention.erase_subject(ANN, actor="dpo", request="req-1")
    assert erased == RetentionResult(held_records=1, held_payloads=1)
    assert left(store) == ["held"]
    assert store.text("held") is not None
    holds.release(hold.id, actor="legal")
    assert holds.in_force() == []
    assert retention.erase_subject(ANN, actor="dpo", request="req-2") == RetentionResult(
        records=1, texts=1, payloads=1
    )
    assert log.verify().is_intact


def test_a_hold_on_one_keeps_nothing_of_another(store, retention, holds, clock):
    add(store, clock, ["a"], age_days=99, subject_key=ANN)
    add(store, clock, ["b"], age_days=99, subject_key=BOB)
    holds.place(HoldScope.SUBJECT, ANN, actor="legal", matter="case-1")
    result = retention.apply(rules(DAYS_30), actor="me")
    assert result == RetentionResult(records=1, texts=1, held_records=1)
    assert left(store) == ["a"]


def test_holds_are_listed_and_audited(holds, log):
    first = holds.place(HoldScope.FEATURE, "support", actor="legal", matter="case-1")
    second = holds.place(HoldScope.SUBJECT, ANN, actor="legal", matter="case-2")
    assert holds.in_force() == [first, second]
    released = holds.release(first.id, actor="counsel")
    assert released.released_at is not None
    assert holds.in_force() == [second]
    assert [(e.kind, e.actor, e.payload["hold"]) for e in log.stream()] == [
        ("retention.hold_placed", "legal", first.id),
        ("retention.hold_placed", "legal", second.id),
        ("retention.hold_released", "counsel", first.id),
    ]
    with pytest.raises(UnknownNameError, match="legal hold in force"):
        holds.release(first.id, actor="counsel")


@pytest.mark.parametrize(
    ("scope", "value", "words"),
    [
        (HoldScope.EVERYTHING, "x", "takes no value"),
        (HoldScope.FEATURE, "", "takes a value"),
        (HoldScope.SUBJECT, "ann@example.com", "not a keyed id"),
        (HoldScope.SESSION, "two words", "form of an id"),
    ],
)
def test_a_hold_that_means_nothing_is_refused(holds, scope, value, words):
    with pytest.raises(UsageError, match=words):
        holds.place(scope, value, actor="legal", matter="case-1")
    assert holds.in_force() == []


def test_a_crash_between_batches_leaves_no_deletion_without_its_entry(
    store, retention, clock, log, monkeypatch
):
    add(store, clock, [f"old_{n}" for n in range(8)], age_days=31)
    moments = iter(range(5))

    def now():
        if next(moments, None) is None:
            raise ConnectionError
        return clock.__class__.now(clock)

    monkeypatch.setattr(retention._clock, "now", now)
    with pytest.raises(ConnectionError):
        retention.apply(rules(DAYS_30), actor="me")
    monkeypatch.undo()
    gone = 8 - len(left(store))
    assert 0 < gone < 8
    assert sum(entry.payload["count"] for entry in log.entries(kind="retention.records_deleted")) == gone
    retention.apply(rules(DAYS_30), actor="me")
    assert left(store) == []
    assert log.verify().is_intact


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # PostgreSQL has its own vacuum
def test_deleted_words_leave_the_files_of_sqlite(store, retention, clock, tmp_path):
    add(store, clock, [f"old_{n}" for n in range(50)], age_days=31)
    files = list(tmp_path.glob("records.db*"))
    assert any(MARKER.encode() in file.read_bytes() for file in files)
    retention.apply(rules(DAYS_30), actor="me")
    assert not [file for file in tmp_path.glob("records.db*") if MARKER.encode() in file.read_bytes()]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rules(DAYS_30, DAYS_30), "same feature"),
        (lambda: rules(RetentionRule(keep_records_days=-1)), "cannot be -1"),
        (lambda: rules(keep_audit_payload_days=float("nan")), "cannot be nan"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(make, words):
    with pytest.raises(UsageError, match=words):
        make()


@pytest.mark.parametrize(
    ("subject", "request_id", "words"),
    [
        ("", "r", "needs the keyed id"),
        ("ann@example.com", "r", "not a keyed id"),
        (ANN, "two words", "form of an id"),
    ],
)
def test_an_erasure_that_means_nothing_is_refused(retention, subject, request_id, words):
    with pytest.raises(UsageError, match=words):
        retention.erase_subject(subject, actor="dpo", request=request_id)
