"""Feedback joins its decision, enters the queue, and tells the client nothing."""

import asyncio

import msgspec
import pytest
from flow_fixtures import facts
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.clock import CountingIds, ManualClock
from stanchion.gateway.feedback import FeedbackDesk, FeedbackKind, FeedbackSection, FeedbackStatus
from stanchion.gateway.ports import Refused
from stanchion.store.database import open_database
from stanchion.store.exchanges import ExchangeRow, ExchangeStore


@pytest.fixture
def database(tmp_path):
    with open_database(tmp_path / "records.db") as opened:
        yield opened


def desk(database, clock=None, **fields) -> FeedbackDesk:
    section = FeedbackSection(**fields.pop("section", {}))
    return FeedbackDesk(section, database, clock=clock or ManualClock(), ids=CountingIds(), **fields)


def record(database, name: str, *, key_id: str = "k1") -> None:
    detail = '{"variants": {"new-prompt": "canary"}}'
    row = ExchangeRow(
        id=name,
        at_us=1,
        surface="openai.chat",
        outcome="blocked",
        stage="input",
        key_id=key_id,
        detail=detail,
    )
    ExchangeStore(database).insert([row])


def body(**fields) -> bytes:
    return msgspec.json.encode({"reference": "req_1", "kind": "wrongly_blocked", **fields})


async def test_feedback_joins_its_request_and_tells_the_rollout(database):
    told = []
    made = desk(database, on_bad=told.append, redact=lambda text: text.replace("4111", "[card]"))
    record(database, "req_1")
    receipt = await made.take(facts(), body(comment="my card 4111 was refused"))
    (report,) = made.queue()
    assert (report.id, report.interaction_id, report.kind) == (
        receipt.id,
        "req_1",
        FeedbackKind.WRONGLY_BLOCKED,
    )
    assert report.comment == "my card [card] was refused"
    assert told == [{"new-prompt": "canary"}]


async def test_a_reference_tells_nothing(database):
    """Known, unknown, and somebody else's: the same answer."""
    made = desk(database)
    record(database, "req_1")
    record(database, "req_2", key_id="other")
    answers = [await made.take(facts(), body(reference=name)) for name in ("req_1", "req_2", "req_3")]
    assert [answer.status for answer in answers] == ["received"] * 3
    assert [report.reference for report in made.queue()] == ["req_1"]
    assert len(made.queue(status=FeedbackStatus.UNMATCHED)) == 2


async def test_feedback_may_come_before_its_record_but_not_a_day(database):
    clock, told = ManualClock(), []
    made = desk(database, clock, on_bad=told.append)
    await made.take(facts(), body())
    await made.take(facts(), body(reference="never"))
    assert await made.tick() == 0
    record(database, "req_1")
    assert await made.tick() == 1
    assert told == [{"new-prompt": "canary"}]
    clock.advance(86_401)
    assert await made.tick() == 0
    assert made.queue(status=FeedbackStatus.UNMATCHED) == []
    assert [report.reference for report in made.queue(status=FeedbackStatus.DROPPED)] == ["never"]


async def test_comments_are_not_kept_without_a_redactor(database):
    await desk(database).take(facts(), body(comment="my name is Ann"))
    (report,) = desk(database).queue(status=FeedbackStatus.UNMATCHED)
    assert report.comment == ""


async def test_too_much_feedback_is_refused_by_key(database):
    made = desk(database, section={"per_minute": 2})
    for _ in range(2):
        await made.take(facts(), body())
    with pytest.raises(Refused) as caught:
        await made.take(facts(), body())
    assert (caught.value.status, caught.value.code) == (429, "feedback_limit")
    await made.take(facts(key_id="k2"), body())


@given(
    st.binary(max_size=200)
    | st.dictionaries(st.text(max_size=9), st.text(max_size=9)).map(msgspec.json.encode)
)
@settings(max_examples=100, deadline=None)
def test_any_other_body_is_refused_without_repeating_it(tmp_path_factory, data):
    made = FeedbackDesk(FeedbackSection(per_minute=10_000), None, clock=ManualClock(), ids=CountingIds())
    with pytest.raises(Refused) as caught:
        asyncio.run(made.take(facts(), data))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"kind": "fine"}, 400),
        ({"reference": ""}, 400),
        ({"reference": "a b"}, 400),
        ({"comment": "x" * 2001}, 400),
        ({"comment": "x" * 20_000}, 413),
        ({"more": 1}, 400),
    ],
)
async def test_what_does_not_fit_is_refused(database, fields, status):
    with pytest.raises(Refused) as caught:
        await desk(database).take(facts(), body(**fields))
    assert caught.value.status == status
