"""What may stand in a record for a person, a tenant or a session: keyed ids, never a name or an address."""

from __future__ import annotations

import hashlib
import hmac
import re

from stanchion.core.errors import UsageError

_MIN_SECRET_BYTES = 16
_KEYED = re.compile(r"[a-z]{1,16}_[0-9a-f]{32}", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9_.:/+-]{0,200}", re.ASCII)


class IdKeys:
    """Turns an id of the outside into a keyed one: always the same, and no way back without the secret.

    HMAC-SHA-256 (RFC 2104) over kind and id, cut to 128 bits. Losing the secret makes old records unfindable
    by person, which is also the strongest erasure there is.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _MIN_SECRET_BYTES:
            raise UsageError(
                f"the secret for keyed ids has {len(secret)} bytes; at least {_MIN_SECRET_BYTES} are needed.",
                hint="Make one: python -c 'import secrets; print(secrets.token_hex(32))'",
            )
        self._secret = secret

    def __repr__(self) -> str:
        return "IdKeys(***)"

    def key(self, kind: str, value: str) -> str:
        """`subject_9f2c...` for an id of a kind (`subject`, `tenant`, `session`); empty for an empty id."""
        if not value:
            return ""
        message = f"{kind}\0{value}".encode("utf-8", "surrogatepass")
        return f"{kind}_{hmac.new(self._secret, message, hashlib.sha256).hexdigest()[:32]}"


def is_keyed(kind: str, value: str) -> bool:
    """Whether a value has the form of a keyed id of this kind."""
    return value.startswith(f"{kind}_") and bool(_KEYED.fullmatch(value))


def check_keyed(name: str, value: str) -> None:
    """Raise UsageError unless a value is a keyed id or empty; the value is not repeated."""
    if value and not _KEYED.fullmatch(value):
        raise UsageError(
            f"{name} is not a keyed id, and a record may hold no other.", hint="Make one with IdKeys.key."
        )


def check_plain(name: str, value: str) -> None:
    """Raise UsageError unless a value has the form of an id (no spaces, no @); the value is not repeated."""
    if not _PLAIN.fullmatch(value):
        raise UsageError(
            f"{name} does not have the form of an id: up to 200 letters, digits and _ . : / + -",
            hint="Free text and addresses do not belong in a record.",
        )


def is_plain(value: str) -> bool:
    """Whether a value has the form of an id."""
    return bool(_PLAIN.fullmatch(value))
