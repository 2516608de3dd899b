"""Canonical JSON is RFC 8785's, and a digest is the identity of a record."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.codec import (
    canonical_json,
    digest,
    digest_bytes,
    digest_set,
    digest_stream,
    digest_text,
    is_digest,
    short,
)
from stanchion.core.errors import UsageError

# RFC 8785, appendix B: the IEEE 754 bit patterns and how ECMAScript writes them.
PUBLISHED_NUMBERS = [
    (0.0, "0"),
    (-0.0, "0"),
    (5e-324, "5e-324"),
    (1.7976931348623157e308, "1.7976931348623157e+308"),
    (9007199254740992.0, "9007199254740992"),
    (295147905179352830000.0, "295147905179352830000"),
    (9.999999999999997e22, "9.999999999999997e+22"),
    (1e23, "1e+23"),
    (333333333.33333329, "333333333.3333333"),
    (0.000001, "0.000001"),
    (1e-7, "1e-7"),
]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-(2.0**52), 2.0**52)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(("number", "written"), PUBLISHED_NUMBERS)
def test_numbers_are_written_as_published(number: float, written: str) -> None:
    assert canonical_json(number).decode() == written


def test_keys_are_sorted_by_utf16_code_units() -> None:
    # RFC 8785, section 3.2.3: the order of the seven keys of its example.
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    ordered = list(json.loads(canonical_json(dict.fromkeys(keys, 0))))
    assert ordered == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@given(json_values)
@settings(deadline=None, max_examples=150)
def test_canonical_form_is_stable_and_loses_nothing(value: Any) -> None:
    once = canonical_json(value)
    assert json.loads(once) == value
    assert canonical_json(json.loads(once)) == once


# Integers beyond 2**53 - 1 have no canonical JSON, and a digest of their own: no other value has the same.
wide_values = st.recursive(
    st.integers(-(2**70), 2**70) | st.sampled_from([2**53, 2**53 + 1, "9007199254740992", "list", 0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@given(wide_values, wide_values)
def test_values_with_wide_integers_have_a_digest_of_their_own(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (one == other)


def test_a_wide_integer_is_neither_its_neighbour_nor_its_digits() -> None:
    values: list[Any] = [2**53, 2**53 + 1, str(2**53), [str(2**53)], ["list", [str(2**53)]], float(2**53)]
    values += [[values[0]], [values[1]], [values[3]], {"a": values[0]}, {"a": values[2]}]
    assert len({digest(value) for value in values}) == len(values)
    assert digest({"a": 2**53 - 1}) == digest_bytes(b'{"a":9007199254740991}')
    with pytest.raises(UsageError, match="no canonical JSON"):
        digest([2**53, math.nan])


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, "\ud800", {"\ud800": 1}])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="no canonical JSON"):
        canonical_json(value)


def test_digests_agree_however_the_bytes_come() -> None:
    data = b"x" * 3_000_000
    assert digest_stream(io.BytesIO(data), chunk_bytes=1000) == digest_bytes(data)
    assert digest_text("abc") == digest_bytes(b"abc")
    # FIPS 180-4 example
    assert digest_text("abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_set_of_digests_has_no_order() -> None:
    first, second = digest("a"), digest("b")
    assert digest_set([first, second, first]) == digest_set([second, first])


@pytest.mark.parametrize(
    ("text", "expected"),
    [(digest("a"), True), ("sha256:12", False), ("md5:" + "0" * 64, False), ("0" * 71, False)],
)
def test_the_form_of_a_digest_is_checked(text: str, expected: bool) -> None:
    assert is_digest(text) is expected


def test_a_short_digest_is_for_people() -> None:
    assert short(digest_text("abc")) == "ba7816bf8f01"
