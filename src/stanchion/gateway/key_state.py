"""The body of the keys' document: virtual keys, of which only keyed hashes are ever stored."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

import msgspec

from stanchion.core.errors import UsageError
from stanchion.gateway.control_keys import write_private

KEY_PREFIX = "stn_"
MAX_KEY_LENGTH = 256
_SECRET_BYTES = 32
_PEPPER_BYTES = 32


class KeySecret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One secret of a key: HMAC-SHA-256 of it, in hex. `ends_at_us` is set when another took its place."""

    hash: str
    made_at_us: int
    ends_at_us: int | None = None


class VirtualKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key for the data plane, for the admin plane (with `roles`, bound to a `person`), or for both.

    `features`, `models` and `surfaces` are what it may be used for; empty means all. `known_to` are those who
    had a secret of it in hand when it was made or rotated, and those who have theirs.
    """

    id: str
    name: str
    secrets: tuple[KeySecret, ...]
    made_at_us: int
    made_by: str
    person: str = ""
    roles: tuple[str, ...] = ()
    tenant: str = ""
    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    surfaces: tuple[str, ...] = ()
    expires_at_us: int | None = None
    revoked_at_us: int | None = None
    revoked_by: str = ""
    revoked_reason: str = ""
    known_to: tuple[str, ...] = ()

    @property
    def holders(self) -> tuple[str, ...]:
        """Who may act with it besides its person; a key from before that was kept is known to its maker."""
        return self.known_to or (self.made_by,)

    def is_valid(self, secret: KeySecret, *, now_us: int) -> bool:
        """Whether this secret opens anything now."""
        ends = (self.expires_at_us, self.revoked_at_us, secret.ends_at_us)
        return all(end is None or now_us < end for end in ends)

    def standing(self, *, now_us: int) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked_at_us is not None:
            return "revoked"
        return "valid" if any(self.is_valid(each, now_us=now_us) for each in self.secrets) else "expired"


class KeysState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every key that was ever made and not forgotten; `pepper_id` says which secret the hashes need."""

    keys: tuple[VirtualKey, ...] = ()
    pepper_id: str = ""

    def find(self, name_or_id: str) -> VirtualKey:
        """The key with this id or this name.

        Raises:
            UsageError: when there is none, or several by this name are not revoked.
        """
        found = [key for key in self.keys if key.id == name_or_id]
        found = found or [key for key in self.keys if key.name == name_or_id and key.revoked_at_us is None]
        found = found or [key for key in self.keys if key.name == name_or_id]
        if len(found) != 1:
            count = "no key" if not found else f"{len(found)} keys"
            raise UsageError(f"there is {count} {name_or_id!r}.", hint="See them: stanchion access-keys list")
        return found[0]


class Pepper:
    """The secret that keyed hashes of keys are made with; all hosts of a fleet need the same one."""

    def __init__(self, value: bytes) -> None:
        if len(value) < _PEPPER_BYTES:
            raise UsageError(f"the pepper has {len(value)} bytes; at least {_PEPPER_BYTES} are needed.")
        self._value = value
        self.id = hashlib.sha256(b"stanchion-pepper\0" + value).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"Pepper({self.id})"

    def hash(self, secret: bytes) -> str:
        """The keyed hash of a key."""
        return hmac.new(self._value, secret, hashlib.sha256).hexdigest()


def new_secret() -> str:
    """A key with 256 random bits, such as `stn_4x...`; scanners for leaked secrets know the prefix."""
    return KEY_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def pepper_path(state_dir: Path) -> Path:
    """Where the pepper is; copy it to every host of the fleet."""
    return state_dir / "control" / "key-pepper"


def load_pepper(state_dir: Path, *, create: bool) -> Pepper | None:
    """The pepper of this host; None when there is none and none is to be made.

    Raises:
        UsageError: when others can read it, or it cannot be read.
    """
    path = pepper_path(state_dir)
    try:
        if not path.exists():
            if not create:
                return None
            write_private(path, os.urandom(_PEPPER_BYTES).hex().encode())
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UsageError(
                f"the pepper {path} can be read by others.", hint=f"Make it private: chmod 600 {path}"
            )
        return Pepper(bytes.fromhex(path.read_text("ascii").strip()))
    except (OSError, ValueError) as error:
        raise UsageError(f"the pepper {path} cannot be read ({type(error).__name__}).") from error
