"""A reversible vault: the model sees `<EMAIL_1_k3f9wm6m2qvxz>`, the user gets the address back.

Values are kept under AES-256-GCM with a key of their own session, derived (HKDF-SHA-256) from the keeper's
master key and a random salt. A token carries a tag made with that key: the same value gives the same
token within a session, tokens of two sessions cannot be linked, and whoever writes a token without having
seen it (a poisoned document) has to guess the tag. What is no token of this vault is left as it is.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.errors import IntegrityError
from stanchion.guard.restore import Restorer, restore_json, restore_text

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32, lower case
_TAG_LETTERS = 13  # of 5 bits: 65 bits, too many to try in all the answers of a session
_NONCE_BYTES = 12
_MAX_SESSIONS = 10_000


class _State(msgspec.Struct, frozen=True, array_like=True):
    version: int
    salt: bytes
    used_at: datetime
    counts: dict[str, int]
    tokens: dict[bytes, str]
    values: dict[str, bytes]


class _Keys(NamedTuple):
    """The keys of one session. Its repr says nothing."""

    for_values: bytes
    for_index: bytes
    for_tags: bytes

    def __repr__(self) -> str:
        return "_Keys(...)"


class Vault:
    """The secrets of one session. Thread-safe."""

    def __init__(self, session_id: str, master_key: bytes, *, salt: bytes | None = None) -> None:
        """`master_key` has 32 bytes; the salt is random unless a saved vault brings its own."""
        self.session_id = session_id
        self._master_key = master_key
        self._own_salt = salt
        self._counts: dict[str, int] = {}
        self._tokens: dict[bytes, str] = {}
        self._values: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @cached_property
    def _salt(self) -> bytes:
        """Drawn on first use, because most texts need none."""
        return self._own_salt or secrets.token_bytes(16)

    @cached_property
    def _keys(self) -> _Keys:
        """Made on first use, because most texts need none."""
        material = _derive(self._master_key, salt=self._salt, info=f"vault|{self.session_id}", length=96)
        return _Keys(material[:32], material[32:64], material[64:])

    def __repr__(self) -> str:
        return f"Vault({len(self._values)} values)"

    def __len__(self) -> int:
        return len(self._values)

    def token(self, kind: str, value: str, *, avoid: str = "") -> str:
        """The token of a value, made on first use. `kind` is upper case, such as `EMAIL`.

        A new token never occurs in the text `avoid`, so that restoring gives exactly that text back.
        """
        index = hmac.digest(
            self._keys.for_index, f"{kind}|{value}".encode("utf-8", "surrogatepass"), "sha256"
        )
        with self._lock:
            known = self._tokens.get(index)
            if known is not None:
                return known
            token = self._new_token(kind)
            while token in avoid:
                token = self._new_token(kind)
            nonce = secrets.token_bytes(_NONCE_BYTES)
            sealed = _seal(
                self._keys.for_values, nonce, value.encode("utf-8", "surrogatepass"), token.encode()
            )
            self._values[token] = nonce + sealed
            self._tokens[index] = token
            return token

    def value(self, token: str) -> str | None:
        """The value behind a token; None when this vault did not make it, or cannot open it any more."""
        sealed = self._values.get(token)
        if sealed is None:
            return None
        try:
            opened = _open(
                self._keys.for_values, sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], token.encode()
            )
        except IntegrityError:
            return None
        return opened.decode("utf-8", "surrogatepass")

    def restore(self, text: str, *, in_urls: bool = False) -> str:
        """The text with every token of this vault replaced by its value.

        Tokens inside a URL are left alone unless `in_urls`: a link must not carry a value out.
        """
        return restore_text(text, self.value, in_urls=in_urls) if self._values else text

    def restore_value(self, value: Any, *, in_urls: bool = False) -> Any:
        """A decoded JSON value with the tokens in all its texts restored."""
        if not self._values:
            return value
        if isinstance(value, str):
            return self.restore(value, in_urls=in_urls)
        if isinstance(value, dict):
            return {key: self.restore_value(item, in_urls=in_urls) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.restore_value(item, in_urls=in_urls) for item in value]
        return value

    def restore_json(self, text: str, *, in_urls: bool = False) -> str:
        """The same for the source text of JSON: values are escaped, escaped tokens are understood."""
        return restore_json(text, self.value, in_urls=in_urls) if self._values else text

    def restorer(self, *, json: bool = False, in_urls: bool = False) -> Restorer:
        """The same for a text that comes in pieces."""
        return Restorer(self.value, json=json, in_urls=in_urls)

    def dump(self, master_key: bytes, *, used_at: datetime) -> bytes:
        """The vault as sealed bytes, for `Session.state['vault']`."""
        with self._lock:
            state = _State(1, self._salt, used_at, dict(self._counts), dict(self._tokens), dict(self._values))
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + _seal(
            _state_key(master_key), nonce, msgspec.msgpack.encode(state), self.session_id.encode()
        )

    @classmethod
    def load(cls, session_id: str, state: bytes, master_key: bytes) -> tuple[Vault, datetime]:
        """A saved vault, and when it was last used.

        Raises:
            IntegrityError: when the state was changed, belongs to another session, or the key is another.
        """
        sealed = _open(
            _state_key(master_key), state[:_NONCE_BYTES], state[_NONCE_BYTES:], session_id.encode()
        )
        saved = msgspec.msgpack.decode(sealed, type=_State)
        vault = cls(session_id, master_key, salt=saved.salt)
        vault._counts, vault._tokens, vault._values = saved.counts, saved.tokens, saved.values
        return vault, saved.used_at

    def _new_token(self, kind: str) -> str:
        number = self._counts.get(kind, 0) + 1
        self._counts[kind] = number
        made = hmac.digest(self._keys.for_tags, f"{kind}|{number}".encode(), "sha256")
        tag = int.from_bytes(made[:9], "big")
        letters = [_ALPHABET[(tag >> 5 * place) & 31] for place in range(_TAG_LETTERS)]
        return f"<{kind}_{number}_{''.join(letters)}>"


class VaultKeeper:
    """The vaults of the sessions in progress; one that was not used for its TTL is forgotten. Thread-safe."""

    def __init__(self, *, ttl_s: int, clock: Clock, master_key: bytes | None = None) -> None:
        """Without a master key a random one is made: saved states then end with the process."""
        self._ttl = timedelta(seconds=ttl_s)
        self._clock = clock
        self._master_key = master_key or secrets.token_bytes(32)
        self._vaults: OrderedDict[str, tuple[Vault, datetime]] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"VaultKeeper({len(self._vaults)} sessions)"

    def __len__(self) -> int:
        return len(self._vaults)

    def open(self, session_id: str) -> Vault:
        """The session's vault; an empty session id gives a vault that nobody else can open again."""
        if not session_id:
            return Vault("", self._master_key)
        now = self._clock.now()
        with self._lock:
            self._forget(now)
            vault = self._vaults[session_id][0] if session_id in self._vaults else None
            vault = vault or Vault(session_id, self._master_key)
            self._keep(session_id, vault, now)
            return vault

    def save(self, session_id: str) -> bytes | None:
        """The session's vault as sealed bytes; None when there is none."""
        with self._lock:
            self._forget(self._clock.now())
            found = self._vaults.get(session_id)
        return None if found is None else found[0].dump(self._master_key, used_at=found[1])

    def adopt(self, session_id: str, state: bytes) -> Vault:
        """Take up a saved vault; one beyond its TTL comes back empty.

        Raises:
            IntegrityError: when the state cannot be opened; see `Vault.load`.
        """
        vault, used_at = Vault.load(session_id, state, self._master_key)
        now = self._clock.now()
        if used_at + self._ttl < now:
            vault = Vault(session_id, self._master_key)
        with self._lock:
            self._keep(session_id, vault, now)
        return vault

    def close(self, session_id: str) -> None:
        """Forget a session's values now."""
        with self._lock:
            self._vaults.pop(session_id, None)

    def _keep(self, session_id: str, vault: Vault, now: datetime) -> None:
        self._vaults[session_id] = (vault, now)
        self._vaults.move_to_end(session_id)
        while len(self._vaults) > _MAX_SESSIONS:
            self._vaults.popitem(last=False)

    def _forget(self, now: datetime) -> None:
        while self._vaults:
            session_id, (_, used_at) = next(iter(self._vaults.items()))
            if used_at + self._ttl >= now:
                return
            del self._vaults[session_id]


def _derive(key: bytes, *, salt: bytes, info: str, length: int) -> bytes:
    """HKDF with SHA-256 (RFC 5869)."""
    extracted = hmac.digest(salt, key, "sha256")
    derived, block = b"", b""
    for counter in range(1, -(-length // hashlib.sha256().digest_size) + 1):
        block = hmac.digest(extracted, block + info.encode() + bytes([counter]), "sha256")
        derived += block
    return derived[:length]


def stretched_key(words: str) -> bytes:
    """A 32-byte key from a secret text (scrypt, N=2^14, r=8, p=1; RFC 7914)."""
    return hashlib.scrypt(words.encode(), salt=b"stanchion.guard", n=2**14, r=8, p=1, dklen=32)


def _state_key(master_key: bytes) -> bytes:
    return _derive(master_key, salt=b"stanchion", info="vault-state", length=32)


def _seal(key: bytes, nonce: bytes, data: bytes, bound_to: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).encrypt(nonce, data, bound_to)


def _open(key: bytes, nonce: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(nonce, sealed, bound_to)
    except (InvalidTag, ValueError) as error:
        raise IntegrityError("this vault does not open: it was changed, or its key is another.") from error
