"""The keys of control documents: the private one stays with the admin plane, the public ones are trusted.

```
STATE_DIR/admin/signing-key.pem        private, readable by its owner only; never needed by the data plane
STATE_DIR/control/trusted/KEYID.pem    public; copy it to hosts that have no admin plane
```
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from stanchion.core.errors import StanchionError, UsageError
from stanchion.core.signatures import key_id, new_key, private_key, private_pem, public_key, public_pem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_MAX_PEM_BYTES = 10_000
_MAX_TRUSTED = 64


def signing_key_path(state_dir: Path) -> Path:
    """Where the admin plane keeps its private key."""
    return state_dir / "admin" / "signing-key.pem"


def trusted_folder(state_dir: Path) -> Path:
    """Where the public keys are that this host's replicas trust."""
    return state_dir / "control" / "trusted"


def load_signing_key(state_dir: Path, *, create: bool = True) -> Ed25519PrivateKey:
    """The private key of this host's admin plane; made on first use, and then trusted on this host.

    Raises:
        UsageError: when there is none, it cannot be read, or others than its owner could read it.
    """
    path = signing_key_path(state_dir)
    try:
        found = path.exists()
        if not found and not create:
            raise UsageError(
                f"there is no signing key at {path}.",
                hint="Run this where the admin plane runs, or make one: stanchion switch keys --new",
            )
        if not found:
            return new_signing_key(state_dir)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise UsageError(
                f"the signing key {path} can be read by others (mode {mode:04o}).",
                hint=f"Make it private: chmod 600 {path}",
            )
        return private_key(_read_pem(path))
    except OSError as error:
        raise UsageError(
            f"the signing key {path} cannot be used: {error.strerror}.",
            hint="Run this as the user of the admin plane.",
        ) from error


def new_signing_key(state_dir: Path) -> Ed25519PrivateKey:
    """Make a new private key, and trust it on this host; the public keys before it stay trusted."""
    key = new_key()
    write_private(signing_key_path(state_dir), private_pem(key))
    trust(state_dir, key.public_key())
    return key


def trust(state_dir: Path, key: Ed25519PublicKey) -> Path:
    """Trust a public key on this host; gives the file it is in."""
    path = trusted_folder(state_dir) / f"{key_id(key)}.pem"
    write_private(path, public_pem(key))
    return path


def trusted_keys(folders: tuple[Path, ...]) -> dict[str, Ed25519PublicKey]:
    """The public keys in these folders or files, by their ids.

    Raises:
        UsageError: for a file that is no public key, or too many of them.
    """
    files: list[Path] = []
    try:
        for folder in folders:
            files += sorted(folder.glob("*.pem")) if folder.is_dir() else [folder] if folder.is_file() else []
        if len(files) > _MAX_TRUSTED:
            raise UsageError(f"{len(files)} keys are trusted, and {_MAX_TRUSTED} is the most.")
        return {key_id(key): key for key in map(_public, files)}
    except OSError as error:
        raise UsageError(f"the trusted keys cannot be read: {error.strerror}.") from error


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read: whole, or not at all."""
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _public(path: Path) -> Ed25519PublicKey:
    try:
        return public_key(_read_pem(path))
    except StanchionError as error:
        raise UsageError(f"the trusted key {path}: {error.message}", hint=error.hint) from error


def _read_pem(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MAX_PEM_BYTES + 1)
    if len(data) > _MAX_PEM_BYTES:
        raise UsageError(f"{path} is no key: it is too large.")
    return data
