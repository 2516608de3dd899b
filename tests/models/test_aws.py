"""Signatures against the published examples of AWS, and its binary event stream under every cutting."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import UnavailableError, UsageError
from stanchion.models.aws_event_stream import EventMessage, EventStreamParser, HeaderValue, encode_message
from stanchion.models.aws_signature import AwsCredentials, Scope, Signer, canonical_request, string_to_sign


class Shown:
    def __init__(self, value: str) -> None:
        self.value = value

    def reveal(self) -> str:
        return self.value


# The key pair of the examples in the AWS documentation and of the published test suite of the algorithm.
EXAMPLE = AwsCredentials(
    access_key="AKIDEXAMPLE", secret_key=Shown("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
)
THEN = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
EMPTY = hashlib.sha256(b"").hexdigest()


def signature(method: str, url: str, service: str = "service", **headers: str) -> str:
    signer = Signer(EXAMPLE, Scope(region="us-east-1", service=service))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    signed = signer.sign(method, url, headers=named, body=b"", now=THEN)
    return signed["authorization"].rpartition("=")[2]


def test_the_documentations_example_step_by_step() -> None:
    """AWS General Reference, Signature Version 4, the example request `ListUsers` of IAM."""
    url = "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08"
    kind = "application/x-www-form-urlencoded; charset=utf-8"
    headers = {"content-type": kind, "host": "iam.amazonaws.com", "x-amz-date": "20150830T123600Z"}
    canonical = canonical_request("GET", url, headers, EMPTY)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    assert digest == "f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59"
    place = "20150830/us-east-1/iam/aws4_request"
    assert string_to_sign(canonical, stamp="20150830T123600Z", place=place).splitlines()[-1] == digest
    signed = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    assert signature("GET", url, "iam", content_type=kind) == signed


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        # names and results of the published test suite (aws-sig-v4-test-suite)
        ("GET", "/", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "/", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("GET", "/?Param2=value2&Param1=value1",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    ],
    ids=["get-vanilla", "post-vanilla", "get-vanilla-query-order-key-case"],
)  # fmt: skip
def test_vectors_of_the_published_suite(method: str, path: str, expected: str) -> None:
    assert signature(method, f"https://example.amazonaws.com{path}") == expected


def test_a_path_is_encoded_once_more() -> None:
    url = "https://bedrock-runtime.us-east-1.amazonaws.com/model/a.b-v1%3A0/converse"
    assert canonical_request("POST", url, {}, EMPTY).splitlines()[1] == "/model/a.b-v1%253A0/converse"


def test_a_session_token_is_sent_and_signed_and_nothing_is_shown() -> None:
    credentials = AwsCredentials(
        access_key="AKIDEXAMPLE", secret_key=Shown("s3cret"), session_token=Shown("tok")
    )
    signer = Signer(credentials, Scope(region="us-east-1", service="bedrock"))
    headers = signer.sign("POST", "https://x.test/", headers={"user-agent": "u"}, body=b"{}", now=THEN)
    assert headers["x-amz-security-token"] == "tok"
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token," in headers["authorization"]
    assert "s3cret" not in repr(credentials) + str(headers)


def test_the_key_of_the_day_changes_with_the_day() -> None:
    signer = Signer(EXAMPLE, Scope(region="us-east-1", service="s"))
    url = "https://x.test/"
    first = signer.sign("GET", url, headers={}, body=b"", now=THEN)
    other = signer.sign("GET", url, headers={}, body=b"", now=THEN.replace(day=31))
    again = signer.sign("GET", url, headers={}, body=b"", now=THEN)
    assert first == again
    assert first != other


@pytest.mark.parametrize("region", ["", "us east", "us/east", "\n"])
def test_what_is_no_region_is_refused(region: str) -> None:
    with pytest.raises(UsageError, match="region"):
        Signer(EXAMPLE, Scope(region=region, service="bedrock"))


# --- event stream -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        # the published examples of the encoding: an empty message, and a payload without headers
        ("000000100000000005c248eb7d98c8ff", EventMessage(headers={})),
        ("0000001d00000000fd528c5a7b27666f6f273a27626172277dc3653936",
            EventMessage(headers={}, payload=b"{'foo':'bar'}")),
    ],
)  # fmt: skip
def test_published_messages(raw: str, message: EventMessage) -> None:
    assert EventStreamParser().feed(bytes.fromhex(raw)) == [message]
    assert encode_message(message.headers, message.payload).hex() == raw


VALUES: st.SearchStrategy[HeaderValue] = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=9), st.text(max_size=9)
).filter(lambda value: not isinstance(value, str) or value.isascii())
MESSAGES = st.builds(
    EventMessage,
    headers=st.dictionaries(st.text("abc:-", min_size=1, max_size=9), VALUES, max_size=4),
    payload=st.binary(max_size=40),
)


def parsed(raw: bytes, cuts: list[int]) -> list[EventMessage]:
    parser = EventStreamParser()
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    messages = [m for a, b in pairwise(edges) for m in parser.feed(raw[a:b])]
    assert parser.is_clean
    return messages


@given(st.lists(MESSAGES, max_size=5), st.lists(st.integers(0, 9999), max_size=15))
@settings(deadline=None)
def test_messages_come_back_under_every_cutting(messages: list[EventMessage], cuts: list[int]) -> None:
    raw = b"".join(encode_message(message.headers, message.payload) for message in messages)
    assert parsed(raw, cuts) == messages
    assert parsed(raw, list(range(len(raw)))) == messages


@given(MESSAGES, st.data())
@settings(deadline=None)
def test_a_changed_byte_never_passes(message: EventMessage, data: st.DataObject) -> None:
    raw = bytearray(encode_message(message.headers, message.payload))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    parser = EventStreamParser()
    try:
        assert parser.feed(bytes(raw)) == []
    except UnavailableError:
        return
    assert not parser.is_clean


@given(st.binary(max_size=80))
@settings(deadline=None)
def test_any_bytes_are_messages_or_an_error(raw: bytes) -> None:
    with suppress(UnavailableError):
        for message in EventStreamParser().feed(raw):
            assert encode_message({}, message.payload)


def test_a_message_beyond_the_limit_is_refused_before_it_is_held() -> None:
    parser = EventStreamParser(max_message_bytes=100)
    with pytest.raises(UnavailableError, match="longer than 100"):
        parser.feed(encode_message({}, b"x" * 200)[:12])


def test_every_published_type_of_header_is_read() -> None:
    import struct
    import zlib

    head = b"".join([
        b"\x01a\x00", b"\x01b\x01", b"\x01c\x02\xff", b"\x01d\x03\x00\x02", b"\x01e\x04\x00\x00\x00\x03",
        b"\x01f\x05" + bytes(7) + b"\x04", b"\x01g\x06\x00\x01x", b"\x01h\x07\x00\x01y",
        b"\x01i\x08" + bytes(7) + b"\x05", b"\x01j\x09" + bytes(16),
    ])  # fmt: skip
    prelude = struct.pack(">II", 16 + len(head), len(head))
    raw = prelude + struct.pack(">I", zlib.crc32(prelude)) + head
    [message] = EventStreamParser().feed(raw + struct.pack(">I", zlib.crc32(raw)))
    assert message.headers == {
        "a": True, "b": False, "c": -1, "d": 2, "e": 3, "f": 4, "g": b"x", "h": "y", "i": 5, "j": bytes(16),
    }  # fmt: skip
