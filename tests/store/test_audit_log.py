import tracemalloc
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from writer_process import race

from stanchion.core.clock import ManualClock
from stanchion.core.errors import IntegrityError, UsageError
from stanchion.store.audit_chain import GENESIS, Head, NewEntry, entry_digest, payload_digest
from stanchion.store.audit_log import AuditLog
from stanchion.store.database import open_database

TABLES = ("audit_entries", "audit_payloads", "audit_erasures")


def fill(log, count=6):
    return log.append_all([NewEntry(kind="test.entry", payload={"n": n}) for n in range(1, count + 1)])


def tamper(database, *statements):
    """What the owner of a database can do: take the fence away, then change what he likes."""
    with database.write() as connection:
        if database.dialect == "sqlite":
            names = connection.execute(sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
            for name in list(names.scalars()):
                connection.execute(sa.text(f"DROP TRIGGER {name}"))
            connection.execute(sa.text("PRAGMA defer_foreign_keys = ON"))
        else:
            for table in TABLES:
                connection.execute(sa.text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_an_empty_log_is_intact(log):
    found = log.verify()
    assert found.is_intact
    assert (found.entries, found.head) == (0, Head(0, GENESIS))


def test_entries_come_back_as_they_were_written(log, clock):
    payload = {"verdict": "PASS", "n": 300, "rate": 0.01, "name": "é\0"}
    first = log.append("gate.verdict", payload, actor="ann")
    clock.advance(1.5)
    second = log.append("gate.verdict", {})
    assert log.entries() == [first, second]
    assert (first.sequence, first.previous, second.previous) == (1, GENESIS, first.digest)
    assert first.at == datetime(2026, 1, 1, tzinfo=UTC)
    assert second.at == datetime(2026, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert first.payload == payload
    assert log.head() == second.head
    assert log.verify().is_intact


def test_the_digest_is_what_the_documentation_says_it_is(log, database):
    entry = log.append("test.entry", {"b": 1, "a": [True, None]}, actor="ann")
    with database.read() as connection:
        salt, text = connection.execute(sa.text("SELECT salt, payload FROM audit_payloads")).one()
    assert text == '{"a":[true,null],"b":1}'
    assert entry.payload_digest == payload_digest(salt, text)
    assert entry.digest == entry_digest(
        sequence=1,
        at_us=1_767_225_600_000_000,
        kind="test.entry",
        actor="ann",
        payload_digest=entry.payload_digest,
        previous=GENESIS,
    )


def test_a_page_and_a_kind_can_be_read_alone(log):
    fill(log, 5)
    log.append("other.kind", {"x": 1})
    assert [entry.sequence for entry in log.entries(after=2, limit=2)] == [3, 4]
    assert [entry.sequence for entry in log.entries(kind="other.kind")] == [6]
    assert [entry.sequence for entry in log.stream()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "change", ["UPDATE {0} SET sequence = sequence + 100", "DELETE FROM {0}", "TRUNCATE {0} CASCADE"]
)
def test_the_database_itself_refuses_to_change_what_is_written(log, database, table, change):
    if change.startswith("TRUNCATE") and database.dialect == "sqlite":
        change = "INSERT OR REPLACE INTO {0} SELECT * FROM {0}"
    entries = fill(log, 2)
    if table == "audit_erasures":
        with database.write() as connection:
            connection.execute(sa.text("INSERT INTO audit_erasures (sequence, erased_by) VALUES (1, 2)"))
    with pytest.raises(IntegrityError, match="append-only"), database.write() as connection:
        connection.execute(sa.text(change.format(table)))
    assert log.head() == entries[-1].head


ATTACKS = {
    "an edited kind": (["UPDATE audit_entries SET kind = 'x' WHERE sequence = 3"], 3, "was changed"),
    "an edited actor": (["UPDATE audit_entries SET actor = 'x' WHERE sequence = 3"], 3, "was changed"),
    "an edited time": (["UPDATE audit_entries SET at_us = at_us - 1 WHERE sequence = 3"], 3, "was changed"),
    "an edited payload": (
        ["UPDATE audit_payloads SET payload = '{\"n\":9}' WHERE sequence = 3"],
        3,
        "payload was changed",
    ),
    "a removed payload": (["DELETE FROM audit_payloads WHERE sequence = 3"], 3, "removed without an erasure"),
    "a removed payload with a false erasure": (
        [
            "DELETE FROM audit_payloads WHERE sequence = 3",
            "INSERT INTO audit_erasures (sequence, erased_by) VALUES (3, 5)",
        ],
        3,
        "entry 5 does not say that it was erased",
    ),
    "a removed entry": (
        ["DELETE FROM audit_payloads WHERE sequence = 3", "DELETE FROM audit_entries WHERE sequence = 3"],
        3,
        "is missing: the next entry is number 4",
    ),
    "a removed first entry": (
        ["DELETE FROM audit_payloads WHERE sequence = 1", "DELETE FROM audit_entries WHERE sequence = 1"],
        1,
        "missing: the next entry is number 2",
    ),
    "two entries in another order": (
        [
            "UPDATE audit_payloads SET sequence = -1 WHERE sequence = 3",
            "UPDATE audit_entries SET sequence = -1 WHERE sequence = 3",
            "UPDATE audit_entries SET sequence = 3 WHERE sequence = 4",
            "UPDATE audit_entries SET sequence = 4 WHERE sequence = -1",
            "UPDATE audit_payloads SET sequence = 3 WHERE sequence = 4",
            "UPDATE audit_payloads SET sequence = 4 WHERE sequence = -1",
        ],
        3,
        "does not follow",
    ),
    "a removed entry with the numbers closed up": (
        [
            "DELETE FROM audit_payloads WHERE sequence = 3",
            "DELETE FROM audit_entries WHERE sequence = 3",
            *(
                f"UPDATE {table} SET sequence = {n} WHERE sequence = {n + 1}"
                for n in (3, 4, 5)
                for table in ("audit_entries", "audit_payloads")
            ),
        ],
        3,
        "does not follow",
    ),
    "an entry before the first": (
        [
            "INSERT INTO audit_entries SELECT -7, at_us, kind, actor, payload_digest, previous, 'x' "
            "FROM audit_entries WHERE sequence = 1"
        ],
        1,
        "number -7",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_verify_names_the_first_entry_that_an_attack_broke(log, database, attack):
    statements, sequence, words = ATTACKS[attack]
    fill(log)
    tamper(database, *statements)
    found = log.verify()
    assert not found.is_intact
    assert found.broken.sequence == sequence
    assert words in found.broken.reason
    assert found.entries == sequence - 1


def test_an_entry_forged_with_a_right_digest_breaks_the_chain_after_it(log, database):
    entries = fill(log)
    old = entries[2]
    forged = entry_digest(
        sequence=3,
        at_us=1_767_225_600_000_000,
        kind=old.kind,
        actor="mallory",
        payload_digest=old.payload_digest,
        previous=old.previous,
    )
    tamper(database, f"UPDATE audit_entries SET actor = 'mallory', digest = '{forged}' WHERE sequence = 3")
    found = log.verify()
    assert found.broken.sequence == 4
    assert "does not follow" in found.broken.reason


def cut(database, after):
    tamper(
        database,
        f"DELETE FROM audit_payloads WHERE sequence > {after}",
        f"DELETE FROM audit_entries WHERE sequence > {after}",
    )


def test_a_cut_at_the_end_shows_against_a_head_kept_elsewhere(log, database):
    head = fill(log)[-1].head
    cut(database, 4)
    assert log.verify().is_intact  # the chain alone cannot tell
    found = log.verify(expected_head=head)
    assert found.broken.sequence == 5
    assert "known to reach entry 6" in found.broken.reason


def test_a_log_written_anew_shows_against_a_head_kept_elsewhere(log, database):
    head = fill(log)[-1].head
    cut(database, 0)
    fill(log, 8)
    assert log.verify().is_intact
    found = log.verify(expected_head=head)
    assert found.broken.sequence == 6
    assert "written anew" in found.broken.reason


def test_an_older_head_is_met_by_a_log_that_grew(log):
    head = fill(log)[-1].head
    fill(log)
    assert log.verify(expected_head=head).is_intact
    assert log.verify(expected_head=Head(0, GENESIS)).is_intact


def test_a_head_is_printed_and_read_back(log):
    head = fill(log, 1)[0].head
    assert Head.parse(str(head)) == head
    for bad in ("", "1", "1:abc", "x:" + GENESIS, "1:" + GENESIS.upper(), "²:" + GENESIS):
        with pytest.raises(UsageError, match="is not a head"):
            Head.parse(bad)


def test_processes_that_append_at_once_make_one_chain_without_gaps(database_url):
    open_database(database_url).close()
    assert race(database_url, raced="append", processes=3, appends=20) == [0, 0, 0]
    with open_database(database_url) as database:
        log = AuditLog(database, clock=ManualClock())
        found = log.verify()
        assert (found.is_intact, found.entries) == (True, 60)
        entries = [entry.payload for entry in log.stream()]
    for worker in range(3):
        assert [entry["n"] for entry in entries if entry["worker"] == worker] == list(range(20))


NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
KEYS = st.text("abcé", max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(KEYS, JSON, max_size=4), max_size=4))
def test_any_json_payload_survives_and_verifies(log, payloads):
    before = log.head().sequence
    written = log.append_all([NewEntry(kind="test.entry", payload=payload) for payload in payloads])
    assert [entry.payload for entry in log.entries(after=before)] == payloads
    assert len(written) == len(payloads)
    assert log.verify().is_intact


@pytest.mark.parametrize("kind", ["", "Upper", "a..b", ".a", "a b", "a.", "ä", "a\n"])
def test_a_kind_is_dotted_lower_case_words(log, kind):
    with pytest.raises(UsageError, match="audit kind"):
        log.append(kind, {})
    assert log.head().sequence == 0


@pytest.mark.parametrize("actor", ["", "a\nb", "x" * 201])
def test_an_actor_is_a_printable_name(log, actor):
    with pytest.raises(UsageError, match="audit actor"):
        log.append("test.entry", {}, actor=actor)


def test_one_bad_entry_of_several_writes_none(log):
    with pytest.raises(UsageError, match="canonical JSON"):
        log.append_all(
            [NewEntry(kind="a.b", payload={}), NewEntry(kind="a.b", payload={"rate": float("nan")})]
        )
    assert log.head().sequence == 0


@pytest.mark.slow
def test_verification_of_a_long_log_is_flat_in_memory(log):
    def peak():
        tracemalloc.start()
        assert log.verify().is_intact
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    fill(log, 2000)
    peak()
    short = peak()
    for _ in range(4):
        fill(log, 2000)
    assert peak() < short * 1.5
