"""The fast way to canonical JSON gives the same bytes as the reference implementation of RFC 8785."""

import math

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.codec import canonical_json
from stanchion.core.errors import UsageError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | texts
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(values)
def test_canonical_json_equals_the_reference(value: object) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


def test_every_character_is_escaped_as_the_standard_says() -> None:
    everything = "".join(chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000)
    assert canonical_json([everything]) == rfc8785.dumps([everything])


def test_keys_beyond_ascii_sort_by_utf_16_units() -> None:
    assert canonical_json({"\U00010000": 1, "\uffff": 2}) == rfc8785.dumps({"\U00010000": 1, "\uffff": 2})


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, -(2**53), "\ud800", {"a": ["\udfff"]}])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="no canonical JSON"):
        canonical_json(value)
