"""Decisions as the store keeps them: all of them comes back but the words."""

from datetime import UTC, datetime

import msgspec
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from stanchion.core.components import ComponentSet
from stanchion.core.decision import CheckRecord, CheckStatus, Decision, Effect, Mode, OnFailure, Surface
from stanchion.core.finding import Finding, Location, Severity
from stanchion.store import migrate
from stanchion.store.database import open_database
from stanchion.store.interactions import InteractionQuery, InteractionStore
from stanchion.store.kept_decisions import kept, read
from stanchion.store.records import InteractionRecord, without_words

POLICY = "sha256:aa"
NAMES = st.text("abc.1", max_size=8)
WORDS = st.sampled_from(["", "call me at 555-0100"])
TIMES = st.floats(0, 1e6)

LOCATIONS = st.builds(
    Location,
    start=st.integers(0, 9),
    end=st.integers(9, 99),
    field=st.sampled_from(["", "a[0].b", "Jane D."]),
)
FINDINGS = st.builds(
    Finding,
    detector=NAMES,
    version=NAMES,
    category=st.sampled_from(["pii.email", "injection"]),
    score=st.floats(0, 1),
    location=LOCATIONS,
    severity=st.sampled_from(Severity),
    rule=NAMES,
    reason=WORDS,
)
CHECKS = st.builds(
    CheckRecord,
    detector=NAMES,
    version=NAMES,
    surface=st.sampled_from(Surface),
    status=st.sampled_from(CheckStatus),
    elapsed_ms=TIMES,
    findings=st.integers(0, 3),
    on_failure=st.sampled_from(OnFailure),
    reason=WORDS,
)
DECISIONS = st.builds(
    Decision,
    effect=st.sampled_from(Effect),
    surface=st.sampled_from(Surface),
    mode=st.sampled_from(Mode),
    rule_ids=st.lists(NAMES, max_size=2).map(tuple),
    findings=st.lists(FINDINGS, max_size=2).map(tuple),
    checks=st.lists(CHECKS, max_size=3).map(tuple),
    policy_digest=st.sampled_from(["", POLICY, "sha256:bb"]),
    reason=WORDS,
    reference=NAMES,
    elapsed_ms=TIMES,
    is_protected=st.booleans(),
    outcome=st.none() | st.sampled_from(OnFailure),
    shadow_effect=st.sampled_from(Effect),
    shadow_rule_ids=st.lists(NAMES, max_size=2).map(tuple),
)


START = datetime(2026, 3, 1, tzinfo=UTC)
CHECK = CheckRecord(
    detector="pii",
    version="2",
    surface=Surface.INPUT,
    status=CheckStatus.TIMED_OUT,
    elapsed_ms=1.5,
    findings=2,
    on_failure=OnFailure.OPEN,
    reason="words",
)
FULL = Decision(
    effect=Effect.REDACT,
    surface=Surface.OUTPUT,
    mode=Mode.SHADOW,
    rule_ids=("r",),
    findings=(
        Finding(
            detector="pii", version="2", category="pii.email", score=0.5, location=Location(start=1, end=2)
        ),
    ),
    checks=(CHECK,),
    policy_digest="sha256:bb",
    reason="words",
    reference="req_1.2",
    elapsed_ms=2.5,
    is_protected=False,
    outcome=OnFailure.DEGRADE,
    shadow_effect=Effect.BLOCK,
    shadow_rule_ids=("s",),
)


def test_no_field_is_forgotten():
    for whole in (FULL, CHECK):
        for field in msgspec.structs.fields(whole):
            default = () if field.default_factory is tuple else field.default
            assert getattr(whole, field.name) != default, f"{field.name} has no value of its own here"
    assert read(kept((FULL,), policy=POLICY).text, policy=POLICY) == (without_words(FULL),)


@given(st.lists(DECISIONS, max_size=4).map(tuple), st.sampled_from(["", POLICY]))
def test_decisions_come_back_without_their_words(decisions, policy):
    summary = kept(decisions, policy=policy)
    assert read(summary.text, policy=policy) == tuple(without_words(one) for one in decisions)
    assert "555-0100" not in summary.text
    assert "Jane" not in summary.text


@given(st.lists(DECISIONS, max_size=4).map(tuple))
def test_what_columns_say_of_them_is_what_the_record_says(decisions):
    summary = kept(decisions, policy=POLICY)
    record = InteractionRecord(id="i", at=START, decisions=decisions)
    assert summary.effect == record.effect
    assert bool(summary.is_protected) == record.is_protected
    assert summary.guard_ms == record.guard_ms
    assert msgspec.json.decode(summary.categories) == record.categories
    assert summary.findings == sum(record.categories.values())


def test_rows_of_before_are_read_and_found_after_the_migration(database_url, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "newest_version", lambda: "0005")
        open_database(database_url).close()
    set_ = ComponentSet(policy=POLICY)
    old = InteractionRecord(
        id="old", at=START, session_id="s-1", components=set_, decisions=(without_words(FULL),)
    )
    text = msgspec.json.encode(old.decisions, order="sorted").decode()
    with open_database(database_url) as database:
        store = InteractionStore(database)
        store.insert([old, msgspec.structs.replace(old, id="new")])
        with database.write() as connection:
            connection.execute(
                sa.text("UPDATE interactions SET decisions = :text WHERE id = 'old'"), {"text": text}
            )
        assert store.get("old") == old
        found = store.find(InteractionQuery(session_id="s-1"))
        assert [one.id for one in found] == ["new", "old"]
        assert found[0].decisions == found[1].decisions == (without_words(FULL),)


def test_the_indexes_without_usual_values_serve(tmp_path):
    """SQLite says which index it takes."""
    from stanchion.store.exchanges import USUAL_OUTCOME
    from stanchion.store.interactions import conditions
    from stanchion.store.tables import exchanges, interactions, is_unusual

    queries = {
        "ix_interactions_session": sa.select(interactions).where(
            *conditions(InteractionQuery(session_id="s-1"))
        ),
        "ix_interactions_subject": sa.select(interactions).where(
            *conditions(InteractionQuery(subject_key="subject_" + "0" * 32))
        ),
        "ix_exchanges_outcome": sa.select(exchanges).where(
            is_unusual(exchanges.c.outcome, "blocked", usual=USUAL_OUTCOME)
        ),
    }
    with open_database(tmp_path / "records.db") as database, database.read() as connection:
        for name, query in queries.items():
            made = query.compile(connection.engine, compile_kwargs={"literal_binds": True})
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {made}").all()
            assert any(name in row.detail for row in plan), plan
