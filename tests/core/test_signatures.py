"""Signatures over records: only the right key, type and bytes verify."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.core.errors import IntegrityError, UsageError
from stanchion.core.signatures import (
    key_id,
    new_key,
    pre_authentication,
    private_key,
    private_pem,
    public_key,
    public_pem,
    sign,
    verified,
)

KEY = new_key()
KEYS = {key_id(KEY.public_key()): KEY.public_key()}
TYPE = "application/vnd.stanchion.test+json"


def test_the_encoding_is_that_of_the_standard() -> None:
    # The example of protocol.md of secure-systems-lab/dsse.
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == expected


@given(st.binary(max_size=300))
def test_what_was_signed_comes_back(payload: bytes) -> None:
    envelope = sign(payload, payload_type=TYPE, key=KEY)
    again = msgspec.json.decode(msgspec.json.encode(envelope), type=type(envelope))
    assert verified(again, payload_type=TYPE, keys=KEYS) == payload


@given(st.binary(min_size=1, max_size=60), st.data())
def test_no_changed_byte_verifies(payload: bytes, data: st.DataObject) -> None:
    envelope = sign(payload, payload_type=TYPE, key=KEY)
    place = data.draw(st.integers(0, len(payload) - 1))
    other = bytearray(payload)
    other[place] ^= data.draw(st.integers(1, 255))
    forged = msgspec.structs.replace(envelope, payload=base64.b64encode(other).decode())
    with pytest.raises(IntegrityError, match="does not match"):
        verified(forged, payload_type=TYPE, keys=KEYS)


def test_another_type_and_an_unknown_key_are_refused() -> None:
    envelope = sign(b"{}", payload_type=TYPE, key=KEY)
    with pytest.raises(IntegrityError, match="holds"):
        verified(envelope, payload_type="application/other", keys=KEYS)
    with pytest.raises(IntegrityError, match="none of these keys is known"):
        verified(envelope, payload_type=TYPE, keys={})
    with pytest.raises(IntegrityError, match="nobody"):
        verified(msgspec.structs.replace(envelope, signatures=()), payload_type=TYPE, keys=KEYS)


def test_keys_survive_their_files_and_wrong_files_are_said_to_be_wrong() -> None:
    assert private_key(private_pem(KEY)).public_key() == KEY.public_key()
    assert public_key(public_pem(KEY.public_key())) == KEY.public_key()
    for read in (private_key, public_key):
        with pytest.raises(UsageError, match="cannot be read"):
            read(b"no key")
