"""What is masked of a value, and that nothing else of it changes."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.guard.masked_view import Masker
from stanchion.guard.pipeline import Guard

KEY = "AKIA" + "QYLPMN5HHHFPZAM2"
CARD = "4111 1111 1111 1111"


@pytest.fixture(scope="module")
def masker():
    return Masker(Guard.load("scrub"))


def test_kind_and_length_stand_for_secrets_and_personal_data(masker):
    view = masker.mask({"note": f"card {CARD} and key {KEY}.", "amount": 900, "to": "jane@acme.org"})
    assert view.value == {
        "note": "card [CARD, 19 characters] and key [CLOUD, 20 characters].",
        "amount": 900,
        "to": "[EMAIL, 13 characters]",
    }
    assert view.masked == 3


def test_a_value_is_known_by_the_name_that_it_stands_under(masker):
    assert masker.mask({"password": "hunter2horse"}).value == {"password": "[PASSWORD, 12 characters]"}
    assert masker.mask({"title": "hunter2horse"}).value == {"title": "hunter2horse"}


def test_names_numbers_and_escaped_json_hide_nothing(masker):
    raw = json.dumps({"k": KEY}).replace("A", "\\u0041")
    assert json.loads(raw) == {"k": KEY}
    view = masker.mask({KEY: 1, "n": int(CARD.replace(" ", "")), "raw": raw, "list": [[KEY]]})
    assert view.value == {
        "[CLOUD, 20 characters]": 1,
        "n": "[CARD, 16 characters]",
        "raw": '{"k": "[CLOUD, 20 characters]"}',
        "list": [["[CLOUD, 20 characters]"]],
    }


def test_two_names_that_are_masked_alike_are_both_kept(masker):
    other = KEY[:-1] + "7"
    assert sorted(masker.mask({KEY: 1, other: 2}).value.values()) == [1, 2]


def test_what_is_too_much_or_too_deep_is_withheld(masker):
    view = masker.mask([f"word {n}" for n in range(2500)])
    assert view.value[0] == "word 0"
    assert view.value[-1] == "[withheld, 9 characters]"
    assert view.masked == 500
    deep = KEY
    for _ in range(200):
        deep = [deep]
    assert KEY not in msgspec.json.encode(masker.mask(deep).value).decode()


_LEAVES = (
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.sampled_from(["", "a", "yes", "Monday"])
)
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abc"), inner), max_leaves=12
)


@settings(max_examples=40, deadline=None)
@given(_VALUES)
def test_harmless_values_come_back_as_they_were(masker, value):
    view = masker.mask(value)
    assert (view.value, view.masked) == (value, 0)


@settings(max_examples=40, deadline=None)
@given(before=st.text(max_size=30), after=st.text(max_size=30), depth=st.integers(0, 5))
def test_a_secret_is_masked_wherever_it_stands(masker, before, after, depth):
    value = f"{before} {KEY} {after}"
    for n in range(depth):
        value = {"x": value} if n % 2 else [json.dumps(value)]
    assert KEY not in msgspec.json.encode(masker.mask(value).value).decode()
