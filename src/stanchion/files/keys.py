"""Key files and signed envelopes on disk. Whoever verifies names the keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stanchion.core.errors import IntegrityError, UsageError
from stanchion.core.signatures import (
    Envelope,
    key_id,
    new_key,
    private_key,
    private_pem,
    public_key,
    public_pem,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC_SUFFIX = ".pub"
_LARGEST_KEY = 65_536


def write_key_pair(path: Path) -> tuple[Path, str]:
    """Make a key for its owner alone, and its public half beside it as `.pub`; nothing is overwritten.

    Returns the path of the public key, and the key's id.

    Raises:
        UsageError: when one of the files is there already.
    """
    key = new_key()
    public = path.with_name(path.name + PUBLIC_SUFFIX)
    for target in (path, public):
        if target.exists():
            raise UsageError(f"{target}: there is such a file already.", hint="Keys are not overwritten.")
    for target, data, mode in (
        (path, private_pem(key), 0o600),
        (public, public_pem(key.public_key()), 0o644),
    ):
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    return public, key_id(key.public_key())


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """The private key of a PEM file.

    Raises:
        UsageError: when it cannot be read.
    """
    try:
        return private_key(_read(path))
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", hint=error.hint) from error


def load_trusted_keys(path: Path) -> Mapping[str, Ed25519PublicKey]:
    """The public keys (`.pub`, `.pem`) of a folder, or the one of a file, by key id.

    Raises:
        UsageError: when there is none, or one cannot be read.
    """
    files = [path]
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.suffix in (PUBLIC_SUFFIX, ".pem"))
    if not files:
        raise UsageError(
            f"{path}: there is no public key (*.pub, *.pem).", hint="Put the keys there that you trust."
        )
    keys = {}
    for file in files:
        try:
            key = public_key(_read(file))
        except UsageError as error:
            raise UsageError(f"{file}: {error.message}", hint=error.hint) from error
        keys[key_id(key)] = key
    return keys


def read_envelope(path: Path, *, max_bytes: int) -> Envelope:
    """The signed envelope of a file; nothing is verified yet.

    Raises:
        UsageError: when the file cannot be read.
        IntegrityError: when it is no envelope, or larger than `max_bytes`.
    """
    return envelope_of(_read(path, max_bytes), name=str(path), max_bytes=max_bytes)


def envelope_of(data: bytes, *, name: str, max_bytes: int) -> Envelope:
    """The same from bytes in memory; `name` is what errors call it."""
    if len(data) > max_bytes:
        raise IntegrityError(f"{name}: larger than {max_bytes:,} bytes.")
    try:
        return msgspec.json.decode(data, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"{name}: this is no signed envelope.") from error


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read(path: Path, max_bytes: int = _LARGEST_KEY) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or type(error).__name__}.") from error
