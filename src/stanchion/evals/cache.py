"""Answers that need not be asked for again, found by what was asked and of whom.

The file holds the model's words, so each answer is sealed with a key made from the request itself: who has
the request can read the answer to it, who only has the file cannot. A search of the file for a name or a
number finds nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stanchion.core.clock import Clock
from stanchion.core.codec import Digest, canonical_json, digest, digest_bytes
from stanchion.core.components import ComponentSet
from stanchion.core.errors import UnavailableError
from stanchion.core.interaction import FinishReason, Interaction, Reply
from stanchion.core.target import Target
from stanchion.evals.keyset import KeySet
from stanchion.models.client import request_content

log = logging.getLogger(__name__)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
  place TEXT PRIMARY KEY, asked_at REAL NOT NULL, sealed BLOB NOT NULL
) WITHOUT ROWID
"""
_WHOLE = frozenset({FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS})
_NONCE_BYTES = 12


class CacheKey(NamedTuple):
    """Where an answer lies and what opens it.

    `request` is the digest of the request; `place` covers the model and the repeat as well; `secret` is
    made from the request's words and is never written.
    """

    request: Digest
    place: Digest
    secret: bytes


def cache_key(interaction: Interaction, components: ComponentSet) -> CacheKey:
    """The key of a request to a target made of these components."""
    content = canonical_json(request_content(interaction))
    request = digest_bytes(content)
    repeat = interaction.labels.get("repeat", "0")
    place = digest([request, components.digest, repeat])
    secret = hashlib.blake2b(content, key=b"stanchion answer cache", digest_size=32).digest()
    return CacheKey(request, place, secret)


class AnswerCache:
    """Sealed answers in one SQLite file; None keeps them in memory.

    Args:
        path: the file; created readable by its owner only.
        clock: for the age of answers.
        fresh: take over only what was asked through this very object; still writes.
        max_age_s: older answers are asked for again.
    """

    def __init__(
        self, path: Path | None, *, clock: Clock, fresh: bool = False, max_age_s: float | None = None
    ) -> None:
        self._clock = clock
        self._fresh = fresh
        self._max_age_s = max_age_s
        self._has_failed = False
        self._asked_places = KeySet()
        self._asked_requests = KeySet()
        self._replies = msgspec.json.Decoder(Reply)
        try:
            self._db = _open(path)
        except (sqlite3.DatabaseError, OSError) as error:
            raise UnavailableError(
                f"answer cache {path}: cannot be opened: {error}.",
                hint="Delete the file; it is only a cache.",
            ) from error

    def find(self, key: CacheKey) -> Reply | None:
        """The answer, with `reused_from` filled; None when there is none, or it is too old or damaged."""
        if self._fresh and (key.place, 0) not in self._asked_places:
            return None
        try:
            query = "SELECT asked_at, sealed FROM answers WHERE place = ?"
            row = self._db.execute(query, (key.place,)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        if row is None or self._is_too_old(row[0]):
            return None
        opened = _unseal(row[1], key)
        if opened is None:
            return None
        return msgspec.structs.replace(self._replies.decode(opened), reused_from=key.request)

    def keep(self, key: CacheKey, reply: Reply) -> None:
        """Remember an answer; one that broke off is not kept."""
        self._asked_places.add((key.place, 0))
        self._asked_requests.add((key.request, 0))
        if reply.finish_reason not in _WHOLE or reply.reused_from:
            return
        sealed = _seal(msgspec.json.encode(reply), key)
        row = (key.place, self._clock.now().timestamp(), sealed)
        try:
            self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", row)
        except sqlite3.Error as error:
            self._give_up(error)

    def was_asked_here(self, request: Digest) -> bool:
        """Whether the model was asked that request through this object."""
        return (request, 0) in self._asked_requests

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _give_up(self, error: sqlite3.Error) -> None:
        """A cache that does not work costs time, never a result."""
        if not self._has_failed:
            log.warning("the answer cache does not work: %s", error)
        self._has_failed = True

    def _is_too_old(self, asked_at: float) -> bool:
        return self._max_age_s is not None and self._clock.now().timestamp() - asked_at > self._max_age_s


class CachedTarget:
    """A target that is asked only for what the cache does not have.

    Two arms of an evaluation that share one of these share answers: a guard that leaves the request as it
    was gets the answer of the unguarded arm.
    """

    def __init__(self, inner: Target, cache: AnswerCache) -> None:
        self._inner = inner
        self._cache = cache

    @property
    def id(self) -> str:
        """The id of the target behind it."""
        return self._inner.id

    @property
    def components(self) -> ComponentSet:
        """The components of the target behind it."""
        return self._inner.components

    async def invoke(self, interaction: Interaction) -> Interaction:
        """The answer from the cache, else from the target."""
        key = cache_key(interaction, self._inner.components)
        known = self._cache.find(key)
        if known is not None:
            return msgspec.structs.replace(interaction, reply=known)
        done = await self._inner.invoke(interaction)
        if done.reply is not None:
            self._cache.keep(key, done.reply)
        return done

    async def aclose(self) -> None:
        """Close the target; the cache stays open."""
        await self._inner.aclose()


def _open(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(":memory:" if path is None else str(path), isolation_level=None, timeout=10)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(_SCHEMA)
    return db


def _cipher(key: CacheKey) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key.secret)


def _seal(data: bytes, key: CacheKey) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    sealed: bytes = _cipher(key).encrypt(nonce, data, key.place.encode())
    return nonce + sealed


def _unseal(sealed: bytes, key: CacheKey) -> bytes | None:
    from cryptography.exceptions import InvalidTag

    try:
        opened: bytes = _cipher(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], key.place.encode())
    except (InvalidTag, ValueError):
        return None
    return opened
