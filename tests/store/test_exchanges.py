"""Rows of how requests ended: written many at a time, read back as they were."""

import msgspec
import pytest

from stanchion.core.errors import IntegrityError
from stanchion.store.exchanges import ExchangeRow, ExchangeStore
from stanchion.store.tables import exchanges


def row(number, **more):
    return ExchangeRow(
        id=f"req_{number:03d}", at_us=number, surface="openai.chat", outcome="allowed", stage="done", **more
    )


def full(number):
    return row(
        number,
        feature="support",
        environment="prod",
        key_id="key_1",
        model="m",
        provider="p",
        status=200,
        is_stream=number % 2 == 0,
        did_not_run=3,
        total_ms=1.5,
        upstream_ms=1.25,
        first_byte_ms=None if number % 2 else 0.5,
        guard_state="protecting",
        guarantee="no-leak",
        switch_id="s",
        error="e",
        detail='{"tries":[]}',
    )


def test_the_fields_of_a_row_are_the_columns_in_their_order():
    assert ExchangeRow.__struct_fields__ == tuple(column.name for column in exchanges.columns)


@pytest.mark.parametrize("count", [1, 7, 8, 31, 33, 64, 127, 128, 129, 300])
def test_any_number_of_rows_comes_back_as_it_was_written(database, count):
    store = ExchangeStore(database)
    rows = [full(number) for number in range(count)]
    store.insert(rows)
    assert store.latest(limit=1000) == rows[::-1]
    assert store.get(rows[0].id) == rows[0]


def test_a_row_that_is_there_stays_and_keeps_no_other_out(database):
    store = ExchangeStore(database)
    store.insert([row(5, error="first")])
    store.insert([row(number) for number in range(40)])
    assert len(store.latest(limit=1000)) == 40
    found = store.get("req_005")
    assert found is not None
    assert found.error == "first"


def test_a_batch_that_breaks_a_rule_writes_nothing(database):
    store = ExchangeStore(database)
    broken = row(39, guarantee=None)
    with pytest.raises(IntegrityError, match="rule"):
        store.insert([*(row(number) for number in range(39)), broken])
    assert store.latest() == []
    store.insert([row(number) for number in range(40)])
    assert len(store.latest()) == 40


@pytest.mark.parametrize("features", [1, 2, 9, 200])
def test_rows_that_share_little_come_back_as_well(database, features):
    store = ExchangeStore(database)
    rows = [row(number, feature=f"f{number % features}", total_ms=number / 2) for number in range(400)]
    store.insert(rows)
    assert store.latest(limit=1000) == rows[::-1]


def test_the_newest_of_an_outcome_are_found(database):
    store = ExchangeStore(database)
    ended = ("allowed", "blocked", "allowed", "redacted")
    rows = [msgspec.structs.replace(row(number), outcome=ended[number % 4]) for number in range(40)]
    store.insert(rows)
    for outcome in set(ended):
        assert store.latest(outcome=outcome) == [one for one in rows[::-1] if one.outcome == outcome]
    assert store.counts() == {"allowed": 20, "blocked": 10, "redacted": 10}
