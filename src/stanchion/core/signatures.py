"""Ed25519 signatures over canonical records: who signed what, and whether it still stands.

The signed bytes are DSSE's pre-authentication encoding (secure-systems-lab/dsse, protocol.md, v1), so that a
signature for one type of payload cannot be taken for another's.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ID_LENGTH = 16


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """One signature: the id of the key and the raw signature, in base64."""

    keyid: str
    sig: str


class Envelope(msgspec.Struct, frozen=True, kw_only=True, rename={"payload_type": "payloadType"}):
    """A DSSE envelope; `payload` is base64 of the signed bytes."""

    payload: str
    payload_type: str
    signatures: tuple[Signature, ...]


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """What is signed: `DSSEv1`, type and payload, each with its length in bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def new_key() -> Ed25519PrivateKey:
    """A fresh private key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


def private_key(pem: bytes) -> Ed25519PrivateKey:
    """A private key from unencrypted PKCS 8 PEM.

    Raises:
        UsageError: when it is no Ed25519 key; the message does not show it.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise UsageError("the private key cannot be read.", hint="It must be PKCS 8 PEM.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError("the private key is not an Ed25519 key.")
    return key


def public_key(pem: bytes) -> Ed25519PublicKey:
    """A public key from PEM.

    Raises:
        UsageError: when it is no Ed25519 key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError) as error:
        raise UsageError("the public key cannot be read.", hint="It must be PEM.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError("the public key is not an Ed25519 key.")
    return key


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """The key as unencrypted PKCS 8 PEM; write it only where its owner alone can read."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: Ed25519PublicKey) -> bytes:
    """The key as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: Ed25519PublicKey) -> str:
    """The identity of a key: the first 16 hexadecimal digits of the sha256 of its raw bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:_ID_LENGTH]


def sign(payload: bytes, *, payload_type: str, key: Ed25519PrivateKey) -> Envelope:
    """The payload with its signature."""
    raw = key.sign(pre_authentication(payload_type, payload))
    one = Signature(keyid=key_id(key.public_key()), sig=base64.b64encode(raw).decode())
    return Envelope(payload=base64.b64encode(payload).decode(), payload_type=payload_type, signatures=(one,))


def verified(envelope: Envelope, *, payload_type: str, keys: Mapping[str, Ed25519PublicKey]) -> bytes:
    """The payload, if a known key signed it as this type. `keys` maps key ids to keys.

    Raises:
        IntegrityError: another type, no known key, or a signature that does not match.
    """
    from cryptography.exceptions import InvalidSignature

    if envelope.payload_type != payload_type:
        raise IntegrityError(f"the envelope holds {envelope.payload_type!r}, not {payload_type!r}.")
    try:
        payload = base64.b64decode(envelope.payload, validate=True)
    except ValueError as error:
        raise IntegrityError("the payload of the envelope is not base64.") from error
    known = [one for one in envelope.signatures if one.keyid in keys]
    if not known:
        named = ", ".join(one.keyid for one in envelope.signatures) or "nobody"
        raise IntegrityError(f"signed by {named}, and none of these keys is known here.")
    for one in known:
        try:
            raw = base64.b64decode(one.sig, validate=True)
            keys[one.keyid].verify(raw, pre_authentication(payload_type, payload))
        except (InvalidSignature, ValueError):
            continue
        return payload
    raise IntegrityError(f"the signature of key {known[0].keyid} does not match what it stands for.")
