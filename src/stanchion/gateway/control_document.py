"""Control documents: what the admin plane decides and every replica obeys, signed and numbered.

There are three kinds: the switches, the list of virtual keys, and the list of gated component sets. Each
document holds the whole state of its kind, so a reader needs the newest one and nothing else. The payload is
canonical JSON inside a DSSE envelope; its type names the kind, so that one can never stand for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from stanchion.core.codec import canonical_json
from stanchion.core.errors import IntegrityError, UsageError
from stanchion.core.signatures import Envelope, sign, verified

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAX_ENVELOPE_BYTES = 32 * 1024 * 1024
MAX_VERSION = 2**53 - 1


class ControlKind(StrEnum):
    """What a document rules."""

    SWITCHES = "switches"
    KEYS = "keys"
    ADMISSION = "admission"

    @property
    def payload_type(self) -> str:
        """The DSSE payload type; signed along with the payload."""
        return f"application/vnd.stanchion.{self.value}+json; version=1"


class ControlDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole state of one kind at one version. `made_at_us` is microseconds since 1970, UTC."""

    kind: ControlKind
    version: int
    made_at_us: int
    made_by: str
    body: msgspec.Raw

    def __post_init__(self) -> None:
        if not 1 <= self.version <= MAX_VERSION:
            raise ValueError(f"version {self.version} is out of range")


def sealed(
    kind: ControlKind,
    body: Any,
    *,
    version: int,
    made_at_us: int,
    made_by: str,
    key: Ed25519PrivateKey,
) -> bytes:
    """The signed envelope of a document, as JSON.

    Raises:
        UsageError: when it would be larger than readers accept.
    """
    fields = {
        "kind": kind.value,
        "version": version,
        "made_at_us": made_at_us,
        "made_by": made_by,
        "body": body,
    }
    data = msgspec.json.encode(sign(canonical_json(fields), payload_type=kind.payload_type, key=key))
    if len(data) > MAX_ENVELOPE_BYTES:
        raise UsageError(
            f"the list of {kind.value} would take {len(data):,} bytes; {MAX_ENVELOPE_BYTES:,} is the most.",
            hint="Remove entries that are no longer needed.",
        )
    return data


def opened(kind: ControlKind, data: bytes, *, keys: Mapping[str, Ed25519PublicKey]) -> ControlDocument:
    """The document in an envelope, once a trusted key is found to have signed it.

    Raises:
        IntegrityError: when it is too large, no envelope, not signed by a trusted key, or of another kind.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise IntegrityError(f"the document of {kind.value} has {len(data):,} bytes; that is too many.")
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"the document of {kind.value} is no signed envelope.") from error
    payload = verified(envelope, payload_type=kind.payload_type, keys=keys)
    return _decoded(kind, payload, type_=ControlDocument)


def body_of(document: ControlDocument, type_: type[BodyT]) -> BodyT:
    """The body of a verified document.

    Raises:
        IntegrityError: when it does not fit; then a newer Stanchion wrote it.
    """
    return _decoded(document.kind, bytes(document.body), type_=type_)


if TYPE_CHECKING:
    from typing import TypeVar

    BodyT = TypeVar("BodyT")
    DecodedT = TypeVar("DecodedT")


def _decoded(kind: ControlKind, data: bytes, *, type_: type[DecodedT]) -> DecodedT:
    try:
        value = msgspec.json.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(
            f"the signed document of {kind.value} cannot be read: {error}.",
            hint="Was it written by a newer Stanchion?",
        ) from error
    if isinstance(value, ControlDocument) and value.kind is not kind:
        raise IntegrityError(f"the document of {kind.value} says it is one of {value.kind.value}.")
    return value
