"""Canonical JSON and digests: the identity of every record.

Canonical form: RFC 8785 (JSON Canonicalization Scheme). A digest is `sha256:` and 64 hex digits over the
canonical bytes; two records are the same record exactly when their digests are equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
import rfc8785

from stanchion.core.errors import UsageError

Digest = str
DIGEST_PREFIX = "sha256:"
_MAX_SAFE_INTEGER = 2**53 - 1
_WIDE = b"integers in digits\n"  # no JSON text begins so
_SORTED = msgspec.json.Encoder(order="sorted")


class Readable(Protocol):
    """Anything `read(n)` gives bytes from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        ...


def to_builtins(value: Any) -> Any:
    """Structs, enums, dates and tuples as plain JSON values."""
    return msgspec.to_builtins(value, str_keys=True)


def canonical_json(value: Any) -> bytes:
    """The RFC 8785 bytes of a value; structs are accepted.

    Raises:
        UsageError: for what JSON cannot say (NaN, infinity, integers beyond 2**53 - 1, lone surrogates).
    """
    return _canonical(to_builtins(value))


def _canonical(plain: Any) -> bytes:
    try:
        return _SORTED.encode(plain) if _is_plain(plain) else rfc8785.dumps(plain)
    except rfc8785.IntegerDomainError as error:
        raise _WideIntegerError(f"this value has no canonical JSON: {error}") from error
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise UsageError(f"this value has no canonical JSON: {error}") from error


class _WideIntegerError(UsageError):
    """An integer that not every reader of JSON can tell from its neighbours."""


def _is_plain(value: Any) -> bool:
    """Whether sorted compact JSON is already canonical: no floats, no unsafe integers, only ASCII keys.

    What is left differs neither in key order (UTF-16 units, code points) nor in how numbers are written.
    """
    waiting = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind is str or item is None or kind is bool:
            continue
        if kind is dict:
            if not all(map(_is_plain_key, item)):
                return False
            waiting.extend(item.values())
        elif kind is list or kind is tuple:
            waiting.extend(item)
        elif kind is not int or not -_MAX_SAFE_INTEGER <= item <= _MAX_SAFE_INTEGER:
            return False
    return True


def _is_plain_key(key: Any) -> bool:
    return type(key) is str and key.isascii()


def digest(value: Any) -> Digest:
    """The identity of a record: sha256 over its canonical JSON.

    With integers beyond 2**53 - 1, which that cannot say, it is over their digits: schemas hold the bounds of
    64-bit numbers. Such a digest is no other value's.

    Raises:
        UsageError: for what JSON cannot say; see `canonical_json`.
    """
    plain = to_builtins(value)
    try:
        return digest_bytes(_canonical(plain))
    except _WideIntegerError:
        return digest_bytes(_WIDE + _canonical(_in_digits(plain)))


def _in_digits(value: Any) -> Any:
    """The value with integers beyond 2**53 - 1 as `[digits]`, and lists as `["list", ...]`."""
    if isinstance(value, dict):
        return {key: _in_digits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return ["list", *map(_in_digits, value)]
    if isinstance(value, int) and abs(value) > _MAX_SAFE_INTEGER:
        return [str(value)]
    return value


def digest_bytes(data: bytes) -> Digest:
    """The identity of raw bytes."""
    return DIGEST_PREFIX + hashlib.sha256(data).hexdigest()


def digest_text(text: str) -> Digest:
    """The identity of a text: sha256 over UTF-8; lone surrogates are kept apart, never dropped."""
    return digest_bytes(text.encode("utf-8", "surrogatepass"))


def digest_stream(stream: Readable, *, chunk_bytes: int = 1 << 20) -> Digest:
    """The identity of a file's bytes, read in pieces."""
    hasher = hashlib.sha256()
    while chunk := stream.read(chunk_bytes):
        hasher.update(chunk)
    return DIGEST_PREFIX + hasher.hexdigest()


def digest_set(digests: Iterable[Digest]) -> Digest:
    """One digest for an unordered set of digests."""
    return digest(sorted(set(digests)))


def is_digest(text: str) -> bool:
    """Whether the text has the form of a digest."""
    body = text.removeprefix(DIGEST_PREFIX)
    return text.startswith(DIGEST_PREFIX) and len(body) == 64 and all(c in "0123456789abcdef" for c in body)


def short(value: Digest) -> str:
    """The first twelve hex digits, for people; never an identity."""
    return value.removeprefix(DIGEST_PREFIX)[:12]
