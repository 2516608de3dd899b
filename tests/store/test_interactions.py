from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from stanchion.core.components import ComponentSet
from stanchion.core.decision import CheckRecord, CheckStatus, Decision, Effect, Mode, Surface
from stanchion.core.errors import UnknownNameError, UsageError
from stanchion.core.finding import Finding, Location
from stanchion.core.interaction import FinishReason, Interaction, Reply, Usage, assistant, user
from stanchion.store.identity import IdKeys
from stanchion.store.interactions import Capture, InteractionQuery, InteractionStore, RedactedText
from stanchion.store.records import InteractionRecord, Traffic, record_of

START = datetime(2026, 3, 1, tzinfo=UTC)
KEYS = IdKeys(b"a secret of sixteen bytes or more")
SECRETS = ("jane.doe@example.com", "Jane Doe", "AKIAEXAMPLE", "call me at 555-0100")


def decision(effect=Effect.REDACT, **fields):
    finding = Finding(
        detector="pii",
        version="1",
        category="pii.email",
        score=0.9,
        location=Location(start=3, end=9, field="messages[0].parts[0]"),
        reason=SECRETS[0],
    )
    check = CheckRecord(
        detector="pii", version="1", surface=Surface.INPUT, status=CheckStatus.RAN, reason=SECRETS[1]
    )
    given = {"findings": (finding,), "checks": (check,), "reason": SECRETS[2], "elapsed_ms": 1.5}
    return Decision(effect=effect, surface=Surface.INPUT, rule_ids=("r1",), **(given | fields))


def record(number, **fields):
    given = {"feature": "support", "decisions": (decision(),), "at": START + timedelta(minutes=number)}
    return InteractionRecord(id=f"int_{number}", **(given | fields))


@pytest.fixture
def store(database):
    return InteractionStore(database)


def everything(database):
    """All that was written, as one text."""
    with database.read() as connection:
        names = sa.inspect(connection).get_table_names()
        return "\n".join(
            str(row) for name in names for row in connection.execute(sa.text(f"SELECT * FROM {name}"))
        )


def test_a_record_comes_back_as_it_was_written_without_its_words(store):
    full = record(
        1,
        environment="prod",
        traffic=Traffic.SENTINEL,
        session_id="s-1",
        tenant_key=KEYS.key("tenant", "acme"),
        subject_key=KEYS.key("subject", SECRETS[0]),
        model="vendor/model-1.5",
        components=ComponentSet(model="sha256:aa", policy="sha256:bb"),
        finish_reason=FinishReason.STOP,
        usage=Usage(input_tokens=10, output_tokens=20, cached_input_tokens=3, cost_usd=0.00125),
        latency_ms=812.5,
        labels={"locale": "de-AT"},
        decisions=(),
    )
    store.insert([full])
    assert store.get("int_1") == full
    assert store.get("int_2") is None


def test_reasons_and_chosen_field_names_are_dropped_on_the_way_in(store, database):
    odd = Finding(
        detector="pii",
        version="1",
        category="pii.email",
        score=1.0,
        location=Location(start=0, end=1, field=f"arguments.{SECRETS[3]}"),
    )
    store.insert([record(1, decisions=(decision(), decision(findings=(odd,))))])
    kept = store.get("int_1").decisions
    assert [found.location.field for d in kept for found in d.findings] == ["messages[0].parts[0]", ""]
    assert [found.reason for d in kept for found in d.findings] == ["", ""]
    assert kept[0].rule_ids == ("r1",)
    written = everything(database)
    assert not [secret for secret in SECRETS if secret in written]


def test_an_interaction_becomes_a_record_of_ids_and_counts_only(store, database):
    interaction = Interaction(
        id="int_9",
        at=START,
        environment="staging",
        feature="support",
        session_id=SECRETS[0],
        tenant=SECRETS[1],
        messages=(user(f"{SECRETS[1]}, {SECRETS[3]}"),),
        labels={"split": "beta", "note": SECRETS[1]},
        reply=Reply(
            message=assistant(SECRETS[2]),
            model="m-1",
            usage=Usage(input_tokens=5, output_tokens=7),
            latency_ms=30.0,
            decisions=(decision(), decision(Effect.BLOCK, mode=Mode.SHADOW)),
        ),
    )
    made = record_of(interaction, keys=KEYS, subject=SECRETS[0], label_names=["split"])
    store.insert([made])
    assert made.session_id == KEYS.key("session", SECRETS[0])
    assert made.tenant_key == KEYS.key("tenant", SECRETS[1])
    assert made.labels == {"split": "beta"}
    assert (made.effect, made.is_protected, made.guard_ms) == (Effect.REDACT, True, 3.0)
    assert made.categories == {"pii.email": 2}
    assert store.get("int_9") == made
    written = everything(database)
    assert not [secret for secret in SECRETS if secret in written]


def test_an_interaction_that_nobody_checked_is_unprotected(store):
    bare = Interaction(id="i", at=START, messages=(user("hi"),), reply=Reply(message=assistant("ho")))
    assert not record_of(bare, keys=KEYS).is_protected
    half = (decision(), decision(is_protected=False))
    assert not record(1, decisions=half).is_protected
    store.insert([record_of(bare, keys=KEYS)])
    assert store.counts(InteractionQuery(is_protected=False)) == {(): 1}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"subject_key": SECRETS[0]}, "subject_key is not a keyed id"),
        ({"tenant_key": "acme"}, "tenant_key is not a keyed id"),
        ({"session_id": SECRETS[0]}, "session_id does not have the form"),
        ({"feature": "two words"}, "feature does not have the form"),
        ({"labels": {"note": SECRETS[1]}}, "label note does not have the form"),
        ({"labels": {SECRETS[1]: "x"}}, "the name of a label"),
        ({"at": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001 - the point of the test
        ({"id": ""}, "needs an id"),
    ],
)
def test_a_record_takes_ids_only_and_does_not_repeat_what_it_refuses(fields, words):
    given = {"id": "int_1", "at": START} | fields
    with pytest.raises(UsageError, match=words) as caught:
        InteractionRecord(**given)
    assert not [secret for secret in SECRETS if secret in str(caught.value)]


def test_an_interaction_without_a_time_is_not_recorded():
    with pytest.raises(UsageError, match="has no time"):
        record_of(Interaction(id="i", messages=()), keys=KEYS)


def test_keyed_ids_are_stable_and_differ_by_kind_and_secret():
    assert KEYS.key("subject", "a") == IdKeys(b"a secret of sixteen bytes or more").key("subject", "a")
    others = {
        KEYS.key("tenant", "a"),
        KEYS.key("subject", "b"),
        IdKeys(b"another secret of bytes").key("subject", "a"),
    }
    assert KEYS.key("subject", "a") not in others
    assert len(others) == 3
    assert KEYS.key("subject", "") == ""
    assert "secret" not in repr(KEYS)
    with pytest.raises(UsageError, match="at least 16"):
        IdKeys(b"short")


def test_text_is_refused_by_a_store_that_does_not_capture(store, database):
    text = RedactedText(parts=("<NAME_1> wrote",), redacted_by="sha256:aa")
    with pytest.raises(UsageError, match="keeps no text"):
        store.insert([record(1)], texts={"int_1": text})
    assert store.get("int_1") is None
    assert "wrote" not in everything(database)


def test_redacted_text_is_kept_where_capture_says_so(database):
    store = InteractionStore(database, capture=Capture.REDACTED)
    text = RedactedText(parts=("<NAME_1> wrote", "the answer"), redacted_by="sha256:aa")
    store.insert([record(1), record(2)], texts={"int_1": text})
    assert store.text("int_1") == text
    assert store.text("int_2") is None


def test_a_text_needs_its_record_and_its_redactor(database):
    store = InteractionStore(database, capture=Capture.REDACTED)
    with pytest.raises(UsageError, match="no record of it"):
        store.insert([record(1)], texts={"int_2": RedactedText(parts=(), redacted_by="x")})
    with pytest.raises(UsageError, match="what redacted it"):
        store.insert([record(1)], texts={"int_1": RedactedText(parts=(), redacted_by="")})
    assert store.get("int_1") is None


def test_a_batch_that_is_sent_twice_is_stored_once(store):
    batch = [record(n) for n in range(5)]
    store.insert(batch)
    store.insert([*batch, record(5)])
    assert store.counts(InteractionQuery()) == {(): 6}
    store.insert([])


def test_records_are_found_by_time_and_feature(store):
    store.insert([record(n, feature="support" if n % 2 else "search") for n in range(10)])
    query = InteractionQuery(
        start=START + timedelta(minutes=2), end=START + timedelta(minutes=8), feature="support"
    )
    assert [r.id for r in store.find(query)] == ["int_3", "int_5", "int_7"]
    assert [r.id for r in store.find(query, limit=2)] == ["int_3", "int_5"]
    assert [r.id for r in store.find(query, after=record(3), limit=1)] == ["int_5"]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"environment": "prod"}, 1),
        ({"traffic": Traffic.DRILL}, 1),
        ({"session_id": "s-1"}, 1),
        ({"subject_key": KEYS.key("subject", "ann")}, 1),
        ({"tenant_key": KEYS.key("tenant", "acme")}, 1),
        ({"effect": "block"}, 1),
        ({"is_protected": False}, 1),
        ({"effect": "redact", "environment": "dev"}, 4),
        ({"feature": "absent"}, 0),
    ],
)
def test_every_field_of_a_query_counts(store, query, count):
    store.insert(
        [
            record(1, environment="prod"),
            record(2, traffic=Traffic.DRILL),
            record(3, session_id="s-1"),
            record(4, subject_key=KEYS.key("subject", "ann")),
            record(5, tenant_key=KEYS.key("tenant", "acme")),
            record(6, decisions=(decision(Effect.BLOCK),)),
            record(7, decisions=()),
        ]
    )
    assert store.counts(InteractionQuery(**query)).get((), 0) == count


def test_streaming_gives_every_record_once_though_times_are_equal(store):
    store.insert([record(n, at=START) for n in range(2100)])
    found = [r.id for r in store.stream(InteractionQuery(feature="support"))]
    assert len(found) == 2100
    assert set(found) == {f"int_{n}" for n in range(2100)}


def test_counts_are_grouped_by_the_columns_asked_for(store):
    blocked = (decision(Effect.BLOCK),)
    store.insert([record(1), record(2, decisions=blocked), record(3, decisions=blocked, feature="search")])
    assert store.counts(InteractionQuery(), by=["feature", "effect"]) == {
        ("search", "block"): 1,
        ("support", "block"): 1,
        ("support", "redact"): 1,
    }
    with pytest.raises(UnknownNameError, match="'effects'"):
        store.counts(InteractionQuery(), by=["effects"])


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100])
def test_many_records_come_back_in_any_number_and_one_that_is_there_stays(store, count):
    first = record(0, feature="first")
    store.insert([first])
    many = [record(number, latency_ms=float(number)) for number in range(count)]
    store.insert([*many, record(count - 1, feature="again")])
    found = store.find(InteractionQuery())
    assert [one.id for one in found] == [one.id for one in many]
    assert found[0].feature == "first"
    assert [one.latency_ms for one in found[1:]] == [one.latency_ms for one in many[1:]]
    assert {one.feature for one in found[1:]} <= {"support"}
