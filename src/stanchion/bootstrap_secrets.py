"""The secrets that all replicas of a fleet share: the key of ids, and what is made from it."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from stanchion.core.errors import UsageError

if TYPE_CHECKING:
    from stanchion.config import Settings
    from stanchion.store.identity import IdKeys

IDS_KEY_FILE = "ids.key"


def id_keys_of(settings: Settings) -> IdKeys:
    """The secret of keyed ids: the fleet's, else this host's own.

    Raises:
        UsageError: when it can neither be read nor made.
    """
    from stanchion.gateway.fleet_keys import read_secret
    from stanchion.store.identity import IdKeys

    if settings.fleet_dir is None:
        return open_id_keys(settings.state_dir)
    try:
        return IdKeys(bytes.fromhex(read_secret(settings.fleet_dir / IDS_KEY_FILE).decode("ascii").strip()))
    except ValueError as error:
        raise UsageError(f"the secret of ids in {settings.fleet_dir} is no hexadecimal number.") from error


def open_id_keys(state_dir: Path) -> IdKeys:
    """The key that turns ids of the outside into keyed ones; made on first use, readable by its owner only.

    Raises:
        UsageError: when it can neither be read nor made.
    """
    from stanchion.store.identity import IdKeys

    path = state_dir / IDS_KEY_FILE
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
        return IdKeys(bytes.fromhex(path.read_text("ascii").strip()))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the key for ids at {path} cannot be read: {type(error).__name__}.",
            hint="Check the folder's rights; delete the file to start with a new key (old ids change).",
        ) from error


def sealing_key(settings: Settings) -> bytes:
    """The key that seals what waits for people: made from the key for ids, so that all workers have it."""
    secret = ((settings.fleet_dir or settings.state_dir) / IDS_KEY_FILE).read_bytes()
    return hashlib.sha256(b"stanchion.approvals\0" + secret).digest()
