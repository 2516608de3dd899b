"""The quick reader of bodies gives what the careful one gives, or leaves the body to it."""

import json
from math import isinf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.gateway.json_body import decode_body
from stanchion.gateway.ports import Refused

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
TEXTS = st.text(alphabet=st.sampled_from('{}[]":,\\ua03 019.eE-+ntrufalsé\ud800'), max_size=40)


def read_plainly(raw):
    """What the standard library reads, without what two readers could read in two ways."""

    def unique(pairs):
        if len(dict(pairs)) != len(pairs):
            raise ValueError("twice")
        return dict(pairs)

    def finite(said):
        number = float(said)
        if isinf(number):
            raise ValueError("infinite")
        return number

    def constant(name):
        raise ValueError(name)

    decoder = json.JSONDecoder(object_pairs_hook=unique, parse_float=finite, parse_constant=constant)
    value = decoder.decode(raw.decode())
    json.dumps(value, ensure_ascii=False).encode()
    return value


@given(st.one_of(VALUES.map(json.dumps), VALUES.map(lambda v: json.dumps(v, ensure_ascii=False)), TEXTS))
def test_every_body_is_read_as_the_standard_library_reads_it_or_refused(text) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    try:
        expected = read_plainly(raw)
    except (ValueError, UnicodeEncodeError):
        with pytest.raises(Refused):
            decode_body(raw)
    else:
        assert repr(decode_body(raw)) == repr(expected)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b'{"a":1,"a":"\\u003a"}', "duplicate_key"),
        (b'{"a":"\\u003A","b":{"c":1,"c":2}}', "duplicate_key"),
        (b'{"a":1,"\\u0061":2}', "duplicate_key"),
        (b'{"a":":","a":1}', "duplicate_key"),
        (b'{"a":' + b"1" * 401 + b"}", "not_json"),
        (b'{"a":"' + b" " * 400 + b'","b":1e999}', "not_json"),
        (b'["\\ud800"]', "lone_surrogate"),
        (b'["\xff"]', "not_utf8"),
        (b"[" * 65 + b"]" * 65, "nested_too_deep"),
    ],
)
def test_what_is_in_doubt_is_refused_by_its_name(raw, code) -> None:
    with pytest.raises(Refused) as refused:
        decode_body(raw)
    assert refused.value.code == code
